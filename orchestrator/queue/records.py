"""What an attempt reports, as rows: surroundings, epochs, checkpoints. The caller holds the lease meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update
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
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    surroundings = start.provenance
    connection.execute(
        dialect.insert(EnvironmentRow)
        .values(id=surroundings.digest, **surroundings.columns())
        .on_conflict_do_nothing(index_elements=["id"])
    )
    connection.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == held.job_id, AttemptRow.attempt == held.attempt)
        .values(
            pid=start.pid,
            log_path=str(start.log_path),
            resumed_epoch=start.facts.resumed_epoch,
            neuron_backend=start.facts.neuron_backend,
            effective_batch=start.facts.effective_batch,
            micro_batch=start.facts.micro_batch,
            learning_rate=start.facts.learning_rate,
            seed=start.facts.seed,
            deterministic=start.facts.deterministic,
            environment_id=surroundings.digest,
        )
    )


def record_epochs(connection: Connection, held: Claim, reports: Sequence[EpochReport]) -> None:
    """Write epochs; one that is there already is overwritten, so a continued trial leaves neither gap nor double."""
    if not reports:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    epochs = dialect.insert(EpochRow).values(
        [
            {
                "job_id": held.job_id,
                "epoch": report.epoch,
                "attempt": held.attempt,
                "seconds": report.seconds,
                "reported_at": database_now(),
            }
            for report in reports
        ]
    )
    connection.execute(
        epochs.on_conflict_do_update(
            index_elements=["job_id", "epoch"],
            set_={"attempt": epochs.excluded.attempt, "seconds": epochs.excluded.seconds},
        )
    )
    metrics = dialect.insert(MetricRow)
    connection.execute(
        metrics.on_conflict_do_update(
            index_elements=["job_id", "epoch", "name"], set_={"value": metrics.excluded.value}
        ),
        [
            {"job_id": held.job_id, "epoch": report.epoch, "name": name, "value": value}
            for report in reports
            for name, value in report.metrics.items()
        ],
    )


def record_checkpoint(connection: Connection, held: Claim, saved: SavedCheckpoint) -> None:
    """Write that a checkpoint is safe on disk."""
    connection.execute(
        insert(CheckpointRow).values(
            job_id=held.job_id,
            attempt=held.attempt,
            epoch=saved.epoch,
            step=saved.step,
            path=str(saved.path),
            sha256=saved.sha256,
            size=saved.size,
            created_at=database_now(),
        )
    )


def forget_checkpoints(connection: Connection, job_id: int, kept: Sequence[Path]) -> None:
    """Drop the rows of checkpoints whose files are no longer kept."""
    connection.execute(
        delete(CheckpointRow).where(
            CheckpointRow.job_id == job_id, CheckpointRow.path.not_in([str(path) for path in kept])
        )
    )


def record_peaks(connection: Connection, held: Claim, memory_mb: float | None, rss_mb: float | None) -> None:
    """Write the most memory an attempt had, on its GPU and on the host, as far as they were measured."""
    connection.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == held.job_id, AttemptRow.attempt == held.attempt)
        .values(peak_memory_mb=memory_mb, peak_rss_mb=rss_mb)
    )


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
