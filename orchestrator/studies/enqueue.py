"""Queue parameters that a person chose, in Optuna's own queue: whoever asks next takes them before the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from orchestrator.storage.database import Database
from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.storage.study import optuna_storage
from orchestrator.storage.tables import StudyRow


@dataclass(frozen=True, slots=True)
class Queued:
    """Parameters that wait to be tried.

    Args:
        number: number of the trial they will be.
        missing: by how many trials the study's budget is too small for all that is queued.
    """

    number: int
    missing: int


def enqueue(database: Database, study: StudyRow, params: Mapping[str, Any]) -> Queued:
    """Queue parameters for a study, also while nobody runs it.

    Args:
        database: an open database.
        study: the study.
        params: of `read_assignments`; parameters that are not in it are sampled.
    """
    storage = optuna_storage(database)
    try:
        with experimental_allowed():
            record = optuna.load_study(study_name=study.name, storage=storage)
            record.enqueue_trial(dict(params))
        trials = record.get_trials(deepcopy=False)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    number = max(trial.number for trial in trials if trial.state is TrialState.WAITING)
    return Queued(number, max(0, len(trials) - study.budget_trials))
