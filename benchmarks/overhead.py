"""Measure what orchestration costs: trials per second of a trainer that computes next to nothing.

    python -m benchmarks.overhead [--quick] [--trials 100] [--workers 1 2 4] [--json runs/benchmarks/overhead.json]

spikebench, raw Optuna and Ray Tune with OptunaSearch run the same trivial search (four parameters, ten reports a trial)
on SQLite and on PostgreSQL in one go, so that their ratios hold whatever else the machine is doing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.baselines import run_optuna, run_ray, start_ray, stop_ray
from benchmarks.databases import NewUrl, postgresql_urls, sqlite_urls
from benchmarks.machine import describe, machine_facts, wide_console
from benchmarks.searches import end_times, run_search, write_space

BASELINE = "raw Optuna, hardened"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured cell: the median of its repeats."""

    system: str
    database: str
    workers: int
    trials: int
    seconds: float
    whole_seconds: float | None = None  # with the start and the end of the process

    @property
    def rate(self) -> float:
        """Trials per second."""
        return self.trials / self.seconds


# --- spikebench -------------------------------------------------------------------------------------------------------


def run_spikebench(url: str, workers: int, trials: int, folder: Path) -> tuple[float, float]:
    """Run the command a user runs.

    Returns:
        Seconds of so many trials once the workers are there, as raw Optuna's and Ray's are: from the first trial's end
        to the last one's, by the database's clock, with the first trial's share added; and of the whole process.
    """
    write_space(folder)
    whole = run_search(url, folder, workers, trials)
    ends = end_times(url, trials)
    return (ends[-1] - ends[0]) * trials / (trials - 1), whole


# --- the three systems ------------------------------------------------------------------------------------------------


def median_of(repeats: int, new_url: NewUrl, run: Callable[[str], float]) -> float:
    """Return the median seconds of repeated runs, each on an empty database."""
    return statistics.median(run(new_url()) for _ in range(repeats))


def measure_spikebench(name: str, new_url: NewUrl, workers: int, trials: int, repeats: int) -> Row:
    """Measure spikebench on one kind of database."""
    pairs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="sb") as folder:
            pairs.append(run_spikebench(new_url(), workers, trials, Path(folder)))
    inner, whole = zip(*pairs, strict=True)
    return Row("spikebench", name, workers, trials, statistics.median(inner), statistics.median(whole))


def measure_optuna(name: str, new_url: NewUrl, workers: int, trials: int, repeats: int) -> Iterator[Row]:
    """Measure raw Optuna: on SQLite with default and hardened settings, on PostgreSQL there is one way."""
    for hardened in (False, True) if name == "SQLite" else (True,):
        run = partial(run_optuna, workers=workers, trials=trials, hardened=hardened)
        seconds = median_of(repeats, new_url, run)
        yield Row(BASELINE if hardened else "raw Optuna, default", name, workers, trials, seconds)


