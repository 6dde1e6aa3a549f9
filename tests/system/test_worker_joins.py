"""A worker that was started by itself helps a running study and leaves without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import searching
from searching import environment, exit_code, finish, query, start, tie, untie, wait_for, wait_for_words, write_space

pytestmark = pytest.mark.system

TRIALS, EPOCHS = 6, 20


def join(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "worker.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from orchestrator.cli import main; main()", "worker", "--storage",
             f"sqlite:///{folder}/study.db", "--workers", "1", *arguments],
            cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    searching.STARTED.append(process)
    return process


def test_a_worker_joins_a_running_study_and_gives_its_trial_back_on_ctrl_c(tmp_path: Path) -> None:
    space = write_space(
        tmp_path,
        trainer="fake_trainers:steady",
        overrides={"loss.name": "ce_ss", "training.epochs": EPOCHS},
        workers={"count": 2, "threads": 1},
    )
    tie(tmp_path, 5)
    search = start(tmp_path, space, "--trials", str(TRIALS))
    wait_for(tmp_path, "SELECT count(*) = 2 FROM sb_epochs WHERE epoch = 5")
    helper = join(tmp_path, "--study", "tiny")
    wait_for(tmp_path, "SELECT count(*) = 3 FROM sb_workers")
    wait_for(tmp_path, "SELECT count(*) = 3 FROM sb_epochs WHERE epoch = 5")
    helper.send_signal(signal.SIGINT)
    assert exit_code(tmp_path, helper) == 0
    untie(tmp_path)
    assert "leaving: running trials write a checkpoint" in (tmp_path / "worker.txt").read_text()
    assert f"is complete: {TRIALS} of {TRIALS}" in finish(tmp_path, search)
    assert query(tmp_path, "SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(0,)]
    assert query(tmp_path, "SELECT count(*), sum(epoch) FROM sb_epochs") == [
        (TRIALS * EPOCHS, TRIALS * EPOCHS * (EPOCHS + 1) // 2)
    ]


def test_a_worker_without_its_study_says_which_there_are_and_waits_until_ctrl_c(tmp_path: Path) -> None:
    finish(tmp_path, start(tmp_path, write_space(tmp_path, trainer="fake_trainers:quick"), "--trials", "1"))
    process = join(tmp_path, "--study", "tinny")
    wait_for_words(tmp_path, "waiting for study tinny; Ctrl-C leaves")
    process.send_signal(signal.SIGINT)
    assert exit_code(tmp_path, process) == 0
    said = (tmp_path / "worker.txt").read_text()
    assert "no study 'tinny'" in said
    assert "did you mean 'tiny'?" in said
