"""An MLflow server that is not there, or that never answers, delays no trial; it is told later what it missed."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from searching import finish, query, start, write_space

pytestmark = pytest.mark.system

EPOCHS, TRIALS = 4, 4


@pytest.fixture(params=["dead", "hanging"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a server that does not work."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        port = server.getsockname()[1]
        if request.param == "dead":
            server.close()
        yield f"http://127.0.0.1:{port}"


def test_every_trial_finishes_and_what_was_missed_is_delivered_later(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    space = write_space(
        tmp_path, trainer="fake_trainers:quick", overrides={"loss.name": "ce_ss", "training.epochs": EPOCHS}
    )
    arguments = ["--trials", str(TRIALS), "--tracking.mlflow", "true", "--tracking.mlflow_uri"]
    printed = finish(tmp_path, start(tmp_path, space, *arguments, address))
    assert f"is complete: {TRIALS} of {TRIALS} trials ended ({TRIALS} finished)" in printed
    assert "MLflow cannot be reached" in printed
    assert f"MLflow has not taken {EPOCHS * TRIALS} epochs of {TRIALS} trials" in printed
    assert query(tmp_path, "SELECT count(*), max(attempt) FROM sb_attempts") == [(TRIALS, 1)]
    assert query(tmp_path, "SELECT count(*) FROM sb_deliveries") == [(0,)]

    later = finish(tmp_path, start(tmp_path, space, *arguments, f"sqlite:///{tmp_path}/mlflow.db"))
    assert "has not taken" not in later
    assert query(tmp_path, "SELECT count(*), sum(closed), sum(epoch) FROM sb_deliveries") == [
        (TRIALS, TRIALS, TRIALS * EPOCHS)
    ]
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as mlflow:
        steps = mlflow.execute("SELECT count(*), sum(step) FROM metrics WHERE key = 'val_accuracy'").fetchall()
        assert steps == [(TRIALS * EPOCHS, TRIALS * EPOCHS * (EPOCHS + 1) // 2)]
        assert mlflow.execute("SELECT count(*) FROM runs WHERE status != 'FINISHED'").fetchall() == [(0,)]
