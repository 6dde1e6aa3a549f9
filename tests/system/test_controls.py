"""A controller without workers, workers that joined by themselves, and a person who pauses, cancels and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import searching
from searching import environment, exit_code, query, tie, wait_for, write_space

pytestmark = pytest.mark.system

PROGRAM = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
EPOCHS = 30


def launch(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command that stays; what it prints goes to a file of its name."""
    with (folder / f"{name}.txt").open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, *arguments, "--storage", f"sqlite:///{folder}/study.db"], cwd=folder, env=environment(),
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    searching.STARTED.append(process)
    return process


def say(folder: Path, *arguments: str) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        [*PROGRAM, *arguments, "--storage", f"sqlite:///{folder}/study.db"], cwd=folder, env=environment(),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_study_is_paused_resumed_pruned_by_hand_and_stopped(tmp_path: Path) -> None:
    space = write_space(
        tmp_path, trainer="fake_trainers:steady", overrides={"loss.name": "ce_ss", "training.epochs": EPOCHS}
    )
    tie(tmp_path, 5)
    controller = launch(tmp_path, "controller", "controller", "--space", str(space), "--trials", "3")
    wait_for(tmp_path, "SELECT controller IS NOT NULL FROM sb_studies")
    worker = launch(tmp_path, "worker", "worker", "--workers", "2", "--threads", "1")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_epochs WHERE epoch = 5")

    say(tmp_path, "pause", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 0 FROM sb_jobs WHERE state = 'leased'")
    before = query(tmp_path, "SELECT job_id, max(epoch) FROM sb_epochs GROUP BY job_id")
    assert query(tmp_path, "SELECT DISTINCT end_reason FROM sb_attempts") == [("preempted",)]
    tie(tmp_path, 10)
    time.sleep(2.0)  # some looks of idle workers in which nothing may be given out
    assert query(tmp_path, "SELECT job_id, max(epoch) FROM sb_epochs GROUP BY job_id") == before
    assert query(tmp_path, "SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(2,)]
    assert (controller.poll(), worker.poll()) == (None, None)

    say(tmp_path, "resume", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_jobs WHERE state = 'leased' AND attempt = 2")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_epochs WHERE epoch = 10")
    assert "its worker ends it" in say(tmp_path, "cancel", "tiny", "0")
    wait_for(tmp_path, "SELECT state = 'failed' FROM sb_jobs WHERE trial_number = 0")
    wait_for(tmp_path, "SELECT count(*) FROM sb_jobs WHERE trial_number = 2 AND state = 'leased'")

    say(tmp_path, "stop", "tiny")
    assert exit_code(tmp_path, controller) == 1
    assert "study tiny is stopped: by `spikebench stop`" in (tmp_path / "controller.txt").read_text()
    wait_for(tmp_path, "SELECT count(*) = 0 FROM sb_jobs WHERE state = 'leased'")

    again = launch(tmp_path, "again", "controller", "--study", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_jobs WHERE state = 'leased'")
    for number in ("1", "2"):
        say(tmp_path, "cancel", "tiny", number)
    assert exit_code(tmp_path, again) == 1  # nothing has finished
    assert "study tiny is complete: 3 of 3 trials ended (3 stopped)" in (tmp_path / "again.txt").read_text()
    assert Counter(query(tmp_path, "SELECT state FROM trials")) == {("FAIL",): 3}
    rows = query(tmp_path, "SELECT count(*), max(epoch) FROM sb_epochs GROUP BY job_id")
    assert all(count == last for count, last in rows)  # neither gap nor double, whatever happened in between
    os.kill(worker.pid, signal.SIGINT)
    assert exit_code(tmp_path, worker) == 0
    assert query(tmp_path, "SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(0,)]


def test_a_worker_waits_for_a_study_and_gives_its_trial_back_on_sigterm(tmp_path: Path) -> None:
    space = write_space(
        tmp_path, trainer="fake_trainers:steady", overrides={"loss.name": "ce_ss", "training.epochs": EPOCHS}
    )
    tie(tmp_path, 5)
    say(tmp_path, "db", "init")
    worker = launch(tmp_path, "worker", "worker", "--workers", "1", "--threads", "1")
    wait_for(tmp_path, "SELECT count(*) FROM sb_workers")
    controller = launch(tmp_path, "controller", "controller", "--space", str(space), "--trials", "1")
    wait_for(tmp_path, "SELECT count(*) = 5 FROM sb_epochs")
    os.kill(worker.pid, signal.SIGTERM)
    assert exit_code(tmp_path, worker) == 75
    assert query(tmp_path, "SELECT state, attempt FROM sb_jobs") == [("pending", 1)]
    assert query(tmp_path, "SELECT end_reason FROM sb_attempts") == [("preempted",)]
    os.kill(controller.pid, signal.SIGTERM)
    assert exit_code(tmp_path, controller) == 75
    assert query(tmp_path, "SELECT state, controller FROM sb_studies") == [("stopped", None)]