def measure_ray(name: str, new_url: NewUrl, workers: int, trials: int, repeats: int) -> Iterator[Row]:
    """Measure Ray Tune with OptunaSearch; a new actor per trial is so slow that a quarter of the trials must do."""
    with tempfile.TemporaryDirectory(prefix="sb") as folder:
        for reuse, count in ((False, max(trials // 4, workers)), (True, trials)):
            run = partial(run_ray, workers=workers, trials=count, folder=Path(folder), reuse_actors=reuse)
            seconds = median_of(repeats, new_url, run)
            yield Row(f"Ray Tune, {'reuse_actors' if reuse else 'default'}", name, workers, count, seconds)


def measure_all(options: argparse.Namespace, databases: dict[str, NewUrl]) -> Iterator[Row]:
    """Measure every system; Ray comes last, because its idle processes would slow the others down."""
    cells = [
        (name, databases[name], workers, options.trials, options.repeats)
        for name in databases
        for workers in options.workers
    ]
    for cell in cells:
        if "optuna" in options.systems:
            yield from measure_optuna(*cell)
        if "spikebench" in options.systems:
            yield measure_spikebench(*cell)
    if "ray" in options.systems:
        start_ray(max(options.workers))
        try:
            for cell in cells:
                yield from measure_ray(*cell)
        finally:
            stop_ray()


# --- the table --------------------------------------------------------------------------------------------------------


def table_of(rows: list[Row]) -> Table:
    """Return the rows with their rate against raw Optuna on the same database and workers."""
    table = Table("system", "database", "workers", "trials", "seconds", "trials/s", "of raw Optuna", "whole process, s")
    base = {(row.database, row.workers): row.rate for row in rows if row.system == BASELINE}
    for row in sorted(rows, key=lambda row: (row.database, row.workers)):
        ratio = f"{row.rate / base[row.database, row.workers]:.2f}" if (row.database, row.workers) in base else ""
        whole = f"{row.whole_seconds:.1f}" if row.whole_seconds else ""
        table.add_row(
            row.system,
            row.database,
            str(row.workers),
            str(row.trials),
            f"{row.seconds:.2f}",
            f"{row.rate:.2f}",
            ratio,
            whole,
        )
    return table


def markdown_of(rows: list[Row]) -> str:
    """Return trials per second as docs/benchmarks.md shows them: one line per system, one column per cell."""
    columns = list(dict.fromkeys((row.database, row.workers) for row in rows))
    rates = {(row.system, row.database, row.workers): f"{row.rate:.1f}" for row in rows}
    lines = ["| trials/s | " + " | ".join(f"{database}, {workers}" for database, workers in columns) + " |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for system in dict.fromkeys(row.system for row in rows):
        lines.append(f"| {system} | " + " | ".join(rates.get((system, *column), "") for column in columns) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Trials per second of a trivial trainer.")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3, help="each cell is the median of so many runs")
    parser.add_argument(
        "--systems", nargs="+", default=["optuna", "spikebench", "ray"], choices=["optuna", "spikebench", "ray"]
    )
    parser.add_argument("--databases", nargs="+", default=["SQLite", "PostgreSQL"], choices=["SQLite", "PostgreSQL"])
    parser.add_argument("--quick", action="store_true", help="one run of 20 trials per cell, 1 and 2 workers")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/overhead.json"))
    options = parser.parse_args()
    if options.quick:
        options.trials, options.repeats, options.workers = 20, 1, [1, 2]
    return options


def measure_and_print(options: argparse.Namespace, console: Console) -> Iterator[Row]:
    """Measure every cell on databases made for it, printing each as it comes."""
    with tempfile.TemporaryDirectory(prefix="sb") as folder, contextlib.ExitStack() as stack:
        makers: dict[str, NewUrl] = {}
        if "SQLite" in options.databases:
            makers["SQLite"] = sqlite_urls(Path(folder))
        if "PostgreSQL" in options.databases:
            makers["PostgreSQL"] = stack.enter_context(postgresql_urls(Path(folder) / "pg"))
        for row in measure_all(options, makers):
            console.print(f"{row.system}, {row.database}, {row.workers} workers: {row.rate:.2f} trials/s")
            yield row


def main() -> None:
    """Measure, print and write; what was measured before a failure is kept."""
    options = parse_arguments()
    console = wide_console()
    facts = machine_facts()
    console.print(describe(facts))
    if "ray" in options.systems and find_spec("ray") is None:
        console.print(
            "Ray is not installed and is left out: pip install --constraint constraints.txt -e '.[ray]'", markup=False
        )
        options.systems.remove("ray")
    rows: list[Row] = []
    try:
        for row in measure_and_print(options, console):
            rows.append(row)
    finally:
        console.print(table_of(rows))
        cells = [{**asdict(row), "trials_per_second": row.rate} for row in rows]
        result = {"machine": facts, "load_after": machine_facts()["load_average"], "rows": cells}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2))
        options.json.with_suffix(".md").write_text(markdown_of(rows))
        console.print(f"written to {options.json} and {options.json.with_suffix('.md')}")


if __name__ == "__main__":
    main()
