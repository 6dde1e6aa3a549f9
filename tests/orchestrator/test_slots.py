from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from orchestrator import slots as module
from orchestrator.slots import Gpu, Slot, cpu_cores, gpus, host_identity, slots

SMI = "0, GPU-aaa, NVIDIA H100, 81559, 570.1\n1, GPU-bbb, NVIDIA H100, 81559, 570.1\n"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=SMI))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    gpus.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: ())
    monkeypatch.setattr(module, "cpu_cores", lambda: 12)


@pytest.mark.usefixtures("two_gpus")
def test_every_visible_gpu_is_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_cores", lambda: 16)
    assert gpus()[1] == Gpu("cuda:1", "NVIDIA H100", 81559, "570.1")
    assert slots() == [Slot("cuda:0", 8), Slot("cuda:1", 8)]
    assert [slot.device for slot in slots(workers=3)] == ["cuda:0", "cuda:1", "cuda:0"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("visible", "devices"), [("1", ["cuda:1"]), ("GPU-a", ["cuda:0"]), ("", [])])
def test_cuda_visible_devices_is_respected(monkeypatch: pytest.MonkeyPatch, visible: str, devices: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.device for gpu in gpus()] == devices


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("workers", "threads", "expected"),
    [
        ("auto", "auto", [Slot("cpu", 1)] * 8),
        (3, "auto", [Slot("cpu", 4)] * 3),
        (2, 5, [Slot("cpu", 5)] * 2),
        (24, "auto", [Slot("cpu", 1)] * 24),
    ],
)
def test_cores_are_shared_out_and_never_oversubscribed(workers: object, threads: object, expected: list[Slot]) -> None:
    assert slots(workers, threads) == expected


def test_this_machine_has_cores_and_a_name() -> None:
    assert cpu_cores() >= 1
    assert "/" in host_identity()
