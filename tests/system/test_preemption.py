"""SIGTERM, as schedulers send it: checkpoints are written and every job is given back at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from studies import DisturbedStudy

pytestmark = pytest.mark.system

EPOCHS, HELD = 20, 10  # trials stand where they are held while something happens to them


@pytest.fixture
def study(any_url: str, tmp_path: Path) -> DisturbedStudy:
    """A study with two trials running and one to come, under a lease that is never waited for."""
    study = DisturbedStudy(tmp_path, any_url, trials=3, epochs=EPOCHS, lease=600.0)
    study.tie(HELD)
    study.start()
    study.wait_for(f"SELECT count(*) = 2 FROM sb_epochs WHERE epoch = {HELD}")
    return study


@pytest.mark.parametrize("whom", ["controller", "everyone"])
def test_a_search_that_must_go_gives_all_its_trials_back(study: DisturbedStudy, whom: str) -> None:
    assert study.process is not None
    if whom == "controller":
        study.process.send_signal(signal.SIGTERM)
    else:
        os.killpg(study.process.pid, signal.SIGTERM)
    assert "interrupted; the same command goes on" in study.finish()
    assert study.process.returncode == 75
    assert study.query("SELECT state, owner, count(*) FROM sb_jobs GROUP BY state, owner") == [("pending", None, 2)]
    assert study.attempts() == {0: ["preempted"], 1: ["preempted"]}
    assert study.query("SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(0,)]
    study.untie()
    study.start()
    assert "is complete: 3 of 3" in study.finish()
    study.assert_whole()
    assert study.repeated() == {0: [0], 1: [0], 2: []}


@pytest.mark.parametrize("kind", ["worker", "trial"])
def test_the_search_goes_on_when_one_must_go(study: DisturbedStudy, kind: str) -> None:
    os.kill(study.process_of(kind), signal.SIGTERM)
    study.wait_for("SELECT count(*) FROM sb_attempts WHERE ended_at IS NOT NULL")
    study.untie()
    assert "is complete: 3 of 3" in study.finish()
    study.assert_whole()
    assert sorted(map(len, study.attempts().values())) == [1, 1, 2]
    assert next(reasons for reasons in study.attempts().values() if len(reasons) == 2) == ["preempted", "finished"]
    assert sorted(study.repeated().values()) == [[], [], [0]]


def test_three_failures_in_a_row_stop_the_study_and_their_worker_lives_on(any_url: str, tmp_path: Path) -> None:
    study = DisturbedStudy(
        tmp_path, any_url, trials=9, epochs=2, trainer="fake_trainers:raises", workers={"count": 1, "threads": 1}
    )
    study.start()
    output = study.finish()
    assert "3 trials in a row failed" in output
    assert study.query("SELECT state, end_reason, count(*) FROM sb_jobs GROUP BY state, end_reason") == [
        ("failed", "error", 3)
    ]
    assert study.query("SELECT state FROM sb_studies") == [("stopped",)]
    assert study.query("SELECT count(*) FROM sb_workers") == [(1,)]  # the one worker took all three
