"""Optuna samplers, seeded anew for every trial from the study's seed and the trial's number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from orchestrator.optuna_noise import experimental_allowed
from search_spaces.space import Sampler

MAKERS: dict[str, Callable[[Sampler, int, int], BaseSampler]] = {
    # name: (the space's section, seed of this trial, seed of the study) -> sampler
    "tpe": lambda section, seed, _: TPESampler(
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
