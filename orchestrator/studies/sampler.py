"""Optuna samplers, seeded anew for every trial from the study's seed and the trial's number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.studies.trial_table import ENDED, TrialTable
from search_spaces.space import Sampler

CELLS = 160_000  # numbers in a table of candidates x trials x parameters; such a table has 1.3 MB
LEAST_CANDIDATES = 4  # each part costs something of its own


class LongStudyTPESampler(TPESampler):
    """TPE that draws what Optuna's draws, with less work per earlier trial; a long study has thousands of them.

    Args:
        options: those of `optuna.samplers.TPESampler`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self._group_decomposed_search_space is not None:
            self._group_decomposed_search_space = _DistinctSpaces(include_pruned=True)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Draw parameters that occur together; running trials count as bad ones if the sampler is a constant liar."""
        table = TrialTable.of(study)
        ended: list[FrozenTrial] = []
        running: list[tuple[int, list[float]]] = []  # how many ended trials come before it, its parameters
        states = (*ENDED, TrialState.RUNNING) if self._constant_liar else ENDED
        for other in study._get_trials(deepcopy=False, states=states):
            if other.state is not TrialState.RUNNING:
                ended.append(other)
            elif other._trial_id != trial._trial_id:
                params = self._get_params(other, study)
                if search_space.keys() <= params.keys():
                    row = [space.to_internal_repr(params[name]) for name, space in search_space.items()]
                    running.append((len(ended), row))
        several = len(study.directions) > 1
        self._gamma = self._gamma or (default_gamma_multiobjective if several else default_gamma)
        values = table.parameters(ended, search_space)
        complete = ~np.isnan(values).any(axis=1)
        good = np.zeros(len(ended), dtype=bool)
        good[table.best(study, ended, self._gamma(len(ended)))] = True
        good, bad = good & complete, ~good & complete
        rest = values[bad]
        if running:
            before, rows = zip(*running, strict=True)
            rest = np.insert(rest, [np.count_nonzero(bad[:count]) for count in before], rows, axis=0)
        below = self._estimator(values[good], search_space, np.ones(np.count_nonzero(good)) if several else None)
        above = self._estimator(rest, search_space)
        samples = below.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(samples, self._compute_acquisition_func(samples, below, above))
        return {name: space.to_external_repr(chosen[name]) for name, space in search_space.items()}

    def _estimator(
        self, values: np.ndarray, search_space: dict[str, BaseDistribution], weights: np.ndarray | None = None
    ) -> _ParzenEstimator:
        observations = dict(zip(search_space, values.T, strict=True))
        return self._parzen_estimator_cls(observations, search_space, self._parzen_estimator_parameters, weights)

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
        trials = study._get_trials(deepcopy=False, states=ENDED, use_cache=use_cache)
        groups = _SearchSpaceGroup()
        for distributions in TrialTable.of(study).groups(trials):
            groups.add_distributions(distributions)
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
