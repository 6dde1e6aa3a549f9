"""A trainer without torch whose every epoch follows from the one before, so that a wrong way of going on shows."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

from configs.schema import RunConfig
from trainers.protocol import EpochReport, Outcome, Reporter, Result, RunFacts, Verdict

PAUSE = 0.04
JOURNAL = "journal.txt"  # one line for every time that an epoch was begun


def walk(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
) -> Result:
    """Take a step of a random walk in each epoch, with a checkpoint after it."""
    assert run_dir is not None
    saved = run_dir / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"position": start_of(omega_of(config)), "history": []}
    epochs = config.training.epochs
    report.started(RunFacts("cpu", "none", len(state["history"]), 1, config.training.batch_size))
    for number, metrics in enumerate(state["history"], start=1):
        report.epoch(EpochReport(number, epochs, metrics, PAUSE))
    for number in range(len(state["history"]) + 1, epochs + 1):
        time.sleep(PAUSE)
        if (verdict := report.verdict()) is not Verdict.CONTINUE:
            outcome = Outcome.PREEMPTED if verdict is Verdict.PREEMPT else Outcome.STOPPED
            return Result(outcome, number - 1, {}, {}, None)
        with (run_dir / JOURNAL).open("a") as journal:
            journal.write(f"{number}\n")
        state["position"] = after(state["position"])
        state["history"].append(metrics_at(state["position"]))
        report.epoch(EpochReport(number, epochs, state["history"][-1], PAUSE))
        aside = run_dir / "state.json.part"
        aside.write_text(json.dumps(state))
        aside.replace(saved)
    return Result(Outcome.FINISHED, epochs, {}, {}, None)


def undisturbed(omega: float, epochs: int) -> list[dict[str, float]]:
    """Return the curve of a run that nothing happens to."""
    position, curve = start_of(omega), []
    for _ in range(epochs):
        position = after(position)
        curve.append(metrics_at(position))
    return curve


def omega_of(config: RunConfig) -> float:
    """Return the parameter that a walk depends on."""
    return float(getattr(config.loss, "omega", 1.0))


def start_of(omega: float) -> int:
    """Return where a walk starts: at the bits of its parameter."""
    return int(struct.unpack("<Q", struct.pack("<d", omega))[0])


def after(position: int) -> int:
    """Return the next position, by Knuth's MMIX generator."""
    return (position * 6364136223846793005 + 1442695040888963407) % 2**64


def metrics_at(position: int) -> dict[str, float]:
    """Return what is measured at a position."""
    return {"val_accuracy": (position >> 32) / 2**32, "val_spike_density": (position % 2**32) / 2**32, "val_loss": 1.0}
