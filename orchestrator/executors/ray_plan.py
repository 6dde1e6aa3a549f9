"""What a study asks of a Ray cluster: plain data and sums, without Ray."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.errors import OrchestratorError
from orchestrator.machine.slots import refused_shares
from search_spaces.space import Space

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RayPlan:
    """What runs where.

    Args:
        url: database URL, with its password.
        address: "local", "auto" or "HOST:PORT".
        count: trials at once; "auto" is as many as the cluster carries.
        threads: CPU threads of each trial.
        cpus: CPUs that each takes of the cluster.
        gpu_fraction: share of a GPU that each takes; None is a whole one for each process where the cluster has any.
        resources: custom resources that each takes.
        preload: modules that trials need.
        folder: for what Ray Tune writes, and the log of the process that drives it.
        processes: that train a trial together, on one node.
    """

    url: str
    address: str
    count: int | Literal["auto"]
    threads: int
    cpus: float
    gpu_fraction: float | None
    resources: Mapping[str, float]
    preload: tuple[str, ...]
    folder: Path
    processes: int = 1

    def needs(self, cluster_has_gpus: bool) -> dict[str, float]:
        """Return what one trial takes, by Ray's names for resources."""
        gpus = self.gpu_fraction or float(cluster_has_gpus * self.processes)
        return {"CPU": self.cpus, **({"GPU": gpus} if gpus else {}), **self.resources}


def cpu_request(space: Space, threads: int | Literal["auto"], processes: int = 1) -> tuple[int, float]:
    """Return the CPU threads of a trial and the CPUs it takes of a cluster: each follows from the other.

    Args:
        space: the space.
        threads: threads of each trial as they were asked for.
        processes: that train a trial together; each has a CPU by default.
    """
    cpus = space.ray.cpus or float(processes if threads == "auto" else threads)
    return (max(1, math.floor(cpus)) if threads == "auto" else threads), cpus


def gpu_request(per_gpu: int | None, gpu_fraction: float | None, processes: int = 1) -> float | None:
    """Return the share of a GPU that each trial takes; None where nothing was said.

    Raises:
        OrchestratorError: a trial of several processes shall have a share of a GPU.
    """
    if processes > 1 and (per_gpu or gpu_fraction):
        raise OrchestratorError(refused_shares(processes))
    return 1.0 / per_gpu if per_gpu else gpu_fraction


def carried(needs: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """Return how many trials some nodes carry at once.

    Args:
        needs: what one trial takes.
        nodes: what each node has.
    """
    return sum(min(_fits(name, need, node.get(name, 0.0)) for name, need in needs.items()) for node in nodes)


def in_words(resources: Mapping[str, float]) -> str:
    """Return resources for people: "2 CPU, 0.5 GPU"."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _fits(name: str, need: float, there: float) -> int:
    if name == "GPU" and need < 1.0:  # a trial's share is of one GPU, never of two
        return math.floor(there + ROUNDING) * math.floor(1.0 / need + ROUNDING)
    return math.floor(there / need + ROUNDING)
