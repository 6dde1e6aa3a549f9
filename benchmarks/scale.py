"""Measure how spikebench does in long studies: a trial, a tick of the controller, the report.

    python -m benchmarks.scale [--parts trial tick report] [--databases SQLite PostgreSQL] [--quick]

The trials before are filled in by bulk, so that a study of 5,000 takes seconds to make. Each part is a ratio or a time
of its own; parts that are compared run in turns, because other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import optuna
from rich.console import Console
from sqlalchemy import Connection

from benchmarks.databases import NewUrl, postgresql_urls, sqlite_urls
from benchmarks.machine import describe, machine_facts, wide_console
from benchmarks.searches import STUDY, end_times, fill, run_command, run_search, write_space
from orchestrator.executors.absent import AbsentExecutor
from orchestrator.queue.jobs import Claim, WorkerIdentity, claim, finish, hold, register_worker
from orchestrator.queue.records import record_epochs
from orchestrator.reading.snapshot import StudySnapshot
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.study import open_study
from orchestrator.storage.tables import EndReason
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.controller import Controller
from search_spaces.load import load_space
from trainers.protocol import EpochReport

ENDLESS = 10**6
Times = tuple[float, float]  # seconds by the wall clock, and of the processor


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured time, in milliseconds; the processor's share of it says what an idle machine would take."""

    what: str
    database: str
    trials: int  # in the study before
    fastest_ms: float
    median_ms: float
    worst_ms: float
    processor_ms: float | None = None  # median

    @classmethod
    def of(cls, what: str, database: str, trials: int, times: list[Times]) -> Figure:
        """Summarise repeated measurements."""
        wall, processor = zip(*times, strict=True)
        return cls(
            what, database, trials, 1e3 * min(wall), 1e3 * median(wall), 1e3 * max(wall), 1e3 * median(processor)
        )


def filled(url: str, folder: Path, trials: int, objectives: int = 1) -> None:
    """Make a study with so many finished trials in an empty database."""
    space = write_space(folder, objectives)
    database = open_database(url, create=True)
    study = open_study(database, load_space(space), trials=max(trials, 1))
    fill(database, study, trials)
    study.close()
    database.engine.dispose()


# --- a trial ----------------------------------------------------------------------------------------------------------


def measure_trials(name: str, new_url: NewUrl, sizes: list[int], trials: int, rounds: int) -> Iterator[Figure]:
    """Measure the time from one trial's end to the next one's with one worker, in studies of several sizes in turn."""
    with tempfile.TemporaryDirectory(prefix="sb") as folder:
        urls = {size: new_url() for size in sizes}
        for size, url in urls.items():
            filled(url, Path(folder), size)
        gaps: dict[int, list[float]] = {size: [] for size in sizes}
        for turn in range(1, rounds + 1):
            for size, url in urls.items():
                total = size + turn * trials
                run_search(url, Path(folder), 1, total)
                ends = end_times(url, total)[-trials:]
                gaps[size] += [after - before for before, after in pairwise(ends)]
    for size in sizes:
        times = sorted(1e3 * gap for gap in gaps[size])
        yield Figure("a trial", name, size, times[0], median(times), times[-1])


# --- a tick -----------------------------------------------------------------------------------------------------------


class Blind:
    """A view that shows nothing."""

    def start(self) -> None:
        """Show nothing."""

    def update(self, snapshot: StudySnapshot) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


