"""Trainers that end in every way a trial can end, without torch; named in spaces and jobs as `fake_trainers:NAME`."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import leash

from configs.schema import RunConfig
from trainers.protocol import (
    DeadSpikesError,
    DivergedError,
    EpochReport,
    Outcome,
    Reporter,
    Result,
    RunFacts,
    Verdict,
)


def quick(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
) -> Result:
    """Report the configured epochs at once, with metrics that trade off in omega."""
    return steady(config, report, resume_from, run_dir=run_dir, threads=threads, pause=0.0)


def steady(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
    pause: float = 0.01,
) -> Result:
    """Report epochs at a pace; keep the epoch in a file so that a continued trial goes on from there."""
    assert run_dir is not None
    state = run_dir / "state.json"
    done = json.loads(state.read_text())["epoch"] if state.exists() else 0
    report.started(RunFacts("cpu", "none", done, 1, config.training.batch_size))
    metrics: dict[str, float] = {}
    for epoch in range(1, config.training.epochs + 1):
        metrics = metrics_of(config, epoch)
        if epoch <= done:
            report.epoch(EpochReport(epoch, config.training.epochs, metrics, pause))
            continue
        time.sleep(pause)
        if (verdict := leash.verdict_at(run_dir, epoch - 1, report)) is not Verdict.CONTINUE:
            outcome = Outcome.PREEMPTED if verdict is Verdict.PREEMPT else Outcome.STOPPED
            return Result(outcome, epoch - 1, metrics, metrics, None)
        report.epoch(EpochReport(epoch, config.training.epochs, metrics, pause))
        part = state.with_suffix(".part")
        part.write_text(json.dumps({"epoch": epoch}))
        part.replace(state)
    return Result(Outcome.FINISHED, config.training.epochs, metrics, metrics, None)


def metrics_of(config: RunConfig, epoch: int) -> dict[str, float]:
    """Return numbers that depend on the configuration and the epoch alone."""
    omega = getattr(config.loss, "omega", 1e-4)
    return {"val_accuracy": epoch / 100 - omega * 100, "val_spike_density": 1e-5 / omega, "val_loss": 1.0 / epoch}


def raises(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """Raise what no trainer should."""
    raise RuntimeError("the roof is leaking\nsecond line")


def diverges(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """End as a loss that became NaN does."""
    raise DivergedError("loss is nan at epoch 2, step 3")


def goes_silent(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """End as a model without spikes does."""
    raise DeadSpikesError("no spiking layer fired for 2 epoch(s) on end")


def out_of_memory(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """End as a machine without memory does."""
    raise MemoryError


def segfaults(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """Die without a word."""
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def measures_nothing(config: RunConfig, report: Reporter, resume_from: Path | None = None, **_: object) -> Result:
    """Finish without the metrics that objectives name."""
    report.epoch(EpochReport(1, 1, {"val_loss": 1.0}, 0.0))
    return Result(Outcome.FINISHED, 1, {}, {}, None)


def deaf(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
) -> Result:
    """Report one epoch and then hear nothing for a long time."""
    report.epoch(EpochReport(1, config.training.epochs, metrics_of(config, 1), 0.0))
    time.sleep(600)
    raise AssertionError
