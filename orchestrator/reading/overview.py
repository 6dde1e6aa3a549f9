"""All studies of a database, its workers and its last failures, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState
from rich.console import Group
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, inspect, select

from orchestrator.queue.timing import WORKER_SILENT_SECONDS
from orchestrator.reading.history import AnyRow
from orchestrator.reading.labels import ago, duration, end_text, metric_text, short_metric
from orchestrator.reading.snapshot import SnapshotReader, StudySnapshot
from orchestrator.reading.views import TrialState
from orchestrator.storage.database import Database
from orchestrator.storage.tables import (
    AttemptRow,
    EndReason,
    EpochRow,
    JobRow,
    JobState,
    StudyRow,
    StudyState,
    WorkerRow,
)

FORGOTTEN_SECONDS = 86400.0  # a worker that has been silent for so long is not shown any more
LAST_FAILURES = 8
WIDE = 96
STATE_STYLES: dict[str, str] = {StudyState.RUNNING: "cyan", StudyState.COMPLETE: "green"}
COUNTS = {"trial", "epoch", "last beat"}


def read_studies(database: Database) -> list[StudySnapshot]:
    """Return every study, the newest first."""
    with database.read() as connection:
        order = select(StudyRow.id).order_by(StudyRow.created_at.desc(), StudyRow.id.desc())
        ids = list(connection.execute(order).scalars())
    return [SnapshotReader(database, study_id).read() for study_id in ids]


def read_enqueued(database: Database) -> dict[int, int]:
    """Return {Optuna's study id: parameters that people have queued and nobody has tried yet}."""
    trials = models.TrialModel
    with database.read() as connection:
        if not inspect(connection).has_table(trials.__tablename__):
            return {}
        waiting = select(trials.study_id, func.count()).where(trials.state == OptunaState.WAITING)
        return {row[0]: row[1] for row in connection.execute(waiting.group_by(trials.study_id))}


def studies_table(studies: list[StudySnapshot], enqueued: Mapping[int, int], width: int) -> Table:
    """Return the studies as a table.

    Args:
        studies: what `read_studies` returned.
        enqueued: what `read_enqueued` returned.
        width: columns of the terminal; few leave out when a study was created.
    """
    table = _table("Studies")
    table.add_column("study", overflow="fold", min_width=10)
    for heading in ("state", "trials", "jobs", "device time", "best", *(["created"] if width >= WIDE else [])):
        table.add_column(heading, no_wrap=True)
    for number, snapshot in enumerate(studies):
        table.add_row(
            Text(snapshot.study.name, style="bold"),
            Text(snapshot.study.state, style=STATE_STYLES.get(snapshot.study.state, "yellow")),
            _trials(snapshot),
            _jobs(snapshot, enqueued.get(snapshot.study.optuna_id, 0)),
            _device_time(snapshot),
            _best(snapshot),
            *([ago(snapshot.read_at - snapshot.study.created_at)] if width >= WIDE else []),
            end_section=number < len(studies) - 1,
        )
    return table


def _trials(snapshot: StudySnapshot) -> str:
    left = max(0, snapshot.study.budget - len(snapshot.ended))
    return f"{len(snapshot.ended)}/{snapshot.study.budget}" + (f"\n{left} left" if left else "")


def _jobs(snapshot: StudySnapshot, enqueued: int) -> Text:
    failed = snapshot.count(TrialState.FAILED)
    counts = {"running": len(snapshot.running), "waiting": snapshot.waiting, "enqueued": enqueued, "failed": failed}
    lines = [
        Text(f"{count} {what}", style="red" if what == "failed" else "") for what, count in counts.items() if count
    ]
    return Text("\n").join(lines) if lines else Text("-")


def _device_time(snapshot: StudySnapshot) -> str:
    used, budget = snapshot.device_seconds, snapshot.study.budget_hours
    left = "" if budget is None else f"\n{duration(max(0.0, 3600 * budget - used))} left"
    return duration(used) + left


def _best(snapshot: StudySnapshot) -> str:
    parts = []
    for objective, trial in zip(snapshot.study.objectives, snapshot.best, strict=True):
        if trial is not None:
            value = metric_text(objective.metric, trial.metrics[objective.metric])
            parts.append(f"{short_metric(objective.metric)} {value}")
    return "\n".join(parts) or "-"


def read_workers(database: Database, study_id: int | None = None) -> list[AnyRow]:
    """Return the workers that have not said good-bye, with what each is doing.

    Args:
        database: an open database.
        study_id: only workers that may work for this study.
    """
    epochs = select(func.max(EpochRow.epoch)).where(EpochRow.job_id == WorkerRow.job_id).scalar_subquery()
    planned: Any = JobRow.config[("training", "epochs")].as_integer()
    query = (
        select(
            WorkerRow.host,
            WorkerRow.pid,
            WorkerRow.device,
            WorkerRow.last_beat,
            JobRow.trial_number,
            StudyRow.name.label("study"),
            epochs.label("epoch"),
            planned.label("epochs_planned"),
        )
        .outerjoin(JobRow, JobRow.id == WorkerRow.job_id)
        .outerjoin(StudyRow, StudyRow.id == JobRow.study_id)
        .where(WorkerRow.ended_at.is_(None))
        .order_by(WorkerRow.host, WorkerRow.device, WorkerRow.pid)
    )
    if study_id is not None:
        query = query.where((WorkerRow.study_id == study_id) | WorkerRow.study_id.is_(None))
    with database.read() as connection:
        now = database.now(connection)
        return list(connection.execute(query.where(WorkerRow.last_beat > now - FORGOTTEN_SECONDS)))


def workers_table(workers: list[AnyRow], now: float) -> Table:
    """Return the workers as a table; one that no longer beats is red.

    Args:
        workers: what `read_workers` returned.
        now: the database's time.
    """
    table = _table("Workers")
    for heading in ("host", "process", "device", "study", "trial", "epoch", "last beat"):
        table.add_column(heading, justify="right" if heading in COUNTS else "left", no_wrap=True)
    for worker in workers:
        silent = now - worker.last_beat
        busy = worker.trial_number is not None
        table.add_row(
            worker.host.split("/")[0],
            str(worker.pid),
            worker.device,
            worker.study if busy else "-",
            str(worker.trial_number) if busy else "idle",
            f"{worker.epoch or 0}/{worker.epochs_planned or '?'}" if busy else "-",
            Text(ago(silent), style="red" if silent > WORKER_SILENT_SECONDS else ""),
        )
    return table


def read_failures(database: Database, study_id: int | None = None) -> list[AnyRow]:
    """Return the trials that failed last, the newest first.

    Args:
        database: an open database.
        study_id: only of this study.
    """
    query = (
        select(
            StudyRow.name.label("study"),
            JobRow.trial_number,
            JobRow.end_reason,
            JobRow.end_detail,
            JobRow.ended_at,
            AttemptRow.log_path,
        )
        .join(StudyRow, StudyRow.id == JobRow.study_id)
        .outerjoin(AttemptRow, (AttemptRow.job_id == JobRow.id) & (AttemptRow.attempt == JobRow.attempt))
        .where(JobRow.state == JobState.FAILED, JobRow.end_reason != EndReason.CANCELLED)
        .order_by(JobRow.ended_at.desc(), JobRow.id.desc())
        .limit(LAST_FAILURES)
    )
    if study_id is not None:
        query = query.where(JobRow.study_id == study_id)
    with database.read() as connection:
        return list(connection.execute(query))


def failures_table(failures: list[AnyRow], now: float) -> Group:
    """Return failures as text: what happened in one line, where the log is in the next.

    Args:
        failures: what `read_failures` returned.
        now: the database's time.
    """
    lines = [Text("Last failures", style="bold")]
    for failure in failures:
        when = f", {ago(now - failure.ended_at)}" if failure.ended_at else ""
        head = Text(f"{failure.study} trial {failure.trial_number}", style="red")
        head.append(f"  {end_text(failure.end_reason)}{when}", style="default")
        lines.append(head)
        if failure.end_detail:
            lines.append(Text(f"  {failure.end_detail}"))
        if failure.log_path and failure.log_path not in failure.end_detail:
            lines.append(Text(f"  log: {failure.log_path}", style="bright_black"))
    for line in lines:
        line.no_wrap, line.overflow = False, "fold"
    return Group(*lines)


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bright_black",
    )
