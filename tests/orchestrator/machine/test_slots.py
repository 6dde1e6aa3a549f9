from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.machine import slots as module
from orchestrator.machine.placement import Seat
from orchestrator.machine.slots import Gpu, Slot, cpu_cores, described, gpus, slots
from orchestrator.workers.worker import identity

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
    assert gpus()[1] == Gpu("cuda:1", "NVIDIA H100", 81559, "570.1", "GPU-bbb")
    whole = [Seat(f"GPU-{letter * 3}", 81559, 81559.0) for letter in "ab"]
    assert slots() == [Slot("cuda:0", 8, whole[0]), Slot("cuda:1", 8, whole[1])]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "devices", "share"),
    [
        ({"workers": 3}, "010", 0.5),
        ({"per_gpu": 2}, "0101", 0.5),
        ({"gpu_fraction": 0.25}, "01010101", 0.25),
        ({"gpu_fraction": 0.6}, "01", 0.6),
        ({"gpu_fraction": 1 / 3}, "010101", 1 / 3),
        ({"workers": 2, "gpu_fraction": 0.4}, "01", 0.4),
        ({"workers": 1, "per_gpu": 3}, "0", 1 / 3),
    ],
)
def test_workers_go_round_the_gpus_and_share_their_memory(asked: dict[str, Any], devices: str, share: float) -> None:
    found = slots(**asked)
    assert [slot.device for slot in found] == [f"cuda:{digit}" for digit in devices]
    assert [slot.seat.share_mb for slot in found if slot.seat] == pytest.approx([share * 81559] * len(devices))


@pytest.mark.usefixtures("two_gpus")
def test_trials_of_several_processes_take_groups_of_whole_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_cores", lambda: 16)
    assert slots(processes=2) == [Slot("cuda:0,1", 16, Seat("GPU-aaa", 81559, 81559.0, 2))]
    five = tuple(Gpu(f"cuda:{number}", "H100", 1000, "570", f"GPU-{number}") for number in (4, 3, 0, 1, 2))
    monkeypatch.setattr(module, "gpus", lambda: five)
    assert [slot.device for slot in slots(processes=2)] == ["cuda:4,3", "cuda:0,1"]
    assert [slot.device for slot in slots(1, 3, processes=4)] == ["cuda:4,3,0,1"]
    with pytest.raises(OrchestratorError, match=r"a trial of 6 processes .* this machine has 5: lower training"):
        slots(processes=6)
    with pytest.raises(OrchestratorError, match=r"3 trials at once of 2 processes .* has 5: lower --workers or"):
        slots(3, processes=2)
    with pytest.raises(OrchestratorError, match="as many whole GPUs: leave out per_gpu"):
        slots(processes=2, per_gpu=2)


@pytest.mark.usefixtures("no_gpu")
def test_processes_of_a_trial_share_its_cores() -> None:
    assert slots(processes=3) == [Slot("cpu", 3)] * 4
    assert slots(processes=30) == [Slot("cpu", 12)]


@pytest.mark.usefixtures("two_gpus")
def test_the_cores_are_shared_among_the_workers_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_cores", lambda: 16)
    assert {slot.threads for slot in slots(per_gpu=4)} == {2}


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("1", ["cuda:1"]),
        ("GPU-a", ["cuda:0"]),
        ("", []),
        ("1,0", ["cuda:1", "cuda:0"]),
        ("GPU-bbb, 0", ["cuda:1", "cuda:0"]),
        ("0,-1,1", ["cuda:0"]),
        ("5,0", []),
    ],
)
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


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([Slot("cpu", 1)], "1 worker on cpu with 1 thread"),
        ([Slot("cpu", 2)] * 2, "2 workers on cpu with 2 threads each"),
        ([Slot("cuda:0", 8), Slot("cuda:1", 8)] * 2, "4 workers (2 on cuda:0, 2 on cuda:1) with 8 threads each"),
    ],
)
def test_places_are_told_in_words(places: list[Slot], words: str) -> None:
    assert described(places) == words


def test_a_worker_tells_its_seat() -> None:
    seat = Seat("GPU-aaa", 1000.0, 500.0)
    assert identity(Slot("cuda:0", 2, seat)).seat == seat


def test_this_machine_has_cores() -> None:
    assert cpu_cores() >= 1
