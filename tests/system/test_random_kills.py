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

VICTIMS = ["trial"] * 5 + ["worker"] * 4 + ["controller", "all", "all"]  # twelve rounds on each kind of database


def test_twelve_kills_at_random_moments_lose_nothing(any_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("SPIKEBENCH_TEST_SEED", "0")) or random.randrange(1, 10**6)
    sys.stdout.write(f"SPIKEBENCH_TEST_SEED={seed}\n")  # shown when the test fails
    chance = random.Random(seed)
    study = DisturbedStudy(tmp_path, any_url, trials=8, epochs=60)
    study.start()
    for victim in chance.sample(VICTIMS, k=len(VICTIMS)):
        study.wait_for("SELECT count(*) FROM sb_attempts WHERE ended_at IS NULL")
        time.sleep(chance.uniform(0.0, 1.0))
        assert study.running(), study.output()
        study.kill(victim)
        if not study.running():
            study.start()
    assert "is complete: 8 of 8" in study.finish()
    study.assert_whole()
    for trial, reasons in study.attempts().items():
        assert reasons[-1] == "finished"
        assert set(reasons[:-1]) <= {"lost", "preempted"}
        assert study.repeated()[trial] < len(reasons), (
            seed,
            trial,
            reasons,
        )  # at most the epoch that each kill has cut
