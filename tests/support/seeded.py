"""Studies made up in the database: numbers that behave like a search over omega and c of CE+SpikeSparsity."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from orchestrator.storage.database import Database
from orchestrator.storage.tables import (
    AttemptRow,
    EndReason,
    EpochRow,
    JobRow,
    JobState,
    MetricRow,
    StudyRow,
    StudyState,
    WorkerRow,
)

START = 1_780_000_000.0
LAYERS = ("blocks.0.attn.q_lif", "blocks.0.mlp.fc1_lif", "blocks.1.attn.q_lif", "blocks.1.mlp.fc1_lif")
PARAMETERS: dict[str, dict[str, Any]] = {
    "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True, "step": None},
    "loss.c": {"type": "float", "low": 0.1, "high": 10.0, "log": True, "step": None},
    "neuron.v_threshold": {"type": "float", "low": 0.5, "high": 1.5, "log": False, "step": None},
    "encoder.time_steps": {"type": "int", "low": 4, "high": 16, "log": False, "step": 4},
    "optimizer.name": {"type": "categorical", "choices": ["adamw", "lamb"]},
}
OBJECTIVES = [
    {"metric": "val_accuracy", "direction": "maximize"},
    {"metric": "val_spike_density", "direction": "minimize"},
]
CONFIG: dict[str, Any] = {
    "model": {"name": "stal_srnn", "hidden_size": 56},
    "training": {"epochs": 10, "batch_size": 128, "seed": 42, "device": "auto"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
}


@dataclass
class Seeding:
    """What to make up.

    Args:
        trials: ended trials; every 13th failed, every 17th was stopped early where `accidents` is set.
        running: trials in the middle.
        waiting: trials without a worker.
    """

    name: str = "stal_loss"
    trials: int = 40
    running: int = 0
    waiting: int = 0
    epochs: int = 10
    budget: int | None = None
    objectives: Sequence[Mapping[str, Any]] = field(default_factory=lambda: OBJECTIVES)
    constraints: Sequence[Mapping[str, Any]] = ()
    parameters: Mapping[str, Any] = field(default_factory=lambda: PARAMETERS)
    layers: Sequence[str] = LAYERS
    accidents: bool = True
    state: StudyState = StudyState.RUNNING
    runs: Path = Path("/data/runs")
    created_at: float = START


def seed_study(database: Database, seeding: Seeding | None = None, **changes: Any) -> int:
    """Write a study; return its id."""
    plan = seeding or Seeding(**changes)
    total = plan.trials + plan.running + plan.waiting
    rng = random.Random(7)
    space = {
        "name": plan.name.partition("@")[0],
        "base": "stal/srnn_digits",
        "parameters": dict(plan.parameters),
        "objectives": list(plan.objectives),
        "constraints": list(plan.constraints),
    }
    with database.begin() as connection:
        first = (connection.execute(select(func.max(JobRow.id))).scalar() or 0) + 1
        study_id = int(
            connection.execute(
                insert(StudyRow)
                .values(
                    name=plan.name,
                    optuna_study_id=1,
                    space_json=json.dumps({"space": space, "base": CONFIG}),
                    space_hash="5a" * 32,
                    seed=42,
                    budget_trials=plan.budget or total,
                    state=plan.state,
                    created_at=plan.created_at,
                )
                .returning(StudyRow.id)
            ).scalar_one()
        )
        rows = [trial_rows(plan, study_id, first + number, number, rng) for number in range(total)]
        for index, table in enumerate((JobRow, AttemptRow, EpochRow, MetricRow)):
            values = [row for made in rows for row in made[index]]
            if values:
                connection.execute(insert(table), values)
    return study_id


def trial_rows(
    plan: Seeding, study_id: int, job_id: int, number: int, rng: random.Random
) -> tuple[list[dict[str, Any]], ...]:
    """Return the rows of one trial: job, attempts, epochs, metrics."""
    params = {key: draw(parameter, rng) for key, parameter in plan.parameters.items()}
    state, reason, detail, done = fate(plan, number, rng)
    pace = rng.uniform(1.5, 2.5)
    begun = plan.created_at + number // 2 * pace * plan.epochs
    run_dir = plan.runs / plan.name / f"trial_{number:05d}"
    job: dict[str, Any] = {
        "id": job_id,
        "study_id": study_id,
        "trial_number": number,
        "optuna_trial_id": number + 1,
        "config": {**CONFIG, "training": {**CONFIG["training"], "epochs": plan.epochs}},
        "config_hash": f"{number:064x}",
        "params": params,
        "trainer": "trainers:train",
        "threads": 1,
        "run_dir": str(run_dir),
        "state": state,
        "attempt": 0 if state == JobState.PENDING else 1,
        "owner": "w0" if state == JobState.LEASED else None,
        "end_reason": reason,
        "end_detail": detail,
        "told": state in (JobState.DONE, JobState.FAILED),
        "created_at": begun,
        "started_at": None if state == JobState.PENDING else begun,
        "ended_at": begun + pace * done + 0.5 if state in (JobState.DONE, JobState.FAILED) else None,
    }
    if state == JobState.PENDING:
        return [job], [], [], []
    attempt = {
        "job_id": job_id,
        "attempt": 1,
        "worker": f"w{number % 2}",
        "host": "gpubox/1234",
        "device": f"cuda:{number % 2}",
        "started_at": begun,
        "ended_at": job["ended_at"],
        "end_reason": reason,
        "end_detail": detail,
        "log_path": str(run_dir / "trial.log"),
    }
    epochs = [
        {"job_id": job_id, "epoch": e, "attempt": 1, "seconds": pace, "reported_at": begun + pace * e}
        for e in range(1, done + 1)
    ]
    metrics = [
        {"job_id": job_id, "epoch": e, "name": name, "value": value}
        for e in range(1, done + 1)
        for name, value in metrics_of(params, e, plan, rng).items()
    ]
    return [job], [attempt], epochs, metrics


def draw(parameter: Mapping[str, Any], rng: random.Random) -> Any:
    """Return a value of a parameter."""
    if parameter["type"] == "categorical":
        return rng.choice(parameter["choices"])
    low, high = parameter["low"], parameter["high"]
    if parameter.get("log"):
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    if parameter["type"] == "int":
        return rng.randrange(low, high + 1, parameter.get("step") or 1)
    return rng.uniform(low, high)


def fate(plan: Seeding, number: int, rng: random.Random) -> tuple[JobState, EndReason | None, str, int]:
    """Return job state, end reason, detail and epochs done of a trial."""
    if number >= plan.trials + plan.running:
        return JobState.PENDING, None, "", 0
    if number >= plan.trials:
        return JobState.LEASED, None, "", rng.randrange(plan.epochs)
    if plan.accidents and number % 13 == 12:
        return JobState.FAILED, EndReason.OOM, "CUDA out of memory. Tried to allocate 2.00 GiB", plan.epochs // 3
    if plan.accidents and number % 17 == 16:
        return JobState.DONE, EndReason.DEAD_SPIKES, "layer blocks.1.mlp.fc1_lif is silent", plan.epochs // 2
    return JobState.DONE, EndReason.FINISHED, "", plan.epochs


def metrics_of(params: Mapping[str, Any], epoch: int, plan: Seeding, rng: random.Random) -> dict[str, float]:
    """Return numbers that trade accuracy for density as omega grows."""
    push = (math.log10(params.get("loss.omega", 1e-5)) + 6) / 2.7
    grown = 1 - math.exp(-3 * epoch / plan.epochs)
    threshold = params.get("neuron.v_threshold", 1.0)
    accuracy = grown * (0.97 - 0.12 * push**3 - 0.05 * abs(threshold - 1)) + rng.gauss(0, 0.004)
    density = 10 ** (-0.8 - 1.6 * push * grown) / threshold * math.exp(rng.gauss(0, 0.08))
    metrics = {
        "train_loss": 2.3 * math.exp(-2.5 * epoch / plan.epochs) + 0.05 + 0.1 * push,
        "val_loss": 2.3 * math.exp(-2.2 * epoch / plan.epochs) + 0.1 + 0.15 * push,
        "val_accuracy": min(accuracy, 0.999),
        "val_spike_density": density,
        "val_firing_rate": density * 1.3,
        "epoch_seconds": 2.0,
        "peak_memory_mb": 412.0,
    }
    for index, layer in enumerate(plan.layers):
        metrics[f"val_firing_rate.{layer}"] = min(1.0, density * (2.2 - 0.4 * index))
    return metrics


def seed_worker(
    database: Database, name: str = "w0", *, study_id: int | None = None, job_id: int | None = None
) -> None:
    """Write a worker that has just beaten."""
    with database.begin() as connection:
        now = database.now(connection)
        connection.execute(
            insert(WorkerRow).values(
                id=name,
                study_id=study_id,
                host="gpubox/1234",
                pid=4711,
                process_started=now,
                device="cuda:0",
                threads=1,
                job_id=job_id,
                started_at=now,
                last_beat=now,
            )
        )
