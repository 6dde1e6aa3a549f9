"""The shipped trainer, whose first two attempts wait after an epoch of their own for whoever disturbs them."""

from __future__ import annotations

import time
from pathlib import Path

from configs.schema import RunConfig
from trainers import training
from trainers.protocol import EpochReport, Reporter, Result, RunFacts, SavedCheckpoint, Verdict

DISTURBED_ATTEMPTS = 2


class Gate:
    """A reporter that lets no run past its first new epoch until it is asked to end."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._resumed = 0
        self._waits = False

    def started(self, facts: RunFacts) -> None:
        self._resumed = facts.resumed_epoch
        self._report.started(facts)

    def epoch(self, report: EpochReport) -> None:
        self._waits |= report.epoch > self._resumed
        self._report.epoch(report)

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        self._report.checkpoint(saved)

    def verdict(self) -> Verdict:
        while (verdict := self._report.verdict()) is Verdict.CONTINUE and self._waits:
            time.sleep(0.02)
        return verdict


def train(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
    attempt: int = 1,
) -> Result:
    """Train as the shipped trainer does; the third attempt is not held up."""
    told = Gate(report) if attempt <= DISTURBED_ATTEMPTS else report
    return training.train(config, told, resume_from, run_dir=run_dir, threads=threads, attempt=attempt)
