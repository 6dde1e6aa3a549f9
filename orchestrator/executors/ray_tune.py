"""Ray Tune's searcher, scheduler and stopper over the job table: Tune places carriers, the table says how many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from orchestrator.executors.ray_fleet import Fleet


class _Unsaved:
    """What Tune wants to save is left out, because nothing is ever restored: everything is in the job table."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class JobSearcher(_Unsaved, Searcher):  # type: ignore[misc]
    """Suggest a carrier when more jobs wait than carriers are free, and be finished with the study.

    Args:
        fleet: knows the job table.
        config: what each carrier is told.
    """

    def __init__(self, fleet: Fleet, config: dict[str, Any]) -> None:
        super().__init__()
        self._fleet = fleet
        self._config = config

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of another carrier, None while none is needed, or FINISHED."""
        if self._fleet.over():
            return str(Searcher.FINISHED)
        if not self._fleet.wants_another():
            return None
        self._fleet.joins(trial_id)
        return dict(self._config)

    @override
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take a carrier that has ended out of the fleet; `CarrierNotes` deals with those that died."""
        if not error:
            self._fleet.ends(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class JobScheduler(_Unsaved, FIFOScheduler):  # type: ignore[misc]
    """Let carriers go on for as long as the study needs them.

    Which of the study's trials stops early is the controller's decision: it stands in the job's row, from where the
    worker that the carrier runs reads it.

    Args:
        fleet: knows the job table.
        rang: is called when a trial has ended.
    """

    def __init__(self, fleet: Fleet, rang: Callable[[], None]) -> None:
        super().__init__()
        self._fleet = fleet
        self._rang = rang
        self._ended: dict[str, int] = {}

    @override
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a carrier goes on."""
        if problem := result.get("problem"):
            self._fleet.refuses(problem)
            return str(self.STOP)
        if result["trials_ended"] > self._ended.get(trial.trial_id, 0):
            self._ended[trial.trial_id] = result["trials_ended"]
            self._rang()
        if not result["worker"]:  # it has not opened the database yet
            return str(self.CONTINUE)
        return str(self.CONTINUE if self._fleet.hears(trial.trial_id, result["worker"]) else self.STOP)


class CarrierNotes(_Unsaved, Callback):  # type: ignore[misc]
    """Tell the fleet which carriers have got their resources and which have died.

    Args:
        fleet: knows the job table.
        rang: is called when a carrier has died.
    """

    def __init__(self, fleet: Fleet, rang: Callable[[], None]) -> None:
        super().__init__()
        self._fleet = fleet
        self._rang = rang

    @override
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note one that works."""
        self._fleet.starts(trial.trial_id)

    @override
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Give the job of one that died back."""
        lines = str(trial.get_error() or "it died").strip().splitlines()
        self._fleet.dies(trial.trial_id, lines[-1].strip())
        self._rang()


class JobStopper(_Unsaved, Stopper):  # type: ignore[misc]
    """End Tune once every carrier has ended; those that still wait for resources are not waited for.

    Args:
        fleet: knows the job table.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single carriers to the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the work is over."""
        return self._fleet.over()
