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
from searching import environment, query, wait_for, write_space

pytestmark = pytest.mark.system

PROGRAM = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
SOON = 8.0  # seconds in which a wish of one second must show, on a machine that is busy with something else


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
        tmp_path, trainer="fake_trainers:steady", overrides={"loss.name": "ce_ss", "training.epochs": 4000}
    )
    controller = launch(tmp_path, "controller", "controller", "--space", str(space), "--trials", "3")
    wait_for(tmp_path, "SELECT controller IS NOT NULL FROM sb_studies")
    worker = launch(tmp_path, "worker", "worker", "--workers", "2", "--threads", "1")
    wait_for(tmp_path, "SELECT count(DISTINCT job_id) = 2 FROM sb_epochs")

    say(tmp_path, "pause", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 0 FROM sb_jobs WHERE state = 'leased'", timeout=SOON)
    before = query(tmp_path, "SELECT job_id, max(epoch) FROM sb_epochs GROUP BY job_id")
    assert query(tmp_path, "SELECT DISTINCT end_reason FROM sb_attempts") == [("preempted",)]
    time.sleep(2.0)
    assert query(tmp_path, "SELECT job_id, max(epoch) FROM sb_epochs GROUP BY job_id") == before
    assert query(tmp_path, "SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(2,)]
    assert (controller.poll(), worker.poll()) == (None, None)

    say(tmp_path, "resume", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_jobs WHERE state = 'leased' AND attempt = 2", timeout=SOON)
    assert "told to end" in say(tmp_path, "cancel", "tiny", "0")
    wait_for(tmp_path, "SELECT state = 'failed' FROM sb_jobs WHERE trial_number = 0", timeout=SOON)
    wait_for(tmp_path, "SELECT count(*) FROM sb_jobs WHERE trial_number = 2 AND state = 'leased'")

    say(tmp_path, "stop", "tiny")
    assert controller.wait(60) == 1
    assert "study tiny is stopped: by `spikebench stop`" in (tmp_path / "controller.txt").read_text()
    wait_for(tmp_path, "SELECT count(*) = 0 FROM sb_jobs WHERE state = 'leased'", timeout=SOON)

    again = launch(tmp_path, "again", "controller", "--study", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_jobs WHERE state = 'leased'")
    for number in ("1", "2"):
        say(tmp_path, "cancel", "tiny", number)
    assert again.wait(60) == 1  # nothing has finished
    assert "study tiny is complete: 3 of 3 trials ended (3 stopped)" in (tmp_path / "again.txt").read_text()
    assert Counter(query(tmp_path, "SELECT state FROM trials")) == {("FAIL",): 3}
    rows = query(tmp_path, "SELECT count(*), max(epoch) FROM sb_epochs GROUP BY job_id")
    assert all(count == last for count, last in rows)  # neither gap nor double, whatever happened in between
    os.kill(worker.pid, signal.SIGINT)
    assert worker.wait(60) == 0
    assert query(tmp_path, "SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(0,)]


def test_a_worker_waits_for_a_study_and_gives_its_trial_back_on_sigterm(tmp_path: Path) -> None:
    space = write_space(
        tmp_path, trainer="fake_trainers:steady", overrides={"loss.name": "ce_ss", "training.epochs": 4000}
    )
    say(tmp_path, "db", "init")
    worker = launch(tmp_path, "worker", "worker", "--workers", "1", "--threads", "1")
    wait_for(tmp_path, "SELECT count(*) FROM sb_workers")
    controller = launch(tmp_path, "controller", "controller", "--space", str(space), "--trials", "1")
    wait_for(tmp_path, "SELECT count(*) FROM sb_epochs")
    os.kill(worker.pid, signal.SIGTERM)
    began = time.monotonic()
    assert worker.wait(60) == 75
    assert time.monotonic() - began < SOON
    assert query(tmp_path, "SELECT state, attempt FROM sb_jobs") == [("pending", 1)]
    assert query(tmp_path, "SELECT end_reason FROM sb_attempts") == [("preempted",)]
    os.kill(controller.pid, signal.SIGTERM)
    assert controller.wait(60) == 75
    assert query(tmp_path, "SELECT state, controller FROM sb_studies") == [("stopped", None)]
