"""Searches from Python: what a notebook sees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import searching

from configs.problems import ConfigError
from orchestrator import api
from orchestrator.errors import StudyNotFoundError, TrialNotFoundError

TRIALS = 5
SPACE: dict[str, Any] = {
    "name": "from_python",
    "base": "stal/srnn_digits",
    "trainer": "fake_trainers:quick",
    "overrides": {"loss.name": "ce_ss"},
    "parameters": {"loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True}},
    "objectives": [
        {"metric": "val_accuracy", "direction": "maximize"},
        {"metric": "val_spike_density", "direction": "minimize"},
    ],
    "budget": {"trials": TRIALS},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('api') / 'study.db'}"


@pytest.fixture(scope="module")
def results(storage: str) -> Iterator[api.Results]:
    """A search run from a thread, as from a web server, whose signals are not its own."""
    found: list[api.Results] = []
    runs = Path(storage.removeprefix("sqlite:///")).parent / "runs"

    def work() -> None:
        overrides = {"training.epochs": 3}
        found.append(
            api.search(SPACE, workers=1, threads=1, storage=storage, runs_dir=runs, overrides=overrides, quiet=True)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(searching.SUPPORT))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    yield found[0]
    found[0].close()


def test_a_search_ends_with_its_results(results: api.Results, storage: str) -> None:
    assert results.state == "complete"
    assert repr(results) == "<study from_python is complete: 5 of 5 trials ended (5 finished)>"
    again = api.load(storage=storage)
    assert again.name == "from_python"
    again.close()


def test_trials_are_a_data_frame(results: api.Results) -> None:
    frame = results.trials_dataframe()
    assert list(frame.index) == list(range(TRIALS))
    assert frame.index.name == "trial"
    assert set(frame["state"]) == {"finished"}
    assert frame["params.loss.omega"].between(1e-6, 5e-4).all()
    assert frame["epochs"].tolist() == [3] * TRIALS
    assert {"val_accuracy", "val_spike_density", "end_reason", "attempts", "seconds", "run_dir"} <= set(frame)


def test_the_front_is_part_of_it(results: api.Results) -> None:
    front = results.front()
    assert 0 < len(front) <= TRIALS
    assert front["feasible"].all()
    assert front["val_accuracy"].is_monotonic_decreasing
    assert results.best().number == front.index[0]
    assert results.config(int(front.index[0])).training.epochs == 3


def test_curves_have_a_column_per_trial(results: api.Results) -> None:
    curves = results.curves("val_accuracy")
    assert list(curves.index) == [1, 2, 3]
    assert list(curves.columns) == list(range(TRIALS))
    last = results.trials_dataframe()["val_accuracy"]
    assert curves.iloc[-1].tolist() == last.tolist()


def test_figures_and_the_report_are_made(results: api.Results, tmp_path: Path) -> None:
    for figure in (
        results.plot_front(),
        results.plot_history(),
        results.plot_importances(),
        results.plot_curves("val_accuracy"),
    ):
        assert figure.data
    assert "from_python" in results.report(tmp_path / "report.html").read_text()


def test_what_is_not_there_is_said(results: api.Results, storage: str) -> None:
    with pytest.raises(TrialNotFoundError, match="no trial of study 'from_python' has reported 'val_f2'"):
        results.plot_curves("val_f2")
    with pytest.raises(TrialNotFoundError):
        results.config(99)
    with pytest.raises(StudyNotFoundError, match="did you mean 'from_python'"):
        api.load("from_pyton", storage=storage)
    with pytest.raises(ConfigError, match=r"loss\.omgea"):
        api.search({**SPACE, "parameters": {"loss.omgea": {"type": "float", "low": 0.1, "high": 1.0}}})
