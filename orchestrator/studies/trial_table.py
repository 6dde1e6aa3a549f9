"""The ended trials of a study as one array: TPE looks at all of them for each draw, and a long study has thousands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe.sampler import _split_complete_trials_multi_objective
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # those that TPE learns from
FIRST_ROWS = 256
KIND, FIRST_KEY, SECOND_KEY = range(3)  # columns beside those of the parameters
COMPLETE, PRUNED, INFEASIBLE = range(3)  # kinds, in the order in which TPE prefers them
_tables: WeakKeyDictionary[Study, TrialTable] = WeakKeyDictionary()


class TrialTable:
    """What TPE needs of each ended trial, read from it once: such a trial never changes.

    Args:
        study: the study.
    """

    def __init__(self, study: Study) -> None:
        self._directions = study.directions
        self._cells = np.full((FIRST_ROWS, 3), math.nan)
        self._columns: dict[str, int] = {}  # of parameters
        self._rows: dict[int, int] = {}  # by the id of the trial
        self._groups: dict[tuple[str, ...], tuple[int, dict[str, BaseDistribution]]] = {}

    @classmethod
    def of(cls, study: Study) -> TrialTable:
        """Return the one table of a study."""
        return _tables.setdefault(study, cls(study))

    def rows(self, trials: Sequence[FrozenTrial]) -> NDArray[np.intp]:
        """Return where trials stand in the table; those that are new are entered.

        Args:
            trials: complete or pruned ones.
        """
        known = self._rows
        for trial in trials:
            if trial._trial_id not in known:
                self._enter(trial)
        return np.fromiter((known[trial._trial_id] for trial in trials), np.intp, len(trials))

    def best(self, study: Study, trials: Sequence[FrozenTrial], rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        """Return the positions of the best trials, as Optuna's TPE splits them.

        Complete ones come first, by value or by non-domination rank; then pruned ones, the furthest first; then those
        that break a constraint, the least infeasible first.

        Args:
            study: the study.
            trials: complete or pruned ones, by number.
            rows: where they stand.
            count: how many.
        """
        cells = self._cells[rows]
        found: list[NDArray[np.intp]] = []
        for kind in (COMPLETE, PRUNED, INFEASIBLE):
            group = np.flatnonzero(cells[:, KIND] == kind)
            some = min(count, len(group))
            if kind == COMPLETE and len(self._directions) > 1:
                complete = [trial for trial, of in zip(trials, cells[:, KIND], strict=True) if of == COMPLETE]
                chosen, _ = _split_complete_trials_multi_objective(complete, study, some)
                ids = {trial._trial_id for trial in chosen}
                found.append(group[[trial._trial_id in ids for trial in complete]])
            else:
                order = np.lexsort((cells[group, SECOND_KEY], cells[group, FIRST_KEY]))
                found.append(group[order[:some]])
            count -= some
        return np.concatenate(found)

    def parameters(self, rows: NDArray[np.intp], names: Iterable[str]) -> NDArray[np.float64]:
        """Return `[N, P]` parameters of trials in Optuna's internal form, NaN where a trial lacks one.

        Args:
            rows: where they stand.
            names: of `P` parameters.
        """
        missing = np.full(len(rows), math.nan)
        columns = [self._cells[rows, self._columns[name]] if name in self._columns else missing for name in names]
        return np.column_stack(columns)

    def groups(self, trials: Sequence[FrozenTrial]) -> list[dict[str, BaseDistribution]]:
        """Return the parameters of one trial of each kind: which occur together. The order is that of first numbers.

        Args:
            trials: all that are complete or pruned.
        """
        self.rows(trials)
        return [space for _, space in sorted(self._groups.values(), key=lambda group: group[0])]

    def _enter(self, trial: FrozenTrial) -> None:
        row = self._rows[trial._trial_id] = len(self._rows)
        if row == len(self._cells):
            self._cells = np.concatenate([self._cells, np.full_like(self._cells, math.nan)])
        for name, distribution in trial.distributions.items():
            if name not in self._columns:
                self._columns[name] = self._cells.shape[1]
                self._cells = np.column_stack([self._cells, np.full(len(self._cells), math.nan)])
            self._cells[row, self._columns[name]] = distribution.to_internal_repr(trial.params[name])
        self._cells[row, [KIND, FIRST_KEY, SECOND_KEY]] = self._order(trial)
        names = tuple(trial.distributions)
        first, space = self._groups.get(names, (trial.number, trial.distributions))
        self._groups[names] = (trial.number, trial.distributions) if trial.number < first else (first, space)

    def _order(self, trial: FrozenTrial) -> tuple[int, float, float]:
        """Return the kind of a trial and the two keys by which those of one kind are ordered, best first."""
        infeasible = sum(value for value in trial.constraints.values() if value > 0)
        if infeasible > 0:
            return INFEASIBLE, 0.0, infeasible
        sign = -1.0 if self._directions[0] is StudyDirection.MAXIMIZE else 1.0
        if trial.state is TrialState.COMPLETE:
            return COMPLETE, 0.0, sign * trial.values[0]
        if not trial.intermediate_values:
            return PRUNED, 1.0, 0.0
        step, value = max(trial.intermediate_values.items())
        return PRUNED, float(-step), math.inf if math.isnan(value) else sign * value
