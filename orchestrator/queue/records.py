"""What an attempt reports, as rows: surroundings, epochs, checkpoints. The caller holds the lease meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Insert, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.machine.provenance import Provenance
from orchestrator.queue.jobs import Claim
from orchestrator.storage.database import database_now
from orchestrator.storage.tables import AttemptRow, CheckpointRow, EnvironmentRow, EpochRow, MetricRow
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """What an attempt runs on.

    Args:
        pid: process id of the trial process.
        log_path: file with everything it prints.
        facts: what the trainer told at its start.
        provenance: code, packages and device.
    """

    pid: int
    log_path: Path
    facts: RunFacts
    provenance: Provenance


def record_start(connection: Connection, held: Claim, start: AttemptStart) -> None:
    """Write what an attempt runs on and where it went on from."""
    surroundings = start.provenance
    known = {"id": surroundings.digest, **surroundings.columns()}
    connection.execute(_upserts(connection.dialect.name).environment, known)
    facts = {
        "pid": start.pid,
        "log_path": str(start.log_path),
        "resumed_epoch": start.facts.resumed_epoch,
        "neuron_backend": start.facts.neuron_backend,
        "effective_batch": start.facts.effective_batch,
        "micro_batch": start.facts.micro_batch,
        "learning_rate": start.facts.learning_rate,
        "seed": start.facts.seed,
        "deterministic": start.facts.deterministic,
        "environment_id": surroundings.digest,
    }
    connection.execute(_THIS_ATTEMPT, {**_token(held), **facts})


def record_epochs(connection: Connection, held: Claim, reports: Sequence[EpochReport]) -> None:
    """Write epochs; one that is there already is overwritten, so a continued trial leaves neither gap nor double."""
    upserts = _upserts(connection.dialect.name)
    epochs = [
        {"job_id": held.job_id, "epoch": report.epoch, "attempt": held.attempt, "seconds": report.seconds}
        for report in reports
    ]
    metrics = [
        {"job_id": held.job_id, "epoch": report.epoch, "name": name, "value": value}
        for report in reports
        for name, value in report.metrics.items()
    ]
    for statement, rows in ((upserts.epochs, epochs), (upserts.metrics, metrics)):
        if rows:
            connection.execute(statement, rows)


def record_checkpoint(connection: Connection, held: Claim, saved: SavedCheckpoint) -> None:
    """Write that a checkpoint is safe on disk."""
    connection.execute(
        _CHECKPOINT,
        {
            "job_id": held.job_id,
            "attempt": held.attempt,
            "epoch": saved.epoch,
            "step": saved.step,
            "path": str(saved.path),
            "sha256": saved.sha256,
            "size": saved.size,
        },
    )


def forget_checkpoints(connection: Connection, job_id: int, kept: Sequence[Path]) -> None:
    """Drop the rows of checkpoints whose files are no longer kept."""
    connection.execute(_FORGET, {"job": job_id, "kept": [str(path) for path in kept]})


def record_peaks(connection: Connection, held: Claim, memory_mb: float | None, rss_mb: float | None) -> None:
    """Write the most memory an attempt had, on its GPU and on the host, as far as they were measured."""
    connection.execute(_THIS_ATTEMPT, {**_token(held), "peak_memory_mb": memory_mb, "peak_rss_mb": rss_mb})


def drop_overtaken_epochs(connection: Connection, held: Claim) -> None:
    """Drop what earlier attempts measured beyond the last epoch of one that has ended the trial before its time.

    An earlier attempt may have come further than the checkpoint that the last one went on from; the curve then ends
    where the trial really ended.
    """
    last = (
        select(func.max(EpochRow.epoch))
        .where(EpochRow.job_id == held.job_id, EpochRow.attempt == held.attempt)
        .scalar_subquery()
    )
    for table in (MetricRow, EpochRow):
        connection.execute(delete(table).where(table.job_id == held.job_id, table.epoch > last))


# --- statements, built once: building one takes longer than running it ------------------------------------------------

_THIS_ATTEMPT = update(AttemptRow).where(
    AttemptRow.job_id == bindparam("of_job"), AttemptRow.attempt == bindparam("token")
)
_CHECKPOINT = insert(CheckpointRow).values(created_at=database_now())
_FORGET = delete(CheckpointRow).where(
    CheckpointRow.job_id == bindparam("job"), CheckpointRow.path.not_in(bindparam("kept", expanding=True))
)


@dataclass(frozen=True, slots=True)
class _Upserts:
    environment: Insert
    epochs: Insert
    metrics: Insert


@cache
def _upserts(dialect: str) -> _Upserts:
    made = postgresql if dialect == "postgresql" else sqlite
    epochs = made.insert(EpochRow).values(reported_at=database_now())
    metrics = made.insert(MetricRow)
    return _Upserts(
        environment=made.insert(EnvironmentRow).on_conflict_do_nothing(index_elements=["id"]),
        epochs=epochs.on_conflict_do_update(
            index_elements=["job_id", "epoch"],
            set_={"attempt": epochs.excluded.attempt, "seconds": epochs.excluded.seconds},
        ),
        metrics=metrics.on_conflict_do_update(
            index_elements=["job_id", "epoch", "name"], set_={"value": metrics.excluded.value}
        ),
    )


def _token(held: Claim) -> dict[str, int]:
    return {"of_job": held.job_id, "token": held.attempt}
