from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from seeded import seed_study
from sqlalchemy import delete, insert, update

from orchestrator.reports import artifact_process
from orchestrator.reports.artifact_process import artifacts_beside, make_all
from orchestrator.storage.database import Database
from orchestrator.storage.tables import CheckpointRow, JobRow


class FakeProcess:
    """A process that works until it is ended, and counts how many there were."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended = 0
        self.alive = True

    @contextlib.contextmanager
    def start(self, *settings: Any) -> Iterator[FakeProcess]:
        self.begun.append(settings[-1])
        yield self
        self.ended += 1

    def is_alive(self) -> bool:
        return self.alive

    def join(self, seconds: float) -> None:
        """Return at once: the time is over."""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    fake = FakeProcess()
    monkeypatch.setattr(artifact_process, "_process", fake.start)
    monkeypatch.setattr(artifact_process, "LOOK_SECONDS", 0.01)
    return fake


def save(database: Database, job_id: int) -> None:
    row = {"job_id": job_id, "attempt": 1, "epoch": 2, "step": 0, "path": "x", "sha256": "", "size": 1}
    with database.begin() as connection:
        connection.execute(insert(CheckpointRow).values(**row, created_at=0.0))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_process_is_started_only_for_what_is_new(local: Database, tmp_path: Path, process: FakeProcess) -> None:
    study = seed_study(local, trials=4, epochs=2, accidents=False)
    process.alive = False
    with artifacts_beside(local, study, "stal_loss", tmp_path, pytest.fail):
        time.sleep(0.1)
        assert process.begun == []  # nobody has left a checkpoint
        save(local, 1)
        wait_until(lambda: len(process.begun) == 1)
        with local.begin() as connection:
            connection.execute(delete(CheckpointRow))  # it was worse than another, which is not there yet
        time.sleep(0.1)
        assert len(process.begun) == 1
        save(local, 2)
        wait_until(lambda: len(process.begun) == 2)
    assert process.begun == [artifact_process.NICENESS] * 2
    assert process.ended == 2


def test_no_process_for_the_checkpoints_of_another_trainer(
    local: Database, tmp_path: Path, process: FakeProcess
) -> None:
    study = seed_study(local, trials=2, epochs=2, accidents=False)
    with local.begin() as connection:
        connection.execute(update(JobRow).values(trainer="mine:train"))
    save(local, 1)
    with artifacts_beside(local, study, "stal_loss", tmp_path, pytest.fail):
        time.sleep(0.1)
    assert process.begun == []


def test_a_search_that_leaves_does_not_wait_for_it(local: Database, tmp_path: Path, process: FakeProcess) -> None:
    study = seed_study(local, trials=2, epochs=2, accidents=False)
    save(local, 1)
    before = threading.active_count()
    with artifacts_beside(local, study, "stal_loss", tmp_path, pytest.fail):
        wait_until(lambda: len(process.begun) == 1)
    assert process.ended == 1
    assert threading.active_count() == before


def test_whoever_waits_for_all_is_told_when_the_time_is_over(
    local: Database, tmp_path: Path, process: FakeProcess
) -> None:
    assert not make_all(local, "stal_loss", tmp_path, pytest.fail, seconds=0.0)
    assert (process.begun, process.ended) == ([0], 1)
    process.alive = False
    assert make_all(local, "stal_loss", tmp_path, pytest.fail, seconds=0.0)


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("once\n[0]\n", 0), done.stderr


SCRIPT = """
import multiprocessing, threading
from orchestrator.machine.forkserver import no_main_module

print("once", flush=True)
codes = []

def start():
    process = multiprocessing.get_context("spawn").Process(target=int)
    with no_main_module():
        process.start()
    process.join()
    codes.append(process.exitcode)

thread = threading.Thread(target=start)
thread.start()
thread.join()
import __main__
assert __main__.codes is codes
print(codes, flush=True)
"""
