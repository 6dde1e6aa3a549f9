"""Optuna samplers, seeded anew for every trial from the study's seed and the trial's number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import (
    _BatchedTruncLogNormDistributions,
    _BatchedTruncNormDistributions,
)
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.studies.trial_table import ENDED, TrialTable
from search_spaces.space import Sampler

CELLS = 160_000  # numbers in a table of candidates x trials x parameters; such a table has 1.3 MB
CONTINUOUS = (_BatchedTruncNormDistributions, _BatchedTruncLogNormDistributions)
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
        rows = table.rows(ended)
        values = table.parameters(rows, search_space)
        complete = ~np.isnan(values).any(axis=1)
        good = np.zeros(len(ended), dtype=bool)
        good[table.best(study, ended, rows, self._gamma(len(ended)))] = True
        good, bad = good & complete, ~good & complete
        rest = values[bad]
        if running:
            places = [np.count_nonzero(bad[:before]) for before, _ in running]
            rest = np.insert(rest, places, [row for _, row in running], axis=0)
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
        if all(isinstance(part, CONTINUOUS) for part in mpe_above._mixture_distribution.distributions):
            better: np.ndarray = _log_density(mpe_below, samples, few) - _log_density(mpe_above, samples, few)
            return better
        candidates = len(next(iter(samples.values())))
        parts = [
            {name: values[start : start + few] for name, values in samples.items()}
            for start in range(0, candidates, few)
        ]
        weigh = super()._compute_acquisition_func
        return np.concatenate([weigh(part, mpe_below, mpe_above) for part in parts])


def _log_density(estimator: _ParzenEstimator, samples: dict[str, np.ndarray], few: int) -> np.ndarray:
    """Return `[C]` logarithms of the density at the candidates, as Optuna does for continuous parameters.

    What does not depend on the candidates is computed once. None lies outside the range they were drawn from, so
    Optuna's test for that is left out; all numbers are the same to the last bit.

    Args:
        estimator: a mixture of normal distributions, cut off at the ends of the parameters' ranges.
        samples: `[C]` values of each of the `P` parameters.
        few: candidates at a time.
    """
    mixture = estimator._mixture_distribution
    continuous = cast("list[_BatchedTruncNormDistributions]", mixture.distributions)
    of = list(zip(samples.values(), continuous, strict=True))
    points = np.column_stack([np.log(values) if part.is_log else values for values, part in of])  # [C, P]
    centres = np.column_stack([part.mu for _, part in of])  # [N, P]
    widths = np.column_stack([part.sigma for _, part in of])
    lows, highs = (np.array([getattr(part, end) for _, part in of]) for end in ("adapted_low", "adapted_high"))
    inside = _truncnorm._log_gauss_mass((lows - centres) / widths, (highs - centres) / widths)
    logs, weights = np.log(widths), np.log(mixture.weights)
    found = []
    for start in range(0, len(points), few):
        each = points[start : start + few, np.newaxis, :] - centres  # [few, N, P]
        each /= widths
        each *= each
        each /= -2.0
        each -= _truncnorm._norm_pdf_logC
        each -= inside
        each -= logs
        of_trials = each.sum(axis=-1) + weights
        most = of_trials.max(axis=1)
        found.append(np.log(np.exp(of_trials - most[:, np.newaxis]).sum(axis=1)) + most)
    return np.concatenate(found)


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
