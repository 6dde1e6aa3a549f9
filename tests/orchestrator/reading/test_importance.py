from __future__ import annotations

import pytest
from seeded import PARAMETERS, seed_study
from sqlalchemy import select, update

from orchestrator.reading.history import read_history
from orchestrator.reading.importance import importances
from orchestrator.storage.database import Database
from orchestrator.storage.tables import JobRow


def test_what_matters_is_found(local: Database) -> None:
    """In the made-up study omega decides the density, omega and the threshold decide the accuracy."""
    seed_study(local, trials=150)
    shares = importances(read_history(local, "stal_loss"))
    assert list(shares) == ["val_accuracy", "val_spike_density"]
    for found in shares.values():
        assert set(found) == set(PARAMETERS)
        assert sum(found.values()) == pytest.approx(1.0)
    assert max(shares["val_spike_density"], key=shares["val_spike_density"].get) == "loss.omega"
    assert shares["val_accuracy"]["neuron.v_threshold"] > shares["val_accuracy"]["optimizer.name"]


def test_too_few_trials_have_none(local: Database) -> None:
    seed_study(local, trials=3)
    assert importances(read_history(local, "stal_loss")) == {}


def test_conditional_parameters_take_part(local: Database) -> None:
    seed_study(local, trials=60, accidents=False)
    with local.begin() as connection:
        for job_id, params in connection.execute(select(JobRow.id, JobRow.params)).all():
            if params["optimizer.name"] == "lamb":
                kept = {key: value for key, value in params.items() if key != "loss.c"}
                connection.execute(update(JobRow).where(JobRow.id == job_id).values(params=kept))
    assert "loss.c" in importances(read_history(local, "stal_loss"))["val_accuracy"]


def test_values_outside_the_stored_space_give_none(local: Database) -> None:
    seed_study(local, trials=10)
    with local.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == 1).values(params={"optimizer.name": "sgd"}))
    assert importances(read_history(local, "stal_loss")) == {}
