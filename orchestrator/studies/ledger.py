"""Optuna's record of one study, held in memory; what changes goes to Optuna's tables in one transaction.

Optuna's own storage commits every parameter, attribute and value by itself, 3 to 6 ms each. The controller alone asks
and tells, so it can keep the record here, let Optuna work on it, and write a whole trial at once, with its job.
"""

# ruff: noqa: ARG002 - the arguments are those of Optuna's storages, which hold several studies

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from orchestrator.errors import OrchestratorError
from orchestrator.storage.optuna_rows import OptunaRows, insert_trial, lock_study, newer_trials, update_states


class ForeignTrialError(OrchestratorError):
    """Another process has added a trial to the study; nothing was written."""


class _Record(FrozenTrial):
    """A copy of a trial that looks its constraints up once: for each new trial a sampler asks every one for them."""

    __slots__ = ("_looked_up",)  # beside the attributes by which trials are compared

    def __init__(self, trial: FrozenTrial) -> None:
        self.__dict__.update(trial.__dict__)

    @property
    def constraints(self) -> dict[str, float]:
        """What was set; the trial is feasible when none is above zero."""
        try:
            return self._looked_up
        except AttributeError:
            self._looked_up: dict[str, float] = super().constraints
            return self._looked_up


class Ledger(BaseStorage):
    """An Optuna storage of one study that writes only when told to.

    A new trial has a negative id until it is written.

    Args:
        storage: Optuna's connections to the database.
        study_id: Optuna's id of the study.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._name = storage.get_study_name_from_id(study_id)
        self._directions = storage.get_study_directions(study_id)
        self.reload()

    # --- what the controller uses ---------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the whole study anew and forget whatever was not written."""
        self._trials: list[FrozenTrial] = []
        self._position: dict[int, int] = {}
        self._waiting: set[int] = set()
        self._distributions: dict[str, BaseDistribution] = {}
        self._newest_id = 0
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            self._add(trial)
        self._user_attrs = self._storage.get_study_user_attrs(self._study_id)
        self._system_attrs = self._storage.get_study_system_attrs(self._study_id)
        self._forget_changes()

    @property
    def asked(self) -> int:
        """Trials that were asked so far; enqueued ones that still wait are not counted."""
        return len(self._trials) - len(self._waiting)

    @property
    def next_number(self) -> int:
        """Number of the trial that will be asked next."""
        if self._waiting:
            return min(self._position[trial_id] for trial_id in self._waiting)
        return len(self._trials)

    def notice(self, connection: Connection) -> None:
        """Take in the trials that other processes have enqueued since."""
        for trial_id in newer_trials(connection, self._study_id, self._newest_id):
            self._add(self._storage.get_trial(trial_id))

    def write(self, connection: Connection) -> dict[int, int]:
        """Write all that changed; safe to run again until `written` is called.

        Args:
            connection: a writing transaction.

        Returns:
            Real ids of the new trials, by the ids they have had so far.

        Raises:
            ForeignTrialError: another process has added a trial, so that the new ones would share its number.
        """
        ids = self._insert_trials(connection)
        update_states(connection, [self._of(trial_id) for trial_id in self._restated])
        self._rows.write(connection, ids)
        return ids

    def written(self, ids: Mapping[int, int]) -> None:
        """Take note that what `write` wrote is committed.

        Args:
            ids: what `write` returned.
        """
        for draft, trial_id in ids.items():
            position = self._position.pop(draft)
            trial = _Record(self._trials[position])
            trial._trial_id = trial_id
            self._trials[position] = trial
            self._position[trial_id] = position
            self._newest_id = max(self._newest_id, trial_id)
        self._forget_changes()

    # --- what Optuna reads ----------------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial; it never changes, a change makes another."""
        return self._of(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials in the given states, by number."""
        if states == (TrialState.WAITING,):
            chosen = [self._trials[position] for position in sorted(self._position[key] for key in self._waiting)]
        else:
            chosen = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Return the id of a trial.

        Raises:
            KeyError: there is no such trial.
        """
        if not 0 <= trial_number < len(self._trials):
            raise KeyError(f"no trial {trial_number} in study '{self._name}'")
        return self._trials[trial_number]._trial_id

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of the one study there is."""
        return self._study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of the one study there is."""
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of each objective."""
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's attributes."""
        return dict(self._user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what samplers have kept beside the trials."""
        return dict(self._system_attrs)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return the one study there is."""
        return [
            FrozenStudy(
                self._name, None, self._user_attrs, self._system_attrs, self._study_id, directions=self._directions
            )
        ]

    # --- what Optuna writes ---------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial that runs and return the id it has until it is written; templates are not for a ledger."""
        if template_trial is not None:
            raise NotImplementedError
        number = len(self._trials)
        trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=-1 - number,
        )
        self._add(trial)
        self._created.append(trial._trial_id)
        return trial._trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter.

        Raises:
            ValueError: earlier trials have the parameter with a distribution of another kind.
        """
        trial = self._changing(trial_id)
        if param_name in self._distributions:
            check_distribution_compatibility(self._distributions[param_name], distribution)
        self._distributions.setdefault(param_name, distribution)
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}
        self._rows.param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set state and objective values; False when a trial that no longer waits shall become RUNNING."""
        if state is TrialState.RUNNING and self._of(trial_id).state is not TrialState.WAITING:
            return False
        trial = self._changing(trial_id)
        trial.state = state
        self._waiting.discard(trial_id)
        if values is not None:
            trial.values = list(values)
            self._rows.values(trial_id, values)
        if state is TrialState.RUNNING:
            trial.datetime_start = datetime.now()
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        if trial_id > 0:
            self._restated[trial_id] = None
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value of one step."""
        trial = self._changing(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}
        self._rows.step(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute that people read."""
        trial = self._changing(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}
        self._rows.user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute that samplers read."""
        trial = self._changing(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}
        self._rows.system_attr(trial_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study that people read."""
        self._user_attrs = {**self._user_attrs, key: value}
        self._rows.study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study that samplers read."""
        self._system_attrs = {**self._system_attrs, key: value}
        self._rows.study_system_attr(study_id, key, value)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Refuse: a ledger is of one study."""
        raise NotImplementedError

    def delete_study(self, study_id: int) -> None:
        """Refuse: a ledger is of one study."""
        raise NotImplementedError

    # --- bookkeeping ----------------------------------------------------------------------------------------------

    def _forget_changes(self) -> None:
        self._created: list[int] = []
        self._restated: dict[int, None] = {}  # written trials whose state changed
        self._rows = OptunaRows()

    def _add(self, trial: FrozenTrial) -> None:
        if trial.number != len(self._trials):
            raise OrchestratorError(
                f"study '{self._name}' has no trial {len(self._trials)} in Optuna's tables, or several: "
                "another program has written there; start a new study with --study NEW_NAME"
            )
        self._position[trial._trial_id] = trial.number
        self._trials.append(_Record(trial))
        self._newest_id = max(self._newest_id, trial._trial_id)
        if trial.state is TrialState.WAITING:
            self._waiting.add(trial._trial_id)
        for name, distribution in trial.distributions.items():
            self._distributions.setdefault(name, distribution)

    def _of(self, trial_id: int) -> FrozenTrial:
        return self._trials[self._position[trial_id]]

    def _changing(self, trial_id: int) -> FrozenTrial:
        """Replace a trial by a copy that may be changed; whoever holds the old one keeps it as it was."""
        trial = _Record(self._of(trial_id))
        self.check_trial_is_updatable(trial_id, trial.state)
        self._trials[trial.number] = trial
        return trial

    def _insert_trials(self, connection: Connection) -> dict[int, int]:
        if not self._created:
            return {}
        lock_study(connection, self._study_id)
        if newer_trials(connection, self._study_id, self._newest_id):
            raise ForeignTrialError(f"another process has added a trial to study '{self._name}'")
        return {draft: insert_trial(connection, self._study_id, self._of(draft)) for draft in self._created}
