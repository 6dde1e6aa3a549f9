"""Deliver the numbers of a study to other services, from a process of its own, so that no trial ever waits."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import WrongStorageError
from orchestrator.reading.history import AnyRow
from orchestrator.reading.views import study_view
from orchestrator.storage.database import Database, mask, open_database
from orchestrator.storage.tables import DeliveryRow, EpochRow, JobRow, JobState, MetricRow, StudyRow
from orchestrator.tracking.mlflow_sink import first_words
from orchestrator.tracking.sinks import DeliveryRefusedError, EpochMetrics, Sink, TrialFacts
from orchestrator.tracking.targets import (
    LAST_SECONDS,
    MlflowTarget,
    Note,
    Target,
    delivering,
    leave_signals_to_the_parent,
    noting,
)

POLL_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
LAST_TRIES = 3
TRIALS_PER_ROUND = 100


@contextlib.contextmanager
def delivery(
    database: Database, study_id: int, targets: Sequence[Target], note: Note, report: Path | None = None
) -> Iterator[None]:
    """Deliver a study's numbers while the block runs, and for at most 30 s after.

    Args:
        database: the study's database.
        study_id: the study.
        targets: where to; none delivers nothing.
        note: told in one line of trouble, of its end, and of what is left at the end; called from another thread.
        report: delivered with the study, if it is there when the block ends.

    Raises:
        WrongStorageError: MLflow is to use the study's own database.
    """
    for target in targets:
        if isinstance(target, MlflowTarget):
            refuse_shared_database(database.url, target.uri)
    if not targets:
        yield
        return
    with delivering(main, (database.url, study_id, report), targets, note):
        yield


def refuse_shared_database(storage_url: str, mlflow_uri: str) -> None:
    """Raise unless MLflow has a database of its own.

    MLflow and Optuna each keep their schema version in a table `alembic_version` and refuse the other's.

    Raises:
        WrongStorageError: both URLs name the same database.
    """
    try:
        same = _place(make_url(storage_url)) == _place(make_url(mlflow_uri))
    except ArgumentError:  # a server's address, or a folder
        return
    if same:
        raise WrongStorageError(
            f"tracking.mlflow_uri is the study's own database ({mask(mlflow_uri)}), which MLflow and Optuna cannot "
            "share: give MLflow another one, for example sqlite:///runs/mlflow.db or a second PostgreSQL database"
        )


def _place(url: URL) -> tuple[object, ...]:
    if url.get_backend_name() == "sqlite":
        return ("sqlite", Path(url.database or "").resolve())
    return (url.get_backend_name(), url.host or "localhost", url.port or 5432, url.database)


def main(url: str, study_id: int, report: Path | None, targets: Sequence[Target], wire: Connection) -> None:
    """Deliver until told to stop, or until the controller is gone.

    Args:
        url: the study's database, with its password.
        study_id: the study.
        report: where its report is at the end.
        targets: where to; each is served by a thread, so that none waits for another.
        wire: the other end is the controller's: it says when to stop, and is sent notes for people.
    """
    leave_signals_to_the_parent()
    note = noting(wire, targets, url)
    database = open_database(url)
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=deliver_forever,
            args=(database, study_id, partial(target.open, note), stop, note),
            kwargs={"service": target.service, "report": report},
            daemon=True,
        )
        for target in targets
    ]
    for thread in threads:
        thread.start()
    try:
        wire.recv()
    except (EOFError, OSError):
        # The controller was killed. Another may deliver already: leave at once, the table knows what was delivered.
        os._exit(0)
    stop.set()
    deadline = time.monotonic() + LAST_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for target in targets:
        epochs, trials = undelivered(database, study_id, target.name)
        if epochs or trials:
            lacking = f"{target.service} has not taken {epochs} epochs of {trials} trials"
            note(f"{lacking}; they are delivered when the study is next run")
    wire.close()
    os._exit(0)  # a call that hangs in another thread must not hold the process


def deliver_forever(
    database: Database,
    study_id: int,
    make_sink: Callable[[], Sink],
    stop: threading.Event,
    note: Note,
    *,
    service: str,
    report: Path | None = None,
) -> None:
    """Deliver whatever is new, again and again; while the service is away, try again with growing pauses.

    Args:
        database: the study's database.
        study_id: the study.
        make_sink: opens the service; called again after it failed.
        stop: once set, return as soon as nothing is left, or when the service fails three times more.
        note: told of trouble and of its end.
        service: what people call it.
        report: where the study's report is at the end.
    """
    courier: Courier | None = None
    failures = last_failures = 0
    while last_failures < LAST_TRIES:
        try:
            courier = courier or Courier(database, study_id, make_sink(), note)
            carried = courier.deliver()
            if failures:
                note(f"{service} answers again; what it missed is delivered")
            failures = 0
            if stop.is_set() and not carried:
                courier.leave(report)
                return
            if carried < TRIALS_PER_ROUND:
                stop.wait(POLL_SECONDS)
        except Exception as error:  # the service's libraries raise what they like; nothing of it may end the delivery
            if not failures:
                note(f"{service} cannot be reached ({first_words(error)}); trials go on, numbers are delivered later")
            failures += 1
            courier = None  # a run may have been made without us hearing of it: the next courier looks
            if stop.is_set():
                last_failures += 1
                time.sleep(1.0)
            else:
                stop.wait(min(2.0**failures, LONGEST_PAUSE_SECONDS))


class Courier:
    """Carry what a sink has not got yet; the high-water mark of each trial is kept in `sb_deliveries`.

    The mark is written after the sink has taken an epoch: a courier that dies in between repeats it, and loses none.

    Args:
        database: the study's database.
        study_id: the study.
        sink: the service.
        note: told of trials that the service refuses.
    """

    def __init__(self, database: Database, study_id: int, sink: Sink, note: Note) -> None:
        self._database = database
        self._study_id = study_id
        self._sink = sink
        self._note = note
        self._opened: set[int] = set()  # jobs whose runs this courier has marked as running
        with database.read() as connection:
            row = connection.execute(select(StudyRow.__table__).where(StudyRow.id == study_id)).one()
            now = database.now(connection)
        sink.open_study(study_view(StudyRow(**row._mapping), now))

    def deliver(self) -> int:
        """Deliver one round; return how many trials had something to deliver."""
        with self._database.read() as connection:
            jobs = connection.execute(pending_jobs(self._study_id, self._sink.name).limit(TRIALS_PER_ROUND)).all()
            unopened = [row.id for row in jobs if row.run_id is None]
            configs = _configs(connection, unopened)
            epochs = _new_epochs(connection, jobs)
        for row in jobs:
            try:
                self._deliver_trial(row, configs.get(row.id), epochs.get(row.id, []))
            except DeliveryRefusedError as error:
                self._note(f"{self._sink.service} refuses trial {row.trial_number}: {error}")
                self._mark(row.id, row.run_id or "refused", row.last_epoch or 0, closed=True)
        return len(jobs)

    def leave(self, report: Path | None = None) -> None:
        """Mark the study as what it now is, and trials that have not ended as interrupted.

        Args:
            report: where the study's report is, if one was written.
        """
        unclosed = select(DeliveryRow.run_id, *_trial_columns()).join(DeliveryRow, DeliveryRow.job_id == JobRow.id)
        unclosed = unclosed.where(DeliveryRow.sink == self._sink.name, DeliveryRow.closed.is_(False))
        with self._database.read() as connection:
            state = connection.execute(select(StudyRow.state).where(StudyRow.id == self._study_id)).scalar_one()
            rows = connection.execute(unclosed.where(JobRow.study_id == self._study_id)).all()
        for row in rows:
            with contextlib.suppress(DeliveryRefusedError):
                self._sink.close_trial(row.run_id, _facts(row, None))
        self._sink.close_study(state, report if report is not None and report.is_file() else None)

    def _deliver_trial(self, row: AnyRow, config: dict[str, Any] | None, epochs: Sequence[EpochMetrics]) -> None:
        facts = _facts(row, config)
        run_id = row.run_id
        if row.id not in self._opened:
            run_id = self._sink.open_trial(facts, run_id)
            self._mark(row.id, run_id, row.delivered, closed=False)
            self._opened.add(row.id)
        if epochs:
            self._sink.log(run_id, epochs)
        ended = facts.end_reason is not None
        if ended:
            self._sink.close_trial(run_id, facts)
        self._mark(row.id, run_id, max([row.last_epoch or 0, *(epoch.epoch for epoch in epochs)]), closed=ended)

    def _mark(self, job_id: int, run_id: str, epoch: int, *, closed: bool) -> None:
        dialect: Any = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(DeliveryRow).values(
            sink=self._sink.name, job_id=job_id, run_id=run_id, epoch=epoch, closed=closed
        )
        changed = {"run_id": run_id, "epoch": epoch, "closed": closed}
        upsert = statement.on_conflict_do_update(index_elements=["sink", "job_id"], set_=changed)
        self._database.write(lambda connection: connection.execute(upsert))


def pending_jobs(study_id: int, sink: str) -> Any:
    """Select the jobs of a study of which a sink lacks epochs or the end."""
    last = select(func.max(EpochRow.epoch)).where(EpochRow.job_id == JobRow.id).scalar_subquery()
    delivered = func.coalesce(DeliveryRow.epoch, 0)
    ended = JobRow.state.in_([JobState.DONE, JobState.FAILED])
    return (
        select(*_trial_columns(), DeliveryRow.run_id, delivered.label("delivered"), last.label("last_epoch"))
        .outerjoin(DeliveryRow, (DeliveryRow.job_id == JobRow.id) & (DeliveryRow.sink == sink))
        .where(JobRow.study_id == study_id, func.coalesce(DeliveryRow.closed, False).is_(False))
        .where(ended | (func.coalesce(last, 0) > delivered))
        .order_by(JobRow.id)
    )


def _trial_columns() -> list[Any]:
    return [
        JobRow.id,
        JobRow.trial_number,
        JobRow.params,
        JobRow.config_hash,
        JobRow.attempt,
        JobRow.run_dir,
        JobRow.state,
        JobRow.end_reason,
        JobRow.created_at,
        JobRow.started_at,
        JobRow.ended_at,
    ]


def undelivered(database: Database, study_id: int, sink: str) -> tuple[int, int]:
    """Return how many epochs, and how many trials, a sink has not got yet."""
    jobs = pending_jobs(study_id, sink).subquery()
    query = select(func.sum(func.coalesce(jobs.c.last_epoch, 0) - jobs.c.delivered), func.count()).select_from(jobs)
    with database.read() as connection:
        epochs, trials = connection.execute(query).one()
    return int(epochs or 0), int(trials)


def _new_epochs(connection: SqlConnection, jobs: Sequence[AnyRow]) -> dict[int, list[EpochMetrics]]:
    delivered = {row.id: row.delivered for row in jobs}
    query = (
        select(EpochRow.job_id, EpochRow.epoch, EpochRow.reported_at, MetricRow.name, MetricRow.value)
        .join(MetricRow, (MetricRow.job_id == EpochRow.job_id) & (MetricRow.epoch == EpochRow.epoch))
        .where(EpochRow.job_id.in_(delivered))
        .order_by(EpochRow.job_id, EpochRow.epoch, MetricRow.name)
    )
    found: dict[int, list[EpochMetrics]] = defaultdict(list)
    for job_id, epoch, reported_at, name, value in connection.execute(query):
        if epoch <= delivered[job_id]:
            continue
        if not found[job_id] or found[job_id][-1].epoch != epoch:
            found[job_id].append(EpochMetrics(epoch, reported_at, {}))
        found[job_id][-1].metrics[name] = value
    return found


def _configs(connection: SqlConnection, job_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    query = select(JobRow.id, JobRow.config).where(JobRow.id.in_(job_ids))
    return {row.id: row.config for row in connection.execute(query)}


def _facts(row: AnyRow, config: dict[str, Any] | None) -> TrialFacts:
    return TrialFacts(
        number=row.trial_number,
        name=f"trial {row.trial_number}",
        params=row.params,
        config=config,
        config_hash=row.config_hash,
        attempt=row.attempt,
        run_dir=row.run_dir,
        started_at=row.started_at or row.created_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        failed=row.state == JobState.FAILED,
    )
