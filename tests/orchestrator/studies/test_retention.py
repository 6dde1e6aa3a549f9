"""A study keeps the checkpoints of its front, of what runs, and of the trial that finished last; nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from queued_jobs import rows, seed, take
from sqlalchemy import insert, update

from orchestrator.queue.jobs import finish
from orchestrator.storage.database import Database
from orchestrator.storage.study import Study
from orchestrator.storage.tables import CheckpointRow, EndReason, EpochRow, JobRow, MetricRow
from orchestrator.studies.retention import Retention
from search_spaces.space import Space

FILE = 1000  # bytes


def retention(database: Database, keep: str = "front", constraints: tuple[dict[str, Any], ...] = ()) -> Retention:
    space = Space.model_validate(
        {
            "name": "s",
            "base": "b",
            "parameters": {"a": {"type": "float", "low": 0, "high": 1}},
            "objectives": [
                {"metric": "val_accuracy", "direction": "maximize"},
                {"metric": "val_spike_density", "direction": "minimize"},
            ],
            "constraints": list(constraints),
            "checkpoints": {"keep": keep},
        }
    )
    return Retention(database, cast(Study, SimpleNamespace(id=1, checked=SimpleNamespace(space=space))))


def folder(runs: Path, number: int) -> Path:
    return runs / f"trial_{number:05d}"


def save(database: Database, runs: Path, number: int, files: int = 2) -> None:
    """Write checkpoints of a trial and their rows."""
    folder(runs, number).mkdir(parents=True, exist_ok=True)
    (folder(runs, number) / "config.yaml").write_text("kept: true")
    for epoch in range(files):
        path = folder(runs, number) / f"ckpt-{epoch:05d}-0000000.pt"
        path.write_bytes(b"x" * FILE)
        with database.begin() as connection:
            connection.execute(
                insert(CheckpointRow).values(
                    job_id=number + 1, attempt=1, epoch=epoch, step=0, path=str(path), sha256="", size=FILE,
                    created_at=0.0,
                )
            )  # fmt: skip


def end(database: Database, number: int, accuracy: float, density: float, reason: str = EndReason.FINISHED) -> None:
    held = take(database)
    assert held.trial_number == number
    with database.begin() as connection:
        for epoch, worse in ((1, 0.5), (2, 0.0)):  # the last epoch counts
            connection.execute(
                insert(EpochRow).values(job_id=held.job_id, epoch=epoch, attempt=1, seconds=1.0, reported_at=0.0)
            )
            for name, value in (("val_accuracy", accuracy - worse), ("val_spike_density", density + worse)):
                connection.execute(insert(MetricRow).values(job_id=held.job_id, epoch=epoch, name=name, value=value))
        finish(connection, held, EndReason(reason))
        connection.execute(update(JobRow).where(JobRow.id == held.job_id).values(ended_at=float(number)))


@pytest.fixture
def runs(database: Database, tmp_path: Path) -> Path:
    seed(database, 8)
    runs = tmp_path / "runs"
    with database.begin() as connection:
        for number in range(8):
            connection.execute(
                update(JobRow).where(JobRow.trial_number == number).values(run_dir=str(folder(runs, number)))
            )
    return runs


def kept(runs: Path) -> list[int]:
    found = [number for number in range(8) if any(folder(runs, number).glob("ckpt-*"))]
    assert all((folder(runs, number) / "config.yaml").exists() for number in found)
    return found


def used(runs: Path) -> int:
    return sum(path.stat().st_size for path in runs.rglob("*ckpt-*"))


def test_disk_use_is_bounded_by_the_front_the_latest_and_what_runs(database: Database, runs: Path) -> None:
    keeper = retention(database)
    ends = [(0.9, 0.5), (0.8, 0.6), (0.8, 0.2), (0.95, 0.1), (0.5, 0.9), (0.4, 0.9)]
    expected = [[0], [0, 1], [0, 2], [3], [3, 4], [3, 5]]
    for number, (values, stay) in enumerate(zip(ends, expected, strict=True)):
        save(database, runs, number)
        end(database, number, *values)
        save(database, runs, number + 1)  # it runs meanwhile
        keeper.ended([number])
        assert kept(runs) == [*stay, number + 1]
        assert used(runs) == (len(stay) + 1) * 2 * FILE
    assert sorted({row.job_id for row in rows(database, CheckpointRow)}) == [4, 6, 7]


@pytest.mark.parametrize(("keep", "stay"), [("all", [0, 1, 2]), ("none", []), ("front", [0, 2])])
def test_the_setting_decides(database: Database, runs: Path, keep: str, stay: list[int]) -> None:
    for number, values in enumerate([(0.9, 0.1), (0.8, 0.2), (0.7, 0.3)]):
        save(database, runs, number)
        end(database, number, *values)
    retention(database, keep).ended([0, 1, 2])
    assert kept(runs) == stay


def test_failed_and_stopped_trials_and_those_that_miss_a_constraint_keep_nothing(
    database: Database, runs: Path
) -> None:
    reasons = [EndReason.NAN, EndReason.RUNG, EndReason.FINISHED, EndReason.FINISHED]
    for number, (values, reason) in enumerate(
        zip([(0.99, 0.1), (0.98, 0.1), (0.97, 0.1), (0.5, 0.5)], reasons, strict=True)
    ):
        save(database, runs, number)
        end(database, number, *values, reason=reason)
    bounded = retention(database, constraints=({"metric": "val_accuracy", "max": 0.9},))
    bounded.ended([0, 1, 2, 3])
    assert kept(runs) == [3]


def test_a_restarted_controller_knows_what_is_kept_and_clears_what_strays(database: Database, runs: Path) -> None:
    for number, values in enumerate([(0.9, 0.1), (0.8, 0.2), (0.7, 0.3)]):
        save(database, runs, number)
        end(database, number, *values)
    retention(database).ended([0, 1, 2])
    (folder(runs, 1) / "ckpt-00009-0000000.pt").write_bytes(b"of an attempt that was given up for lost")
    save(database, runs, 3)  # runs
    keeper = retention(database)
    keeper.sweep()
    assert kept(runs) == [0, 2, 3]
    end(database, 3, 0.6, 0.4)
    keeper.ended([3])
    assert kept(runs) == [0, 3]


def test_what_this_host_does_not_see_is_neither_deleted_nor_forgotten(database: Database, runs: Path) -> None:
    for number, values in enumerate([(0.8, 0.2), (0.9, 0.1)]):
        save(database, runs, number)
        end(database, number, *values)
    folder(runs, 0).rename(runs / "elsewhere")
    retention(database).ended([0, 1])
    assert {row.job_id for row in rows(database, CheckpointRow)} == {1, 2}
