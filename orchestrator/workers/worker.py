"""A worker: takes one job after the other and runs each in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
import uuid
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import StorageError
from orchestrator.machine.identity import host_identity
from orchestrator.machine.slots import Slot
from orchestrator.queue.jobs import Claim, WorkerIdentity, beat, claim, end_workers, register_worker, work_waits
from orchestrator.queue.timing import beat_seconds
from orchestrator.storage.database import Database, is_transient, open_database
from orchestrator.workers.attempt import LONGEST_SILENCE_OF_DATABASE, Attempt
from orchestrator.workers.doorbell import Doorbell
from orchestrator.workers.trial_handle import Handles, TrialHandles

POLL_SECONDS = 1.0  # how often a worker looks for work that nobody rang for


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process is given.

    Args:
        url: database URL, with its password.
        study_id: study to work for; None works for all.
        slot: device and threads.
        preload: modules that trials need. The worker's forkserver imports them once (5 s for torch, timm and
            spikingjelly); starting a trial then costs a fork of some milliseconds.
    """

    url: str
    study_id: int | None
    slot: Slot
    preload: tuple[str, ...]


def main(settings: WorkerSettings, wire: Connection | None = None) -> None:
    """Work until told to leave: by SIGTERM, by the controller, or by the controller's death.

    Args:
        settings: what to work on.
        wire: the other end is a local controller's.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    doorbell = Doorbell(wire)
    doorbell.listen_to_signals()
    Worker(settings, doorbell).run()


class Worker:
    """Claim jobs and run them, one at a time.

    Args:
        settings: what to work on.
        doorbell: says when there is work and when to leave.
        handles: what trials run in; None is a process for each.
    """

    def __init__(self, settings: WorkerSettings, doorbell: Doorbell, handles: Handles | None = None) -> None:
        self._settings = settings
        self._doorbell = doorbell
        self._beat_at = 0.0
        self._database = _open_patiently(settings.url, doorbell)
        self._identity = identity(settings.slot)
        self._handles = handles or _processes(settings.preload)

    @property
    def id(self) -> str:
        """Key in `sb_workers`."""
        return self._identity.id

    def run(self) -> None:
        """Work until told to leave."""
        self._database.write(
            lambda connection: register_worker(connection, self._identity, self._settings.study_id),
            LONGEST_SILENCE_OF_DATABASE,
        )
        try:
            self._handles.prepare()  # imports what trials need, for seconds, while no lease runs
            while not self._doorbell.leaving:
                held = self._claim()
                if held is None:
                    self._idle()
                    continue
                Attempt(self._database, held, self._settings.slot.device, self._handles).run(self._doorbell)
                self._doorbell.hear()
                self._handles.prepare()
        finally:
            self._handles.close()
            with contextlib.suppress(StorageError):
                self._database.write(lambda connection: end_workers(connection, [self._identity.id]), patience=5.0)
            self._database.engine.dispose()

    def _claim(self) -> Claim | None:
        """Take a job if there is one; looking first keeps idle workers from queueing for the write lock."""
        with contextlib.suppress(DBAPIError), self._database.read() as connection:  # if it is away, `write` waits
            if not work_waits(connection, self._settings.study_id):
                return None
        try:
            return self._database.write(
                lambda connection: claim(connection, self._identity, self._settings.study_id), patience=0.0
            )
        except StorageError:  # it is away: look again later, and hear meanwhile when to leave
            return None

    def _idle(self) -> None:
        """Wait for a ring, or until it is time to look again: jobs also come back from workers that left or died."""
        self._doorbell.hear(POLL_SECONDS)
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + beat_seconds()
            with contextlib.suppress(StorageError):
                self._database.write(lambda connection: beat(connection, self._identity.id), patience=0.0)


def _processes(preload: tuple[str, ...]) -> TrialHandles:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orchestrator.workers.trial_process", *preload])
    return TrialHandles(context)


def _open_patiently(url: str, doorbell: Doorbell) -> Database:
    """Open the database; one that was there when the study was opened and is away now is waited for.

    Raises:
        StorageError: it cannot be opened, and waiting does not help or this worker shall leave.
    """
    deadline = time.monotonic() + LONGEST_SILENCE_OF_DATABASE
    while True:
        try:
            return open_database(url)
        except StorageError as error:
            cause = error.__cause__
            away = isinstance(cause, DBAPIError) and is_transient(cause)
            if not away or doorbell.leaving or time.monotonic() > deadline:
                raise
        doorbell.hear(POLL_SECONDS)


def identity(slot: Slot) -> WorkerIdentity:
    """Describe this process as a worker."""
    process = psutil.Process()
    return WorkerIdentity(
        id=uuid.uuid4().hex,
        host=host_identity(),
        pid=os.getpid(),
        process_started=process.create_time(),
        device=slot.device,
        threads=slot.threads,
        seat=slot.seat,
    )
