from __future__ import annotations

import json
from collections.abc import Iterator

import optuna
import pytest
from seeded import seed_study
from sqlalchemy import update

from orchestrator.reports import dashboard_storage
from orchestrator.reports.dashboard_storage import DashboardStorage
from orchestrator.storage.database import Database
from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.storage.study import optuna_storage
from orchestrator.storage.tables import MetricRow


@pytest.fixture
def storage(local: Database) -> Iterator[DashboardStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna_storage(local)
    study = optuna.create_study(storage=backend, study_name="stal_loss", directions=["maximize", "minimize"])
    with experimental_allowed():
        study.set_metric_names(["val_accuracy", "val_spike_density"])
    optuna.create_study(storage=backend, study_name="of optuna alone")
    seed_study(local, trials=6, epochs=3, accidents=False)
    yield DashboardStorage(backend, local)
    backend.engine.dispose()


def curves(attrs: dict[str, object]) -> dict[str, object]:
    return {key: json.loads(str(value)) for key, value in attrs.items() if key.startswith("dashboard:plot_data:")}


def test_metrics_have_names_in_words(storage: DashboardStorage) -> None:
    assert storage.get_study_system_attrs(1)["study:metric_names"] == [
        "Validation accuracy",
        "Validation spike density",
    ]
    first, second = storage.get_all_studies()
    assert first.system_attrs["study:metric_names"][0] == "Validation accuracy"
    assert "study:metric_names" not in second.system_attrs


def test_only_the_study_that_is_shown_has_its_curves_drawn(storage: DashboardStorage) -> None:
    assert curves(storage.get_study_system_attrs(1)) == {}
    storage.open(1)
    drawn = curves(storage.get_all_studies()[0].system_attrs)
    assert sorted(key.rsplit("learning-curves-")[1] for key in drawn) == ["val_accuracy:0", "val_spike_density:0"]
    storage.open(None)
    assert curves(storage.get_study_system_attrs(1)) == {}
    storage.open(2)
    assert all(curves(study.system_attrs) == {} for study in storage.get_all_studies())


def test_curves_are_read_again_after_a_while(
    storage: DashboardStorage, local: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.open(1)
    before = curves(storage.get_study_system_attrs(1))
    with local.begin() as connection:
        connection.execute(update(MetricRow).where(MetricRow.name == "val_accuracy").values(value=0.5))
    assert curves(storage.get_study_system_attrs(1)) == before
    monkeypatch.setattr(dashboard_storage, "SHARE", 0.0)
    monkeypatch.setattr(dashboard_storage, "FRESH_SECONDS", 0.0)
    storage._curves.clear()
    assert curves(storage.get_study_system_attrs(1)) != before


def test_nothing_of_it_is_written(storage: DashboardStorage, local: Database) -> None:
    storage.open(1)
    storage.get_all_studies()
    plain = optuna_storage(local)
    assert plain.get_study_system_attrs(1) == {"study:metric_names": ["val_accuracy", "val_spike_density"]}
    plain.engine.dispose()
