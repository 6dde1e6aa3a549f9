"""A trainer without torch whose every epoch follows from the one before, so that a wrong way of going on shows."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import leash

from configs.schema import RunConfig
from trainers.protocol import EpochReport, Outcome, Reporter, Result, RunFacts, Verdict

PAUSE = 0.02
JOURNAL = "journal.txt"  # lines of attempt, event and number, in the order of time


def walk(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
    attempt: int = 1,
) -> Result:
    """Take a step of a random walk in each epoch, with a checkpoint after it; no attempt touches a later one's."""
    assert run_dir is not None
    journal = run_dir / JOURNAL
    _note(journal, attempt, "asks", 0)
    state = saved(run_dir) or {"position": start_of(omega_of(config)), "history": []}
    epochs = config.training.epochs
    _note(journal, attempt, "from", len(state["history"]))
    report.started(RunFacts("cpu", "none", len(state["history"]), 1, config.training.batch_size))
    for number, metrics in enumerate(state["history"], start=1):
        report.epoch(EpochReport(number, epochs, metrics, PAUSE))
    for number in range(len(state["history"]) + 1, epochs + 1):
        time.sleep(PAUSE)
        if (verdict := leash.verdict_at(run_dir, number - 1, report)) is not Verdict.CONTINUE:
            outcome = Outcome.PREEMPTED if verdict is Verdict.PREEMPT else Outcome.STOPPED
            return Result(outcome, number - 1, {}, {}, None)
        _note(journal, attempt, "epoch", number)
        state["position"] = after(state["position"])
        state["history"].append(metrics_at(state["position"]))
        report.epoch(EpochReport(number, epochs, state["history"][-1], PAUSE))
        aside = run_dir / f"state-{attempt:04d}.json.part"
        aside.write_text(json.dumps(state))
        aside.replace(aside.with_suffix(""))
    return Result(Outcome.FINISHED, epochs, {}, {}, None)


def _note(journal: Path, attempt: int, event: str, number: int) -> None:
    with journal.open("a") as file:
        file.write(f"{attempt} {event} {number}\n")


def saved(run_dir: Path) -> dict[str, Any] | None:
    """Return the state that the latest attempt to have saved one has saved last."""
    files = sorted(run_dir.glob("state-*.json"))
    state: dict[str, Any] | None = json.loads(files[-1].read_text()) if files else None
    return state


def repeated(run_dir: Path) -> list[int]:
    """Return how many epochs that had been begun each attempt but the first has begun again.

    What an attempt does once a later one has asked where to go on is not counted: its worker is dead or has lost the
    trial, and it goes on only until it hears of that.
    """
    found: list[int] = []
    newest = furthest = before = 0  # attempt; epoch that was begun; the same when the newest attempt asked
    for line in (run_dir / JOURNAL).read_text().splitlines():
        attempt, event, number = line.split()
        if event == "asks" and int(attempt) > newest:
            newest, before = int(attempt), furthest
        elif int(attempt) == newest and event == "from" and newest > 1:
            found.append(max(0, before - int(number)))
        elif int(attempt) == newest and event == "epoch":
            furthest = max(furthest, int(number))
    return found


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
