"""The executor on a Ray cluster keeps the contract; what it asks of the cluster; and clusters that are not there."""

from __future__ import annotations

import importlib.abc
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from contracts.executors import ExecutorContract, Scene
from ray_clusters import cluster, warnings_of_ray_are_ignored

from orchestrator.errors import OrchestratorError
from orchestrator.executors.ray_plan import RayPlan, carried, cpu_request, gpu_request
from orchestrator.machine import slots as slots_module
from orchestrator.machine.placement import Seat
from orchestrator.machine.slots import Gpu, Slot
from orchestrator.storage.tables import StudyState
from search_spaces.space import Ray, Space

pytestmark = [pytest.mark.timeout(200), *warnings_of_ray_are_ignored]


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Address of a cluster of one node with two cores and two GPUs that are only numbers."""
    with cluster({"num_cpus": 2, "num_gpus": 2, "resources": {"big_disk": 1}}) as started:
        yield started.address


@pytest.mark.system
class TestRayExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, ray_address: str) -> dict[str, Any]:
        return {"executor": "ray", "ray": {"address": ray_address}}

    def test_two_trials_share_a_gpu_and_take_what_else_they_ask_for(self, tmp_path: Path, ray_address: str) -> None:
        ray = {"address": ray_address, "cpus": 0.5, "resources": {"big_disk": 0.25}}
        scene = Scene(
            tmp_path,
            {"executor": "ray", "ray": ray},
            trainer="varied_trainer:vary",
            budget={"trials": 6},
            workers={"count": "auto", "threads": 1, "gpu_fraction": 0.5},
            overrides={"loss.name": "ce_ss", "training.epochs": 30, "training.hang_seconds": 60},
        )
        try:
            assert scene.run() is StudyState.COMPLETE
            seen = {path.read_text().strip() for path in tmp_path.glob("runs/tiny/trial_*/devices.txt")}
            assert seen <= {"0", "1"}
            assert len(list(tmp_path.glob("runs/tiny/trial_*/devices.txt"))) == 6
            devices = scene.query("SELECT device FROM sb_workers")
            assert {device for (device,) in devices} <= {"cuda:0", "cuda:1"}
            assert len(devices) <= 4
        finally:
            scene.close()

    def test_a_trial_of_two_processes_asks_for_two_gpus_of_one_node(self, tmp_path: Path, ray_address: str) -> None:
        scene = Scene(
            tmp_path,
            {"executor": "ray", "ray": {"address": ray_address}},
            trainer="varied_trainer:vary",
            budget={"trials": 3},
            workers={"count": "auto", "threads": 2},
            overrides={"loss.name": "ce_ss", "training.epochs": 30, "training.processes": 2},
        )
        try:
            assert scene.run() is StudyState.COMPLETE
            seen = {path.read_text().strip() for path in tmp_path.glob("runs/tiny/trial_*/devices.txt")}
            assert {frozenset(devices.split(",")) for devices in seen} == {frozenset("01")}
            devices = {device for (device,) in scene.query("SELECT device FROM sb_workers")}
            assert devices <= {"cuda:0,1", "cuda:1,0"}
        finally:
            scene.close()

    def test_two_processes_train_a_trial_on_cpus(self, tmp_path: Path, ray_address: str) -> None:
        scene = Scene(
            tmp_path,
            {"executor": "ray", "ray": {"address": ray_address}},
            budget={"trials": 1},
            workers={"count": 1, "threads": 2},
            overrides={"loss.name": "ce_ss", "training.epochs": 2, "training.processes": 2, "training.device": "cpu"},
        )
        try:
            assert scene.run() is StudyState.COMPLETE
            assert scene.query("SELECT end_reason, effective_batch, micro_batch FROM sb_attempts") == [
                ("finished", 128, 64)
            ]
        finally:
            scene.close()

    def test_a_trial_that_no_node_can_carry_is_refused(self, tmp_path: Path, ray_address: str) -> None:
        ray = {"address": ray_address, "resources": {"tpu": 1}}
        scene = Scene(tmp_path, {"executor": "ray", "ray": ray}, trainer="fake_trainers:quick")
        try:
            with pytest.raises(
                OrchestratorError, match=r"no node of the Ray cluster has .*1 tpu.*its nodes have.*2 CPU"
            ):
                scene.run()
        finally:
            scene.close()


class _NoRay(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")


def test_a_ray_that_is_not_installed_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoRay(), *sys.meta_path])
    scene = Scene(tmp_path, {"executor": "ray"}, trainer="fake_trainers:quick")
    try:
        with pytest.raises(OrchestratorError) as caught:
            scene.run()
    finally:
        scene.close()
    assert str(caught.value) == "`executor: ray` needs the extra of that name: pip install 'spikebench[ray]'"


def test_a_cluster_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        scene = Scene(tmp_path, {"executor": "ray", "ray": {"address": address}}, trainer="fake_trainers:quick")
        began = time.monotonic()
        try:
            with pytest.raises(OrchestratorError) as caught:
                scene.run()
        finally:
            scene.close()
    assert "\n" not in str(caught.value)
    assert f"no Ray cluster can be reached at {address}" in str(caught.value)
    assert "ray start --head" in str(caught.value)
    assert time.monotonic() - began < 60


def test_the_gpus_of_a_trial_follow_from_its_processes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set training\.processes to 2 in `overrides`"):
        Ray.model_validate({"gpus_per_trial": 2})
    assert Ray.model_validate({"gpus_per_trial": 1}) == Ray()  # as earlier versions have stored it
    assert cpu_request(Space.model_construct(ray=Ray()), "auto", 4) == (4, 4.0)
    assert cpu_request(Space.model_construct(ray=Ray()), 2, 4) == (2, 2.0)
    plan = RayPlan("sqlite:///x", "local", "auto", 4, 4.0, gpu_request(None, None, 4), {}, (), tmp_path, processes=4)
    needs = plan.needs(cluster_has_gpus=True)
    assert needs == {"CPU": 4.0, "GPU": 4.0}
    assert plan.needs(cluster_has_gpus=False) == {"CPU": 4.0}
    assert carried(needs, [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 3.0}]) == 2  # one node has a trial whole
    with pytest.raises(OrchestratorError, match="takes as many whole GPUs"):
        gpu_request(None, 0.5, 2)


def test_a_carrier_has_all_gpus_that_ray_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="install the extra `ray`")
    from orchestrator.executors import ray_carrier

    monkeypatch.setattr(ray_carrier.ray, "get_gpu_ids", lambda: [5, 2])
    monkeypatch.setattr(slots_module, "gpus", lambda: ())
    assert ray_carrier.place(4, 2.0).device == "cuda:5,2"  # no nvidia-smi knows them
    assert ray_carrier.place(4, 0.0).device == "cpu"
    seen = tuple(Gpu(f"cuda:{number}", "H100", 1000, "570", f"GPU-{number}") for number in (5, 2))
    monkeypatch.setattr(slots_module, "gpus", lambda: seen)
    assert ray_carrier.place(4, 2.0) == Slot("cuda:5,2", 4, Seat("GPU-5", 1000, 1000.0, 2))


@pytest.mark.parametrize(
    ("needs", "nodes", "count"),
    [
        ({"CPU": 1.0}, [{"CPU": 4.0}, {"CPU": 2.0}], 6),
        ({"CPU": 1.0, "GPU": 0.5}, [{"CPU": 16.0, "GPU": 2.0}], 4),
        ({"CPU": 1.0, "GPU": 0.3}, [{"CPU": 16.0, "GPU": 2.0}], 6),
        ({"CPU": 8.0, "GPU": 0.5}, [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}], 2),
        ({"CPU": 1.0, "big": 1.0}, [{"CPU": 16.0}, {"CPU": 1.0, "big": 3.0}], 1),
        ({"CPU": 0.1}, [{"CPU": 0.3}], 3),
    ],
)
def test_a_cluster_carries_what_its_nodes_do(
    needs: dict[str, float], nodes: list[dict[str, float]], count: int
) -> None:
    assert carried(needs, nodes) == count


def test_requests_follow_from_the_space(tmp_path: Path) -> None:
    def space(**ray: Any) -> Space:
        return Space.model_construct(ray=Ray(**ray))

    assert cpu_request(space(), "auto") == (1, 1.0)
    assert cpu_request(space(), 3) == (3, 3.0)
    assert cpu_request(space(cpus=0.5), "auto") == (1, 0.5)
    assert cpu_request(space(cpus=4), "auto") == (4, 4.0)
    assert cpu_request(space(cpus=4), 2) == (2, 4.0)
    assert gpu_request(None, None) is None
    assert gpu_request(4, None) == 0.25
    plan = RayPlan("sqlite:///x", "local", "auto", 1, 2.0, None, {"big": 1.0}, (), tmp_path)
    assert plan.needs(cluster_has_gpus=True) == {"CPU": 2.0, "GPU": 1.0, "big": 1.0}
    assert plan.needs(cluster_has_gpus=False) == {"CPU": 2.0, "big": 1.0}
