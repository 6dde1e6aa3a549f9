"""The Ray cluster as the process sees it that drives Ray Tune: reach it, and count what it carries."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import make_url

from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.executors.ray_plan import RayPlan, carried, in_words
from orchestrator.storage.database import URL_VARIABLE, first_line, postgresql_commands

HOW_TO_INSTALL = "`executor: ray` needs the extra of that name: pip install 'spikebench[ray]'"
KNOCK_SECONDS = 5.0  # how long the head of a cluster may take to answer at all
OBJECT_STORE_BYTES = 100 * 2**20  # nothing of a trial goes through it
UNSAID = ("memory", "object_store_memory", "node:")  # resources that Ray adds to what people give


@dataclass(frozen=True, slots=True)
class Places:
    """What the cluster carries.

    Args:
        count: trials at once.
        where: for people.
    """

    count: int
    where: str


def connect(plan: RayPlan) -> Places:
    """Connect this process to the cluster, or start one on this machine.

    Raises:
        OrchestratorError: Ray is absent or out of reach, or no node can carry a trial.
        StorageError: the database is a file, and the cluster has other machines.
    """
    try:
        import ray  # noqa: PLC0415 - optional, and half a second to load
        import ray.tune  # noqa: PLC0415
    except ImportError as error:
        raise OrchestratorError(f"{HOW_TO_INSTALL} ({error})") from error
    if ":" in plan.address:
        _knock(plan.address)
    options: dict[str, Any] = {}
    if plan.address == "local":
        os.environ[URL_VARIABLE] = plan.url  # the workers inherit it
        options = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(plan.address, log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError and TimeoutError are among the first
        raise OrchestratorError(
            f"no Ray cluster can be reached {_at(plan.address)}: {first_line(error)}. "
            "`ray start --head` starts one; without --ray-address a search starts Ray for itself"
        ) from error
    return places(plan)


def places(plan: RayPlan) -> Places:
    """Count what the cluster carries.

    Raises:
        OrchestratorError: no node can carry a trial.
        StorageError: the database is a file, and the cluster has other machines.
    """
    nodes = _nodes()
    _refuse_other_machines(plan, nodes)
    has = [node["Resources"] for node in nodes]
    needs = needs_of_a_trial(plan)
    there = carried(needs, has)
    if not there:
        each = "; ".join(in_words({name: n for name, n in node.items() if not name.startswith(UNSAID)}) for node in has)
        raise OrchestratorError(
            f"no node of the Ray cluster has {in_words(needs)}, which a trial takes; its nodes have: {each}"
        )
    words = f"Ray {_at(plan.address)}, {len(nodes)} node{'s' * (len(nodes) > 1)}, {in_words(needs)} for each trial"
    return Places(there if plan.count == "auto" else plan.count, words)


def needs_of_a_trial(plan: RayPlan) -> dict[str, float]:
    """Return what one trial takes of this cluster."""
    return plan.needs(any(node["Resources"].get("GPU") for node in _nodes()))


def _nodes() -> list[Mapping[str, Any]]:
    import ray  # noqa: PLC0415

    return [node for node in ray.nodes() if node["Alive"]]


def _knock(address: str) -> None:
    """Raise at once where nothing listens; Ray would try for a minute and then end this process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise OrchestratorError(
            f"no Ray cluster can be reached at {address}: {error}. "
            f"`ray start --head --port {port}` on {host} starts one, and prints its address"
        ) from error


def _refuse_other_machines(plan: RayPlan, nodes: list[Mapping[str, Any]]) -> None:
    others = {node["NodeManagerHostname"] for node in nodes} - {socket.gethostname()}
    if others and make_url(plan.url).get_backend_name() == "sqlite":
        raise StorageError(
            f"the Ray cluster has other machines ({', '.join(sorted(others))}), and SQLite loses data when two share "
            f"a file. {postgresql_commands()}"
        )


def _at(address: str) -> str:
    return "on this machine" if address in ("local", "auto") else f"at {address}"
