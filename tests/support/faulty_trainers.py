"""The shipped trainer under faults of the machine, and trainers that hang; named in jobs as `faulty_trainers:NAME`."""

from __future__ import annotations

import mmap
import os
import resource
import time
from pathlib import Path
from typing import Any

import leash
import psutil
import torch

from configs.schema import RunConfig
from trainers.protocol import EpochReport, Outcome, Reporter, Result, RunFacts, SavedCheckpoint, Verdict
from trainers.training import train

FITS = 16  # images at once that the pretended GPU has room for
MIDST = 3  # steps into the epoch in which a trial on a leash stands still
LONG_EPOCH = 8.0  # seconds
CGROUP = Path("/sys/fs/cgroup/memory")


class Wrapped:
    """A reporter that passes everything on, and does something at each epoch or checkpoint."""

    def __init__(self, report: Reporter) -> None:
        self._report = report

    def started(self, facts: RunFacts) -> None:
        self._report.started(facts)

    def epoch(self, report: EpochReport) -> None:
        self._report.epoch(report)

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        self._report.checkpoint(saved)

    def verdict(self) -> Verdict:
        return self._report.verdict()


class _OutOfMemory(Wrapped):
    def epoch(self, report: EpochReport) -> None:
        super().epoch(report)
        if report.epoch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words")


def too_large(config: RunConfig, report: Reporter, resume_from: Path | None = None, **more: Any) -> Result:
    """Run out of GPU memory in the second epoch unless few images are taken at once."""
    wrapped = report if config.training.batch_size <= FITS else _OutOfMemory(report)
    return train(config, wrapped, resume_from, run_dir=more["run_dir"], threads=more["threads"])


class _Leashed(Wrapped):
    def __init__(self, report: Reporter, run_dir: Path) -> None:
        super().__init__(report)
        self._run_dir = run_dir
        self._epochs = self._steps = 0

    def epoch(self, report: EpochReport) -> None:
        super().epoch(report)
        self._epochs, self._steps = report.epoch, 0

    def verdict(self) -> Verdict:
        self._steps += 1
        if self._steps < MIDST:
            return super().verdict()
        return leash.verdict_at(self._run_dir, self._epochs, self._report)


def leashed(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
    attempt: int = 1,
) -> Result:
    """Stand still in the midst of an epoch for as long as the test wants it."""
    assert run_dir is not None
    return train(config, _Leashed(report, run_dir), resume_from, run_dir=run_dir, threads=threads, attempt=attempt)


class _FullDisk(Wrapped):
    def checkpoint(self, saved: SavedCheckpoint) -> None:
        super().checkpoint(saved)
        resource.setrlimit(resource.RLIMIT_FSIZE, (saved.size // 2, saved.size // 2))


def full_disk(config: RunConfig, report: Reporter, resume_from: Path | None = None, **more: Any) -> Result:
    """Find room for one checkpoint and for half of the second."""
    return train(config, _FullDisk(report), resume_from, run_dir=more["run_dir"], threads=more["threads"])


def hungry(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: Any) -> Result:
    """Ask for more host memory than the process may have."""
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, now + 2**28))
    torch.ones(2**32)
    raise AssertionError


def devoured(config: RunConfig, report: Reporter, resume_from: Path | None = None, **more: Any) -> Result:
    """Touch more host memory than the process' control group may have; the kernel then kills it."""
    (CGROUP / more["run_dir"].name / "tasks").write_text(str(os.getpid()))
    block = mmap.mmap(-1, 2**28)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    raise AssertionError


def hangs(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: Any) -> Result:
    """Report one epoch and never say a word again."""
    report.epoch(EpochReport(1, config.training.epochs, {"val_loss": 1.0}, 0.0))
    wait_for_ever()
    raise AssertionError


def wait_for_ever() -> None:
    """Stand where the log shall show it."""
    time.sleep(600)


def slow_but_alive(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: Any) -> Result:
    """Take long for an epoch, with steps in between."""
    until = time.monotonic() + LONG_EPOCH
    while time.monotonic() < until:
        time.sleep(0.05)
        report.verdict()
    report.epoch(EpochReport(1, 1, {"val_loss": 1.0}, LONG_EPOCH))
    return Result(Outcome.FINISHED, 1, {}, {}, None)


def reports_rubbish(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: Any) -> Result:
    """Report what no table takes."""
    report.epoch(EpochReport(1, 1, {"val_loss": float("nan"), "val_accuracy": torch.tensor(0.5)}, 0.0))  # type: ignore[dict-item]
    report.epoch(EpochReport(2, 1, {"x" * 500: 1.0}, 0.0))
    raise AssertionError
