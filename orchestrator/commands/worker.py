"""`spikebench worker`: help running studies from this machine."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import (
    GpuFractionOption,
    PerGpuOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    count_or_auto,
    shares_of,
)
from orchestrator.executors.local import LocalExecutor
from orchestrator.machine.slots import described, slots
from orchestrator.queue.endings import EXIT_PREEMPTED
from orchestrator.queue.one_machine import refuse_other_machines
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.workers.trial_process import OUR_TRAINER

WATCH_SECONDS = 1.0


def command(
    study: Annotated[str | None, typer.Option(help="Work for this study only; by default for every study.")] = None,
    workers: WorkersOption = "auto",
    threads: ThreadsOption = "auto",
    per_gpu: PerGpuOption = None,
    gpu_fraction: GpuFractionOption = None,
    storage: StorageOption = None,
) -> None:
    """Help running studies with the GPUs or cores of this machine, until Ctrl-C.

    Ctrl-C or SIGTERM once: running trials write a checkpoint and are given back. Twice: at once. After SIGTERM, with
    which schedulers take a machine back, it leaves with 75.
    """
    console = Console(highlight=False)
    database = open_ready(storage)
    refuse_other_machines(database)
    study_id = require_row(database, study).id if study else None
    shares = shares_of(per_gpu, gpu_fraction)
    places = slots(count_or_auto(workers, "--workers"), count_or_auto(threads, "--threads"), **shares)
    executor = LocalExecutor(database.url, study_id, places, OUR_TRAINER)
    stop = threading.Event()
    signals: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    console.print(
        f"{described(places)} for {f'study {study} of ' if study else ''}{database.masked_url}; "
        "Ctrl-C gives their trials back and leaves",
        soft_wrap=True,
    )
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
    if signal.SIGTERM in signals:
        raise typer.Exit(EXIT_PREEMPTED)
