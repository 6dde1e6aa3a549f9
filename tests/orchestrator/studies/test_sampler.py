from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection

from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.studies import sampler
from orchestrator.studies.sampler import LongStudyTPESampler, trial_seed

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "width": IntDistribution(1, 64, log=True),
    "kind": CategoricalDistribution(("adam", "sgd")),
    "step": FloatDistribution(0.0, 1.0, step=0.1),
}


def draw(kind: type[TPESampler], objectives: int) -> list[dict[str, Any]]:
    """Draw five trials after 200 random ones, of which every other one lacks a parameter."""
    study = optuna.create_study(directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives])

    def tell(number: int, sampler: BaseSampler) -> dict[str, Any]:
        study.sampler = sampler
        left_out = "step" if number % 2 else ""
        trial = study.ask({name: space for name, space in DISTRIBUTIONS.items() if name != left_out})
        params = trial.params
        study.tell(trial, [params["rate"] - params["share"] ** 2 + params["width"] / 64, params["share"]][:objectives])
        return params

    for number in range(200):
        tell(number, RandomSampler(seed=number))
    with experimental_allowed():
        return [tell(number, kind(seed=number, multivariate=True, group=True)) for number in range(200, 205)]


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_long_study_draws_what_optuna_draws(objectives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "CELLS", 6000)  # so that the candidates are weighed in several parts
    drawn = draw(LongStudyTPESampler, objectives)
    assert drawn == draw(TPESampler, objectives)
    assert len({str(params) for params in drawn}) == 5


def test_every_trial_has_a_seed_of_its_own() -> None:
    seeds = {trial_seed(study, number) for study in range(3) for number in range(1000)}
    assert len(seeds) == 3000
    assert trial_seed(1, 2) == trial_seed(1, 2)
