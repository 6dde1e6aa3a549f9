"""The trivial search as a user runs it, and the same study filled beforehand with thousands of trials."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Connection, insert, select

from benchmarks.problem import EPOCHS, RANGES, score
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.study import Study
from orchestrator.storage.tables import AttemptRow, EndReason, EpochRow, JobRow, JobState, MetricRow
from orchestrator.studies.ledger import Ledger
from orchestrator.studies.sampler import make_sampler
from search_spaces.space import Sampler
from search_spaces.suggest import suggest

ROOT = Path(__file__).resolve().parents[1]
STUDY = "overhead"
BASE = f"""\
model: {{name: stal_srnn}}
loss: {{name: ce_ss}}
training: {{epochs: {EPOCHS}}}
"""
SPACE = """\
name: {study}
base: base.yaml
parameters:
{parameters}
objectives:
  - {{metric: val_accuracy, direction: maximize}}
{second}
sampler: {{name: tpe, seed: 0}}
budget: {{trials: 100}}
workers: {{threads: 1}}
trainer: benchmarks.trivial_trainer:train
"""
SECOND = "  - {metric: val_spike_density, direction: minimize}"


def write_space(folder: Path, objectives: int = 1) -> Path:
    """Write the search space, with accuracy alone or with spike density as a second objective; return its file."""
    parameters = "\n".join(
        f"  {name}: {{type: float, low: {low}, high: {high}, log: true}}" for name, (low, high) in RANGES.items()
    )
    (folder / "base.yaml").write_text(BASE, encoding="utf-8")
    space = folder / f"{STUDY}.yaml"
    second = SECOND if objectives > 1 else ""
    space.write_text(SPACE.format(study=STUDY, parameters=parameters, second=second), encoding="utf-8")
    return space


def run_command(url: str, folder: Path, command: str, *arguments: str) -> float:
    """Run one of spikebench's commands in a folder and return the seconds the whole process took."""
    line = [str(Path(sys.executable).parent / command), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPIKEBENCH_STORAGE": url, "CUDA_VISIBLE_DEVICES": ""}
    begun = time.perf_counter()
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - begun


def run_search(url: str, folder: Path, workers: int, trials: int) -> float:
    """Run the search up to a total of trials; return the seconds of the whole process."""
    space = str(folder / f"{STUDY}.yaml")
    return run_command(
        url, folder, "spikebench-search", "--space", space, "--workers", str(workers), "--trials", str(trials)
    )


def end_times(url: str, trials: int) -> list[float]:
    """Return when each trial ended, by the database's clock, in order.

    Raises:
        RuntimeError: it is another number of trials that is done.
    """
    database = open_database(url)
    query = select(JobRow.ended_at).where(JobRow.state == JobState.DONE).order_by(JobRow.ended_at)
    with database.read() as connection:
        ends = [float(ended or 0.0) for (ended,) in connection.execute(query)]
    database.engine.dispose()
    if len(ends) != trials:
        raise RuntimeError(f"{len(ends)} of {trials} trials are done in {database.masked_url}")
    return ends


# --- a long study without its waiting time ----------------------------------------------------------------------------


def fill(database: Database, study: Study, trials: int) -> None:
    """Add trials that were drawn at random and have ended, as if workers had run them a minute each.

    Their rows are those of real ones, except that all have the configuration of the space's base.
    """
    ledger = Ledger(study.storage, study.optuna._study_id)
    record = optuna.Study(study.name, ledger)
    space = study.checked.space
    metrics = [objective.metric for objective in space.objectives]
    drawn: list[tuple[int, dict[str, Any], list[list[float]]]] = []
    for number in range(trials):
        record.sampler = make_sampler(Sampler(name="random"), study.seed, number)
        trial = record.ask()
        params = suggest(space, trial)
        curves = [_curve(params, metric) for metric in metrics]
        if len(metrics) == 1:
            for epoch, value in enumerate(curves[0], start=1):
                trial.report(value, epoch)
        record.tell(trial, [curve[-1] for curve in curves])
        drawn.append((trial._trial_id, params, curves))
    ledger.written(database.write(ledger.write))
    written = ledger.get_all_trials(0, deepcopy=False)
    rows = [(trial._trial_id, params, curves) for trial, (_, params, curves) in zip(written, drawn, strict=True)]
    database.write(lambda connection: _fill_ours(connection, study, rows, metrics))


def _curve(params: dict[str, Any], metric: str) -> list[float]:
    value = [score(params, epoch) for epoch in range(1, EPOCHS + 1)]
    return value if metric == "val_accuracy" else [params["loss.omega"] / (1e-3 + each) for each in value]


def _fill_ours(
    connection: Connection,
    study: Study,
    rows: Sequence[tuple[int, dict[str, Any], list[list[float]]]],
    metrics: Sequence[str],
) -> None:
    config = study.checked.base.model_dump(mode="json")
    begin = 1.6e9  # long ago
    connection.execute(
        insert(JobRow),
        [
            {
                "study_id": study.id, "trial_number": number, "optuna_trial_id": trial_id, "config": config,
                "config_hash": "", "params": params, "trainer": study.checked.space.trainer, "threads": 1,
                "run_dir": f"runs/{number}", "state": JobState.DONE, "attempt": 1, "end_reason": EndReason.FINISHED,
                "told": True, "created_at": begin + 60 * number, "started_at": begin + 60 * number,
                "ended_at": begin + 60 * number + 50,
            }
            for number, (trial_id, params, _) in enumerate(rows)
        ],
    )  # fmt: skip
    query = select(JobRow.id, JobRow.trial_number).where(JobRow.study_id == study.id)
    jobs = [(job_id, begin + 60 * number, rows[number][2]) for job_id, number in connection.execute(query)]
    connection.execute(
        insert(AttemptRow),
        [
            {
                "job_id": job_id, "attempt": 1, "worker": "w", "host": "h", "device": "cpu", "started_at": start,
                "ended_at": start + 50, "end_reason": EndReason.FINISHED,
            }
            for job_id, start, _ in jobs
        ],
    )  # fmt: skip
    epochs = [(job_id, start, epoch) for job_id, start, _ in jobs for epoch in range(1, EPOCHS + 1)]
    connection.execute(
        insert(EpochRow),
        [
            {"job_id": job_id, "epoch": epoch, "attempt": 1, "seconds": 5.0, "reported_at": start + 5 * epoch}
            for job_id, start, epoch in epochs
        ],
    )
    connection.execute(
        insert(MetricRow),
        [
            {"job_id": job_id, "epoch": epoch, "name": name, "value": value}
            for job_id, _, curves in jobs
            for name, curve in zip(metrics, curves, strict=True)
            for epoch, value in enumerate(curve, start=1)
        ],
    )
