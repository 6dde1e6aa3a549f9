"""Make the files beside front trials while a study runs, in a process that lets every trial go first."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.exc import DBAPIError

from orchestrator.machine.forkserver import no_main_module
from orchestrator.reports.artifacts import OUR_TRAINER, keep_artifacts
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import CheckpointRow, EndReason, JobRow
from orchestrator.tracking.targets import Note, leave_signals_to_the_parent, noting, pass_on

LOOK_SECONDS = 20.0  # between two looks at whether the front has changed
NICENESS = 19  # of a process that lets everybody else go first


@contextlib.contextmanager
def artifacts_beside(database: Database, study_id: int, study_name: str, folder: Path, note: Note) -> Iterator[None]:
    """Keep the files beside front trials up to date while the block runs; leave with it at once.

    A study whose trainer is not spikebench's starts no process.

    Args:
        database: the study's database.
        study_id: the study.
        study_name: its name.
        folder: of the artifact store.
        note: told in one line of what cannot be made; called from another thread.
    """
    stop = threading.Event()
    process_of = partial(_process, database, study_name, folder, note, NICENESS)
    watcher = threading.Thread(target=_watch, args=(database, study_id, process_of, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def make_all(database: Database, study_name: str, folder: Path, note: Note, seconds: float) -> bool:
    """Make what is missing in a process of its own; False when the time was not enough.

    Args:
        database: the study's database.
        study_name: the study.
        folder: of the artifact store.
        note: told in one line of what cannot be made; called from another thread.
        seconds: after which the process is ended; what it has made by then stays.
    """
    with _process(database, study_name, folder, note, 0) as process:
        process.join(seconds)
        return not process.is_alive()


def _watch(
    database: Database,
    study_id: int,
    process_of: Callable[[], contextlib.AbstractContextManager[BaseProcess]],
    stop: threading.Event,
) -> None:
    seen: set[int] = set()
    while not stop.wait(LOOK_SECONDS):
        try:
            now = _drawable(database, study_id)
        except DBAPIError:  # the database is away; the controller says so
            continue
        if now - seen:
            with process_of() as process:
                while process.is_alive() and not stop.wait(0.5):
                    pass
        seen = now


def _drawable(database: Database, study_id: int) -> set[int]:
    """Return the jobs that have finished and kept their checkpoints: those of the front, and the latest."""
    saved = exists().where(CheckpointRow.job_id == JobRow.id)
    query = select(JobRow.id).where(
        JobRow.study_id == study_id, JobRow.end_reason == EndReason.FINISHED, JobRow.trainer == OUR_TRAINER, saved
    )
    with database.read() as connection:
        return set(connection.execute(query).scalars())


@contextlib.contextmanager
def _process(database: Database, study_name: str, folder: Path, note: Note, niceness: int) -> Iterator[BaseProcess]:
    context = multiprocessing.get_context("spawn")  # a fresh interpreter, whose torch sees no GPU
    wire, far_end = context.Pipe()
    process = context.Process(
        target=main, args=(database.url, study_name, folder.resolve(), niceness, far_end), name="artifacts", daemon=True
    )
    with no_main_module():
        process.start()
    far_end.close()
    reader = threading.Thread(target=partial(pass_on, wire, note), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        reader.join(1.0)
        wire.close()


def main(url: str, study_name: str, folder: Path, niceness: int, wire: Connection) -> None:
    """Make what is missing, with one thread and no GPU; end when whoever started this is gone.

    Args:
        url: the study's database, with its password.
        study_name: the study.
        folder: of the artifact store.
        niceness: how much others go first.
        wire: takes notes for people.
    """
    leave_signals_to_the_parent()
    os.nice(niceness)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    database = open_database(url)
    try:
        keep_artifacts(database, study_name, folder, noting(wire, (), url))
    finally:
        database.engine.dispose()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
