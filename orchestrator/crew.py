"""Who trains the trials of a study: an executor of the kind that the space or the command line names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.executors.base import Executor
from orchestrator.executors.debug import DebugExecutor
from orchestrator.executors.local import LocalExecutor
from orchestrator.executors.ray import RayExecutor
from orchestrator.executors.ray_plan import RayPlan, cpu_request, gpu_request
from orchestrator.machine.slots import Slot, described, slots
from orchestrator.storage.study import Study
from orchestrator.workers.trial_process import modules_of
from search_spaces.space import CheckedSpace, Space


@dataclass(frozen=True, slots=True)
class Crew:
    """Who trains the trials of a study.

    Args:
        executor: starts the workers.
        described: for people, who and where they are.
        threads: CPU threads of each trial; 0 leaves them to the worker that starts it.
    """

    executor: Executor
    described: str
    threads: int


@dataclass(frozen=True, slots=True)
class Request:
    """How trials share what is there.

    Args:
        count: trials at once.
        threads: CPU threads of each.
        per_gpu: trials at once on each GPU.
        gpu_fraction: share of a GPU for each trial.
    """

    count: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    per_gpu: int | None = None
    gpu_fraction: float | None = None


def in_words(space: Space, request: Request) -> str:
    """Return who would train, without asking a cluster.

    Args:
        space: names the executor.
        request: how trials share what is there.
    """
    if space.executor == "ray":
        count = "as many as fit" if request.count == "auto" else f"{request.count}"
        return f"{count} on a Ray cluster, address {space.ray.address}"
    places = slots(request.count, request.threads, request.per_gpu, request.gpu_fraction)
    return _one_at_a_time(places[0]) if space.executor == "debug" else described(places)


def hire(checked: CheckedSpace, request: Request, url: str, folder: Path) -> Callable[[Study], Crew]:
    """Find whoever trains, before there is a study to train for: a cluster may be out of reach.

    Args:
        checked: names the executor and what trials need.
        request: how they share what is there.
        url: database URL.
        folder: the study's; executors may log there.

    Returns:
        What makes a crew for an opened study.

    Raises:
        OrchestratorError: a Ray cluster cannot be used, or there are not the GPUs that a trial takes.
    """
    space, processes = checked.space, checked.base.training.processes
    if space.executor == "ray":
        return _by_ray(space, request, processes, url, folder)
    places = slots(request.count, request.threads, request.per_gpu, request.gpu_fraction, processes)
    if space.executor == "debug":
        place = places[0]
        return lambda study: Crew(DebugExecutor(url, study.id, place), _one_at_a_time(place), place.threads)
    preload = modules_of(space.trainer)
    return lambda study: Crew(LocalExecutor(url, study.id, places, preload), described(places), places[0].threads)


def _one_at_a_time(place: Slot) -> str:
    return f"one at a time in this process on {place.device}"


def _by_ray(space: Space, request: Request, processes: int, url: str, folder: Path) -> Callable[[Study], Crew]:
    threads, cpus = cpu_request(space, request.threads, processes)
    plan = RayPlan(
        url=url,
        address=space.ray.address,
        count=request.count,
        threads=threads,
        cpus=cpus,
        gpu_fraction=gpu_request(request.per_gpu, request.gpu_fraction, processes),
        resources=space.ray.resources,
        preload=modules_of(space.trainer),
        folder=folder.resolve() / "ray",
        processes=processes,
    )
    executor = RayExecutor(plan)

    def crew(study: Study) -> Crew:
        executor.serve(study.id, study.name)
        return Crew(executor, executor.described, threads)

    return crew
