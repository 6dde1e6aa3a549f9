"""A trainable of Ray Tune that carries a worker to wherever Ray finds room for it."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import ray
from ray.tune import Trainable

from configs.problems import SpikebenchError
from orchestrator.errors import StorageError
from orchestrator.executors.inside import InsideWorker
from orchestrator.machine.slots import Slot, slots
from orchestrator.storage.database import URL_VARIABLE, open_database, storage_url
from orchestrator.storage.study import require_row
from orchestrator.workers.doorbell import Ring
from orchestrator.workers.worker import WorkerSettings

STEP_SECONDS = 0.5  # between two results, when no trial ends
LEAVE_SECONDS = 600.0  # how long a trial may take for its checkpoint


class Carrier(Trainable):  # type: ignore[misc]
    """Run a worker in this actor; its trials are processes of their own, and end with it.

    A "trial" of Tune is a carrier, not one of the study's trials: it takes jobs as every worker does, and its results
    only say that it lives. `config` names the study and holds no secret, because Ray stores and logs it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the worker; what keeps it from starting is the first result."""
        self._worker: InsideWorker | None = None
        self._problem = ""
        self._ended = 0
        try:
            self._worker = InsideWorker(_settings(config))
        except SpikebenchError as error:
            self._problem = f"{socket.gethostname()}: {error}"

    def step(self) -> dict[str, Any]:
        """Wait until a trial ends, or for a moment."""
        if self._worker is None:
            return {"problem": self._problem}
        wait([self._worker.wire], STEP_SECONDS)
        self._ended += self._worker.heard()
        self._worker.say(Ring.JOB)  # the controller's own ring does not come this far
        if not self._worker.alive:
            return {"problem": f"{socket.gethostname()}: {self._worker.problem}"}
        return {"worker": self._worker.id or "", "trials_ended": self._ended}

    def cleanup(self) -> None:
        """Have the trial write its checkpoint and give it back."""
        if self._worker is not None:
            self._worker.say(Ring.LEAVE)
            self._worker.join(LEAVE_SECONDS)


def _settings(config: dict[str, Any]) -> WorkerSettings:
    """Return what the worker of this actor works on.

    Raises:
        StorageError: this node does not know the database, or knows another.
        StudyNotFoundError: that has no such study.
    """
    sys.path[:] = [*sys.path, *(path for path in config["path"] if path not in sys.path)]
    if os.path.isdir(config["folder"]):  # noqa: PTH112 - relative paths of a configuration start where the search did
        os.chdir(config["folder"])
    url = config["storage"] or os.environ.get(URL_VARIABLE)
    if not url:
        raise StorageError(
            f"this node of the Ray cluster does not know the database: export {URL_VARIABLE} there before `ray start`. "
            "A URL with a password is not sent through Ray, which stores and shows what it is sent"
        )
    database = open_database(storage_url() if not config["storage"] else url)
    found = require_row(database, config["study"]).id
    database.engine.dispose()
    if found != config["study_id"]:
        raise StorageError(
            f"{database.masked_url} has another study '{config['study']}': {URL_VARIABLE} is a wrong one"
        )
    return WorkerSettings(database.url, found, place(config["threads"], config["gpus"]), tuple(config["preload"]))


def place(threads: int, gpus: float) -> Slot:
    """Return where the trials of this actor run: on the GPUs that Ray has chosen, under their numbers on this machine.

    Args:
        threads: CPU threads.
        gpus: how many a trial takes, or the share of one; 0 is a place on the CPU.
    """
    given = ray.get_gpu_ids()
    if not given or not gpus:
        return Slot("cpu", threads)
    shares: dict[str, Any] = {"processes": int(gpus)} if gpus > 1 else {"gpu_fraction": gpus}
    found = slots(1, threads, **shares)[0]  # of the GPUs that Ray lets this process see
    return found if found.seat is not None else replace(found, device=f"cuda:{','.join(map(str, given))}")
