"""What is free on a worker's GPU, read from the database when the worker asks for a job."""

from __future__ import annotations

import hashlib

from sqlalchemy import ColumnElement, Connection, and_, false, func, or_, select, text

from orchestrator.machine.placement import Room, Seat, Shape, room
from orchestrator.storage.tables import AttemptRow, EndReason, JobRow, JobState, WorkerRow

OPEN_STATES = (JobState.PENDING, JobState.LEASED)


def fitting(connection: Connection, seat: Seat | None) -> ColumnElement[bool] | None:
    """Return the condition under which a pending job may start at a place, by `orchestrator.machine.placement`.

    A trial of several processes needs a place with as many GPUs, and others leave such a place alone.

    Workers of one GPU wait here for each other's transactions to end: each sees what the one before it has taken.

    Args:
        connection: the writing transaction that takes the job.
        seat: the place; None is a place on the CPU.

    Returns:
        The condition, or None where every job fits, as on a CPU.
    """
    if seat is None:
        return None
    as_many = func.coalesce(JobRow.config["training", "processes"].as_integer(), 1) == seat.gpus
    if connection.dialect.name == "postgresql":  # on SQLite the transaction itself is the lock
        key = int.from_bytes(hashlib.sha256(seat.gpu.encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    running = _running(connection, seat.gpu)
    if not running:
        return as_many
    peaks = _peaks(connection)
    fits = _condition(room(seat, running, peaks), set(peaks))
    return as_many if fits is None else and_(as_many, fits)


def _condition(free: Room, measured: set[Shape]) -> ColumnElement[bool] | None:
    if free.all_fit:
        return None
    if free.unmeasured:
        return ~_is_one_of(free.refused)
    return _is_one_of(measured - free.refused)


def _is_one_of(shapes: set[Shape] | frozenset[Shape]) -> ColumnElement[bool]:
    each = [and_(JobRow.shape_hash == name, JobRow.micro_batch_halvings == halvings) for name, halvings in shapes]
    return or_(*each) if each else false()


def _running(connection: Connection, gpu: str) -> list[tuple[Shape, float]]:
    query = (
        select(JobRow.shape_hash, JobRow.micro_batch_halvings, WorkerRow.gpu_share_mb)
        .join(WorkerRow, WorkerRow.id == JobRow.owner)
        .where(JobRow.state == JobState.LEASED, WorkerRow.gpu == gpu)
    )
    return [((name, halvings), share or 0.0) for name, halvings, share in connection.execute(query)]


def _peaks(connection: Connection) -> dict[Shape, float]:
    """Return the measured peaks of the shapes that open jobs have; where memory ran out nothing was measured."""
    wanted = select(JobRow.shape_hash).where(JobRow.state.in_(OPEN_STATES), JobRow.shape_hash != "").distinct()
    query = (
        select(JobRow.shape_hash, JobRow.micro_batch_halvings, func.max(AttemptRow.peak_memory_mb))
        .join(JobRow, JobRow.id == AttemptRow.job_id)
        .where(JobRow.shape_hash.in_(wanted), AttemptRow.peak_memory_mb.is_not(None))
        .where(AttemptRow.end_reason.is_distinct_from(EndReason.OOM))
        .group_by(JobRow.shape_hash, JobRow.micro_batch_halvings)
    )
    return {(name, halvings): float(peak or 0.0) for name, halvings, peak in connection.execute(query)}
