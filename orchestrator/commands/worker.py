"""`spikebench worker`: help running studies from this machine."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from orchestrator.commands.options import (
    GpuFractionOption,
    PerGpuOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    count_or_auto,
    shares_of,
)
from orchestrator.errors import NoTablesError, StudyNotFoundError
from orchestrator.executors.local import LocalExecutor
from orchestrator.machine.slots import described, slots
from orchestrator.queue.endings import EXIT_PREEMPTED
from orchestrator.queue.one_machine import refuse_other_machines
from orchestrator.storage.database import Database, is_transient, open_database, storage_url
from orchestrator.storage.schema import require_tables
from orchestrator.storage.study import require_row
from orchestrator.workers.trial_process import OUR_TRAINER
from search_spaces.space import CheckedSpace

WATCH_SECONDS = 1.0


def processes_of(database: Database, study: str) -> int:
    """Return how many processes train a trial of a study, each on a GPU of its own."""
    return CheckedSpace.from_json(require_row(database, study).space_json).base.training.processes


def command(
    study: Annotated[
        str | None,
        typer.Option(help="Work for this study only, waiting for it if need be; by default for every study."),
    ] = None,
    workers: WorkersOption = "auto",
    threads: ThreadsOption = "auto",
    per_gpu: PerGpuOption = None,
    gpu_fraction: GpuFractionOption = None,
    storage: StorageOption = None,
) -> None:
    """Help running studies with the GPUs or cores of this machine, until Ctrl-C.

    It may be started before there is a study: it waits. Ctrl-C or SIGTERM once: running trials write a checkpoint and
    are given back. Twice: at once. After SIGTERM, with which schedulers take a machine back, it leaves with 75.
    """
    console = Console(highlight=False)
    shares = shares_of(per_gpu, gpu_fraction)
    asked = count_or_auto(workers, "--workers"), count_or_auto(threads, "--threads")
    stop = threading.Event()
    signals: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    found = wait_for_study(console, storage, study, stop)
    if found is not None:
        database, study_id = found
        refuse_other_machines(database)
        places = slots(*asked, **shares, processes=1 if study is None else processes_of(database, study))
        console.print(
            f"{described(places)} for {f'study {study} of ' if study else ''}{database.masked_url}; "
            "Ctrl-C gives their trials back and leaves",
            soft_wrap=True,
        )
        work(console, LocalExecutor(database.url, study_id, places, OUR_TRAINER), stop, signals)
    if signal.SIGTERM in signals:
        raise typer.Exit(EXIT_PREEMPTED)


def wait_for_study(
    console: Console, storage: str | None, study: str | None, stop: threading.Event
) -> tuple[Database, int | None] | None:
    """Open the database once it has its tables and the study, saying what is waited for when that changes.

    Workers are often started with, or before, the controller that makes both.

    Args:
        console: where to print.
        storage: URL of the database as given on the command line.
        study: name of the study; None needs none.
        stop: set when the worker shall leave.

    Returns:
        The database and the study's id, or None where it shall leave.

    Raises:
        WrongStorageError: the URL names no database, or a file that is missing.
        StorageError: the database cannot be opened, or its tables are of another version.
    """
    database = open_database(storage_url(storage))
    told = ""
    while not stop.is_set():
        try:
            require_tables(database)
            return database, None if study is None else require_row(database, study).id
        except (NoTablesError, StudyNotFoundError) as error:
            if str(error) != told:
                told = str(error)
                what = f"study {study}" if study else "the tables"
                console.print(f"{told}\nwaiting for {what}; Ctrl-C leaves", soft_wrap=True, markup=False)
        except DBAPIError as error:  # it was there a moment ago, and will be back
            if not is_transient(error):
                raise
        stop.wait(WATCH_SECONDS)
    database.engine.dispose()
    return None


def work(console: Console, executor: LocalExecutor, stop: threading.Event, signals: list[int]) -> None:
    """Keep the workers alive until a signal, then give their trials back; a second signal ends them at once.

    Args:
        console: where to print.
        executor: starts the workers.
        stop: set at each signal.
        signals: those that came.
    """
    executor.start()
    try:
        while not stop.wait(WATCH_SECONDS):
            executor.tend()
        console.print("leaving: running trials write a checkpoint and are given back (Ctrl-C again stops at once)")
        executor.leave()
        stop.clear()
        while executor.living() and len(signals) < 2:
            stop.wait(0.1)
    finally:
        executor.kill()
