from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.studies import sampler
from orchestrator.studies.sampler import LongStudyTPESampler, trial_seed

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "width": IntDistribution(1, 64, log=True),
    "kind": CategoricalDistribution(("adam", "sgd")),
    "last": FloatDistribution(0.0, 1.0, step=0.1),
}
CONTINUOUS = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "width": FloatDistribution(1.0, 64.0, log=True),
    "last": FloatDistribution(0.0, 1.0),
}


def draw(
    kind: type[TPESampler], distributions: dict[str, BaseDistribution], objectives: int, ends: str
) -> list[dict[str, Any]]:
    """Draw five trials after 200 random ones, of which every other one lacks a parameter.

    Args:
        kind: what draws them.
        distributions: of the parameters.
        objectives: how many.
        ends: how the random ones end, in turn: c(omplete), i(nfeasible), p(runed), P(runed with a curve), r(uns on),
            f(ails).
    """
    study = optuna.create_study(directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives])

    def tell(number: int, sampler: BaseSampler, end: str) -> dict[str, Any]:
        study.sampler = sampler
        left_out = "last" if number % 2 else ""
        trial = study.ask({name: space for name, space in distributions.items() if name != left_out})
        params = trial.params
        values = [params["rate"] - params["share"] ** 2 + params["width"] / 64, params["share"]][:objectives]
        if end == "i":
            trial.set_constraint("limit", 0.1 + abs(values[-1]))
        if end == "P":
            for step in range(number % 5):
                trial.report(math.nan if step == 3 else values[0], step)
        if end in "cif":
            study.tell(trial, *([None, TrialState.FAIL] if end == "f" else [values]))
        elif end in "pP":
            study.tell(trial, state=TrialState.PRUNED)
        return params

    with experimental_allowed():
        for number in range(200):
            tell(number, RandomSampler(seed=number), ends[number % len(ends)])
        options = {"multivariate": True, "group": True, "constant_liar": True}
        return [tell(number, kind(seed=number, **options), "c") for number in range(200, 205)]


CASES = [
    (1, "c"), (2, "c"), (1, "cri"), (2, "cri"), (1, "cPf"), (1, "ccpP"), (2, "cpif"), (1, "P"), (1, "i"), (2, "pr"),
]  # fmt: skip


@pytest.mark.parametrize("space", [DISTRIBUTIONS, CONTINUOUS], ids=["mixed", "continuous"])
@pytest.mark.parametrize(("objectives", "ends"), CASES)
def test_a_long_study_draws_what_optuna_draws(
    space: dict[str, BaseDistribution], objectives: int, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "CELLS", 6000)  # so that the candidates are weighed in several parts
    drawn = draw(LongStudyTPESampler, space, objectives, ends)
    assert drawn == draw(TPESampler, space, objectives, ends)
    assert len({str(params) for params in drawn}) == 5


def test_every_trial_has_a_seed_of_its_own() -> None:
    seeds = {trial_seed(study, number) for study in range(3) for number in range(1000)}
    assert len(seeds) == 3000
    assert trial_seed(1, 2) == trial_seed(1, 2)
