"""A trainer that computes next to nothing, so that a search with it takes only what the orchestration takes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.problem import OPTIMUM, score
from configs.schema import RunConfig
from trainers.protocol import EpochReport, Outcome, Reporter, Result, RunFacts, Verdict


def train(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,  # noqa: ARG001 - it keeps no checkpoint
    *,
    run_dir: Path | None = None,  # noqa: ARG001
    threads: int | None = None,  # noqa: ARG001
) -> Result:
    """Report every epoch of a cheap function; the signature is that of `trainers.protocol.Trainer`."""
    values = config.model_dump()
    point = {name: float(values[name.split(".")[0]][name.split(".")[1]]) for name in OPTIMUM}
    epochs = config.training.epochs
    metrics: dict[str, float] = {}
    outcomes = {Verdict.STOP: Outcome.STOPPED, Verdict.PREEMPT: Outcome.PREEMPTED}
    report.started(RunFacts(device="cpu", neuron_backend="none", resumed_epoch=0, parameters=0, effective_batch=0))
    for epoch in range(1, epochs + 1):
        metrics = {"val_accuracy": score(point, epoch, epochs)}
        report.epoch(EpochReport(epoch, epochs, metrics, seconds=0.0))
        if (verdict := report.verdict()) is not Verdict.CONTINUE:
            return Result(outcomes[verdict], epoch, metrics, metrics, checkpoint=None)
    return Result(Outcome.FINISHED, epochs, metrics, metrics, checkpoint=None)
