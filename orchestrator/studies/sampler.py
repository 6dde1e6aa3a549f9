"""Optuna samplers, seeded anew for every trial from the study's seed and the trial's number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestrator.storage.optuna_noise import experimental_allowed
from search_spaces.space import Sampler

CELLS = 160_000  # numbers in a table of candidates x trials x parameters; such a table has 1.3 MB
LEAST_CANDIDATES = 4  # each part costs something of its own
_numbers: WeakKeyDictionary[Study, dict[int, dict[str, float]]] = WeakKeyDictionary()  # of finished trials, by id


class LongStudyTPESampler(TPESampler):
    """TPE that draws what Optuna's draws, with less work per earlier trial; a long study has thousands of them.

    Args:
        options: those of `optuna.samplers.TPESampler`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self._group_decomposed_search_space is not None:
            self._group_decomposed_search_space = _DistinctSpaces(include_pruned=True)

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        """Return each parameter's values as numbers; those of a finished trial are computed once per study."""
        known = _numbers.setdefault(study, {})
        rows = [known.get(trial._trial_id) or self._row(trial, search_space, study, known) for trial in trials]
        try:
            return {name: np.asarray([row[name] for row in rows]) for name in search_space}
        except KeyError:  # some trials lack a parameter
            complete = [row for row in rows if search_space.keys() <= row.keys()]
            return {name: np.asarray([row[name] for row in complete]) for name in search_space}

    def _row(
        self,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        study: Study,
        known: dict[int, dict[str, float]],
    ) -> dict[str, float]:
        if trial.state.is_finished():
            spaces = trial.distributions
            row = known[trial._trial_id] = {name: spaces[name].to_internal_repr(trial.params[name]) for name in spaces}
            return row
        params = self._get_params(trial, study)
        return {name: space.to_internal_repr(params[name]) for name, space in search_space.items() if name in params}

    def _compute_acquisition_func(
        self, samples: dict[str, np.ndarray], mpe_below: _ParzenEstimator, mpe_above: _ParzenEstimator
    ) -> np.ndarray:
        """Weigh a few candidates at a time: each is compared with every trial, and all at once outgrow the caches."""
        trials = len(mpe_above._mixture_distribution.weights)
        few = max(LEAST_CANDIDATES, CELLS // (trials * len(samples)))
        candidates = len(next(iter(samples.values())))
        parts = [
            {name: values[start : start + few] for name, values in samples.items()}
            for start in range(0, candidates, few)
        ]
        weigh = super()._compute_acquisition_func
        return np.concatenate([weigh(part, mpe_below, mpe_above) for part in parts])


class _DistinctSpaces(_GroupDecomposedSearchSpace):
    """Groups of parameters that occur together, found from one trial of each kind: more of a kind change nothing."""

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        groups = _SearchSpaceGroup()
        seen = set()
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        for trial in study._get_trials(deepcopy=False, states=states, use_cache=use_cache):
            names = tuple(trial.distributions)
            if names not in seen:
                seen.add(names)
                groups.add_distributions(trial.distributions)
        return groups


MAKERS: dict[str, Callable[[Sampler, int, int], BaseSampler]] = {
    # name: (the space's section, seed of this trial, seed of the study) -> sampler
    "tpe": lambda section, seed, _: LongStudyTPESampler(
        seed=seed, n_startup_trials=section.startup_trials, multivariate=True, group=True, constant_liar=True
    ),
    "random": lambda _, seed, __: RandomSampler(seed=seed),
    "nsga2": lambda _, seed, __: NSGAIISampler(seed=seed),
    "qmc": lambda _, __, study_seed: QMCSampler(seed=study_seed, scramble=True),  # one sequence for the whole study
    "gp": lambda section, seed, _: GPSampler(seed=seed, n_startup_trials=section.startup_trials),
}


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of one trial's draws.

    A sampler that is built with the study's own seed after a restart would repeat its first draws.
    """
    digest = hashlib.sha256(f"{study_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def make_sampler(section: Sampler, study_seed: int, number: int) -> BaseSampler:
    """Build the sampler that draws the parameters of one trial.

    Args:
        section: the `sampler` section of the space.
        study_seed: seed of the study.
        number: number of the trial that is drawn.
    """
    with experimental_allowed():
        return MAKERS[section.name](section, trial_seed(study_seed, number), study_seed)
