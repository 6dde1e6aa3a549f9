"""A trainer without torch whose trials finish, fail or diverge, as their parameters say."""

from __future__ import annotations

import os
from pathlib import Path

from fake_trainers import metrics_of

from configs.schema import RunConfig
from trainers.protocol import DivergedError, EpochReport, Outcome, Reporter, Result, RunFacts

DEVICE_FILE = "devices.txt"  # what each attempt sees of GPUs


def vary(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
) -> Result:
    """Report the configured epochs; where c is small diverge in the last, where omega is large raise in it."""
    assert run_dir is not None
    with (run_dir / DEVICE_FILE).open("a") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    epochs = config.training.epochs
    report.started(RunFacts("cpu", "none", 0, 1, config.training.batch_size))
    for epoch in range(1, epochs):
        report.epoch(EpochReport(epoch, epochs, metrics_of(config, epoch), 0.0))
    if config.loss.c < 0.15:
        raise DivergedError("loss is nan at the last epoch")
    if config.loss.omega > 1e-4:
        raise RuntimeError("omega is too large for this trainer")
    metrics = metrics_of(config, epochs)
    report.epoch(EpochReport(epochs, epochs, metrics, 0.0))
    return Result(Outcome.FINISHED, epochs, metrics, metrics, None)
