"""Whatever is killed, and whenever: every trial goes on under its number and ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest
from studies import DisturbedStudy

pytestmark = pytest.mark.system

TRIALS, EPOCHS = 8, 60
VICTIMS = ["trial"] * 5 + ["worker"] * 4 + ["controller", "all", "all"]  # twelve rounds on each kind of database


def test_twelve_kills_at_random_moments_lose_nothing(any_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("SPIKEBENCH_TEST_SEED", "0")) or random.randrange(1, 10**6)
    sys.stdout.write(f"SPIKEBENCH_TEST_SEED={seed}\n")  # shown when the test fails
    chance = random.Random(seed)
    study = DisturbedStudy(tmp_path, any_url, trials=TRIALS, epochs=EPOCHS, lease=12.0)
    study.tie(EPOCHS - 1, trial=TRIALS - 1)  # the study is not complete before all kills are done
    study.start()
    for victim in chance.sample(VICTIMS, k=len(VICTIMS)):
        study.wait_for("SELECT count(*) FROM sb_attempts WHERE ended_at IS NULL")
        time.sleep(chance.uniform(0.0, 1.0))
        assert study.running(), study.output()
        study.kill(victim)
        if not study.running():
            study.start()
    study.untie(trial=TRIALS - 1)
    assert f"is complete: {TRIALS} of {TRIALS}" in study.finish()
    study.assert_whole()
    for trial, reasons in study.attempts().items():
        assert reasons[-1] == "finished"
        assert set(reasons[:-1]) <= {"lost", "preempted"}
        assert len(study.repeated()[trial]) < len(reasons)
        assert max(study.repeated()[trial], default=0) <= 1, (seed, trial, reasons)  # the epoch that a kill has cut