def measure_ticks(name: str, new_url: NewUrl, size: int, workers: int, ticks: int) -> Iterator[Figure]:
    """Measure ticks of a controller whose workers run long trials, and ticks in which one of them has just ended.

    Every tick reads the study for the view, as it does twice a second. One in which a trial has ended also tells
    Optuna, draws the next trial from all before it and queues that.
    """
    with tempfile.TemporaryDirectory(prefix="sb") as folder:
        url = new_url()
        filled(url, Path(folder), size)
        database = open_database(url)
        study = open_study(database, load_space(write_space(Path(folder))), trials=ENDLESS)
        people = [WorkerIdentity(f"w{index}", "elsewhere", 1, 0.0, "cpu", 1) for index in range(workers)]
        for worker in people:
            database.write(partial(register_worker, worker=worker, study_id=study.id))
        controller = Controller(
            database, study, AskTell(database, study, Path(folder) / "runs", 1), AbsentExecutor(), Blind()
        )
        controller._lease.acquire()
        tick_time(controller)
        held = [take(database, worker) for worker in people]
        quiet: list[Times] = []
        busy: list[Times] = []
        for count in range(ticks):
            place = count % workers
            report(database, held[place], 1 + count // workers)
            quiet.append(tick_time(controller))
            end(database, held[place])
            busy.append(tick_time(controller))
            held[place] = take(database, people[place])
        controller._lease.release()
        study.close()
        database.engine.dispose()
    for what, times in ((f"a tick, {workers} workers", quiet), ("the same, a trial has ended", busy)):
        yield Figure.of(what, name, size, times)


def tick_time(controller: Controller) -> Times:
    """Return the time of one tick, with the reading of the study that is not due at every one."""
    controller._show_at = 0.0
    begun, used = time.perf_counter(), time.process_time()
    controller._tick()
    return time.perf_counter() - begun, time.process_time() - used


def take(database: Database, worker: WorkerIdentity) -> Claim:
    """Claim the job that the controller has queued for a worker."""
    held = database.write(lambda connection: claim(connection, worker))
    assert held is not None
    return held


def report(database: Database, held: Claim, epoch: int) -> None:
    """Report one epoch of a trial."""
    reports = [EpochReport(epoch, ENDLESS, {"val_accuracy": 0.5 + 0.001 * (held.job_id % 300)}, 60.0)]

    def action(connection: Connection) -> None:
        hold(connection, held)
        record_epochs(connection, held, reports)

    database.write(action)


def end(database: Database, held: Claim) -> None:
    """End a trial as finished."""
    database.write(lambda connection: finish(connection, held, EndReason.FINISHED))


# --- the report -------------------------------------------------------------------------------------------------------


def measure_report(name: str, new_url: NewUrl, size: int, rounds: int) -> Iterator[Figure]:
    """Measure the whole command `spikebench report` on a study with two objectives."""
    with tempfile.TemporaryDirectory(prefix="sb") as folder:
        url = new_url()
        filled(url, Path(folder), size, objectives=2)
        times = [report_time(url, Path(folder)) for _ in range(rounds)]
    yield Figure.of("spikebench report", name, size, times)


def report_time(url: str, folder: Path) -> Times:
    """Return the time of writing a report, from the start of Python to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = run_command(url, folder, "spikebench", "report", STUDY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- all of it --------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    """Measure every part on databases made for it."""
    with tempfile.TemporaryDirectory(prefix="sb") as folder, contextlib.ExitStack() as stack:
        makers: dict[str, NewUrl] = {}
        if "SQLite" in options.databases:
            makers["SQLite"] = sqlite_urls(Path(folder))
        if "PostgreSQL" in options.databases:
            makers["PostgreSQL"] = stack.enter_context(postgresql_urls(Path(folder) / "pg"))
        for name, new_url in makers.items():
            if "trial" in options.parts:
                yield from measure_trials(name, new_url, options.sizes, options.trials, options.rounds)
            if "tick" in options.parts:
                yield from measure_ticks(name, new_url, 1000, 8, 4 * options.trials)
            if "report" in options.parts:
                yield from measure_report(name, new_url, options.report_trials, options.rounds)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What trials, ticks and reports of long studies cost.")
    parser.add_argument("--parts", nargs="+", default=["trial", "tick", "report"], choices=["trial", "tick", "report"])
    parser.add_argument("--databases", nargs="+", default=["SQLite", "PostgreSQL"], choices=["SQLite", "PostgreSQL"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000], help="trials in the study before")
    parser.add_argument("--report-trials", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=30, help="trials that are run and measured, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, SQLite alone")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/scale.json"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.databases = 1, ["SQLite"]
    return options


def show(console: Console, figure: Figure) -> None:
    """Print one figure."""
    processor = "" if figure.processor_ms is None else f", {figure.processor_ms:,.1f} ms of it the processor's"
    console.print(
        f"{figure.what}, {figure.database}, {figure.trials:,} trials before: "
        f"median {figure.median_ms:,.1f} ms{processor}, {figure.fastest_ms:,.1f} to {figure.worst_ms:,.1f} ms"
    )


def main() -> None:
    """Measure, print and write; what was measured before a failure is kept."""
    options = parse_arguments()
    console = wide_console()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    facts = machine_facts()
    console.print(describe(facts))
    figures: list[Figure] = []
    try:
        for figure in measure(options):
            figures.append(figure)
            show(console, figure)
    finally:
        result = {
            "machine": facts,
            "load_after": machine_facts()["load_average"],
            "figures": [asdict(f) for f in figures],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2))
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
