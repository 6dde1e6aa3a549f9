"""The process that drives Ray Tune for a controller, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from configs.problems import SpikebenchError, mask_credentials
from orchestrator.executors.ray_cluster import connect, needs_of_a_trial, places
from orchestrator.executors.ray_fleet import Fleet
from orchestrator.executors.ray_plan import RayPlan
from orchestrator.storage.database import first_line, open_database
from orchestrator.workers.doorbell import Ring

COUNT_SECONDS = 10.0  # how often the cluster is looked at for nodes that have come or gone
NEVER = "1000000000"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": NEVER,  # Tune's own state, which is never restored
    "TUNE_MAX_PENDING_TRIALS_PG": "8",  # carriers that start at the same time
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": NEVER,
}


@dataclass(frozen=True, slots=True)
class Serve:
    """An order: work for a study.

    Args:
        study_id: key in `sb_studies`.
        study: its name.
    """

    study_id: int
    study: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """News: it cannot go on.

    Args:
        why: for people.
    """

    why: str


def log_path(plan: RayPlan) -> Path:
    """Return the file with everything that this process and Ray's print."""
    return plan.folder / "ray.log"


def main(plan: RayPlan, wire: Connection) -> None:
    """Connect, say how many places there are, and run carriers until told to leave or the controller is gone.

    Args:
        plan: what runs where.
        wire: to and from the controller.
    """
    os.setsid()  # Ctrl-C goes to a whole process group, and would end Ray's processes before trials have checkpoints
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _print_to(log_path(plan))
    os.environ.update(SETTINGS)
    try:
        there = connect(plan)
    except SpikebenchError as error:
        wire.send(Trouble(str(error)))
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        wire.send(there)
        order = wire.recv()
        if isinstance(order, Serve):
            _serve(plan, order, there.count, wire)
    except (EOFError, OSError):  # the controller has gone
        pass
    except Exception as error:
        traceback.print_exc()
        text = f"Ray Tune has ended: {type(error).__name__}: {first_line(error)}; log: {log_path(plan)}"
        with contextlib.suppress(OSError):
            wire.send(Trouble(text))
    finally:
        import ray  # noqa: PLC0415

        ray.shutdown()


def _serve(plan: RayPlan, order: Serve, count: int, wire: Connection) -> None:
    """Run carriers until the study has ended and the controller has said so."""
    database = open_database(plan.url)
    fleet = Fleet(database, order.study_id, count)
    lock = threading.Lock()

    def say(news: object) -> None:
        with lock, contextlib.suppress(OSError):
            wire.send(news)

    threading.Thread(target=_listen, args=(wire, fleet), daemon=True).start()
    if plan.count == "auto":
        threading.Thread(target=_follow, args=(plan, fleet, say), daemon=True).start()
    _run_tune(plan, order, fleet, lambda: say(Ring.ENDED))
    if fleet.trouble:
        say(Trouble(f"no worker can start on the Ray cluster: {fleet.trouble}; log: {log_path(plan)}"))
    fleet.leaving.wait()
    database.engine.dispose()


def _listen(wire: Connection, fleet: Fleet) -> None:
    """Hear when it is time to leave; a controller that is gone says so too."""
    with contextlib.suppress(EOFError, OSError):
        while wire.recv() is not Ring.LEAVE:
            pass
    fleet.leaving.set()


def _follow(plan: RayPlan, fleet: Fleet, say: Callable[[object], None]) -> None:
    """Follow a cluster that grows and shrinks."""
    while not fleet.leaving.wait(COUNT_SECONDS):
        with contextlib.suppress(Exception):  # what is wrong with the cluster shows where carriers are started
            now = places(plan)
            if now.count != fleet.places:
                fleet.places = now.count
                say(now)


def _run_tune(plan: RayPlan, order: Serve, fleet: Fleet, rang: Callable[[], None]) -> None:
    from ray import tune  # noqa: PLC0415

    from orchestrator.executors.ray_carrier import Carrier  # noqa: PLC0415
    from orchestrator.executors.ray_tune import CarrierNotes, JobScheduler, JobSearcher, JobStopper  # noqa: PLC0415

    needs = needs_of_a_trial(plan)
    tune.run(
        Carrier,
        name="tune",
        search_alg=JobSearcher(fleet, _told_to_carriers(plan, order, needs.get("GPU", 0.0))),
        scheduler=JobScheduler(fleet, rang),
        stop=JobStopper(fleet),
        callbacks=[CarrierNotes(fleet, rang)],
        resources_per_trial=tune.PlacementGroupFactory([needs], strategy="STRICT_PACK"),  # one node has it whole
        num_samples=-1,
        storage_path=str(plan.folder),
        trial_dirname_creator=lambda trial: f"carrier_{trial.trial_id}",
        raise_on_failed_trial=False,
        verbose=0,
    )


def _told_to_carriers(plan: RayPlan, order: Serve, gpus: float) -> dict[str, Any]:
    """Return what Ray sends, stores and shows: a URL with a password stays away from it."""
    is_secret = make_url(plan.url).password is not None or mask_credentials(plan.url) != plan.url
    path = [Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {
        "study": order.study,
        "study_id": order.study_id,
        "storage": "" if is_secret else plan.url,
        "threads": plan.threads,
        "gpus": gpus,
        "preload": list(plan.preload),
        "folder": str(Path.cwd()),
        "path": [str(part) for part in path],
    }


def _print_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
