"""How much each parameter mattered for each objective (PED-ANOVA, Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from orchestrator.reading.history import StudyHistory
from orchestrator.reading.views import Parameter, spread

FEWEST_TRIALS = 4
MOST_TRIALS = 4000  # more add seconds and no knowledge; taken evenly over the study


def importances(history: StudyHistory) -> dict[str, dict[str, float]]:
    """Return for each objective the share of every parameter in reaching its best tenth of values.

    Args:
        history: the study.

    Returns:
        Metric -> parameter -> share, largest first, adding up to 1. An objective is left out when fewer than four
        trials have finished or the parameters cannot be told apart.
    """
    trials = spread(history.finished, MOST_TRIALS)
    if len(trials) < FEWEST_TRIALS:
        return {}
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in history.study.directions]
    distributions = {parameter.key: distribution(parameter) for parameter in history.study.parameters}
    shares = {}
    try:
        study = _quiet_study(len(signs))
        for trial in trials:
            shapes = {key: shape for key, shape in distributions.items() if key in trial.params}
            params = {key: trial.params[key] for key in shapes}
            losses = [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]
            study.add_trial(create_trial(params=params, distributions=shapes, values=losses))
        for index, objective in enumerate(history.study.objectives):
            if found := _shares(study, index):
                shares[objective.metric] = found
    except ValueError:  # a value outside its range: the stored space is not the one these trials were drawn from
        return {}
    return shares


def _shares(study: optuna.Study, objective: int) -> dict[str, float]:
    def loss(trial: FrozenTrial) -> float:
        return float(trial.values[objective])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it always recalls that low is good, and when a condition holds few trials
        raw = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=loss, normalize=False)
    total = math.fsum(raw.values())
    return {key: share / total for key, share in raw.items()} if math.isfinite(total) and total > 0 else {}


def _quiet_study(objectives: int) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["minimize"] * objectives)
    finally:
        optuna.logging.set_verbosity(verbosity)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter's range in Optuna's terms."""
    if parameter.kind == "categorical":
        choices: Any = parameter.choices
        return CategoricalDistribution(choices)
    if parameter.kind == "int":
        return IntDistribution(
            int(parameter.low), int(parameter.high), log=parameter.log, step=int(parameter.step or 1)
        )
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
