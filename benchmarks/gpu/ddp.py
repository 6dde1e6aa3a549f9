"""Measure how a run's time per epoch falls with the number of processes, each on a GPU of its own.

    python -m benchmarks.gpu.ddp --config qkformer/cifar10 --processes 1 2 4
    python -m benchmarks.gpu.ddp --config stal/srnn_digits --processes 1 2 --set training.device=cpu    # a dry run

The batch stays the same, so every process has a smaller slice of it. The first epoch warms up and does not count.
"""

from __future__ import annotations

import argparse
import statistics

from rich.table import Table

from benchmarks.machine import describe, machine_facts, wide_console
from configs.resolve import resolve
from trainers.protocol import EpochReport, RunFacts, SilentReporter
from trainers.training import train


class Times(SilentReporter):
    """Keep the wall time of each epoch and where it ran."""

    def __init__(self) -> None:
        self.device = ""
        self.seconds: list[float] = []

    def started(self, facts: RunFacts) -> None:
        """Keep the devices."""
        self.device = facts.device

    def epoch(self, report: EpochReport) -> None:
        """Keep the time."""
        self.seconds.append(report.seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time per epoch with several processes.")
    parser.add_argument("--config", default="qkformer/cifar10")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--set", nargs="*", default=[], help="more keys of the configuration: key=value")
    options = parser.parse_args()
    console, facts = wide_console(), machine_facts()
    console.print(describe(facts), facts["gpus"])
    table = Table("processes", "devices", "seconds per epoch, median", "times as fast")
    first = 0.0
    for processes in options.processes:
        words = [f"training.epochs={options.epochs}", f"training.processes={processes}", *options.set]
        times = Times()
        train(resolve(options.config, words).config, times, threads=options.threads)
        median = statistics.median(times.seconds[1:])
        first = first or median
        table.add_row(str(processes), times.device, f"{median:.2f}", f"{first / median:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
