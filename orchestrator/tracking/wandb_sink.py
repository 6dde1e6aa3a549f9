"""Weights & Biases as a sink: group = study, run = trial, steps = epochs."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestrator.reading.views import StudyView
from orchestrator.tracking.sinks import EpochMetrics, TrialFacts

INIT_SECONDS = 10.0  # our own loop tries again
EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 255  # W&B shows a run by the status it ends with


class WandbSink:
    """Deliver runs to Weights & Biases.

    Args:
        project: the W&B project.
        folder: where W&B keeps its files, in a folder `wandb`.
        offline: only write these files.
    """

    name = "wandb"
    service = "W&B"

    def __init__(self, project: str, folder: Path, *, offline: bool) -> None:
        _tame_wandb()
        import wandb  # noqa: PLC0415 - an extra, and it reads the environment set above

        logging.getLogger("wandb").setLevel(logging.CRITICAL)
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._project = project
        self._folder = folder
        self._offline = offline
        self._group: str | None = None
        self._key = ""
        self._runs: dict[str, Any] = {}

    def open_study(self, study: StudyView) -> None:
        """Let the study's name be the group of its trials."""
        self._group = study.name
        # A study of the same name in another database is another study.
        self._key = f"{study.name}@{study.created_at:.3f}"

    def open_alone(self, name: str) -> None:
        """Do nothing: a single run stands in the project itself."""

    def open_trial(self, trial: TrialFacts, run_id: str | None) -> str:
        """Open the trial's run, or go on with it."""
        run_id = run_id or self._new_id(trial)
        # Where numbers go is not what they are, and an address may hold a password.
        config = {key: value for key, value in (trial.config or {}).items() if key != "tracking"}
        self._runs[run_id] = self._wandb.init(
            project=self._project,
            group=self._group,
            id=run_id,
            name=trial.name,
            config=config or None,
            dir=str(self._folder),
            resume=None if self._offline else "allow",  # offline there is nobody to ask; the id is kept all the same
            reinit="create_new",
            settings=self._settings(),
        )
        return run_id

    def log(self, run_id: str, epochs: Sequence[EpochMetrics]) -> None:
        """Log epochs, one call each; W&B drops a step that it has already."""
        for epoch in epochs:
            entry = {**epoch.metrics, "_timestamp": epoch.reported_at}
            self._runs[run_id].log(entry, step=epoch.epoch, commit=True)

    def close_trial(self, run_id: str, trial: TrialFacts) -> None:
        """Note the end reason and finish the run; an interrupted one goes on under its id."""
        run = self._runs.pop(run_id, None)
        if run is None:  # opened by an earlier process, which has ended it
            return
        if trial.end_reason is None:
            run.finish(exit_code=EXIT_INTERRUPTED)
            return
        run.summary.update({"end_reason": trial.end_reason, "attempts": trial.attempt})
        run.finish(exit_code=EXIT_FAILED if trial.failed else EXIT_OK)

    def close_study(self, state: str, report: Path | None) -> None:
        """Do nothing: a group has neither a state nor files."""

    def _new_id(self, trial: TrialFacts) -> str:
        if not self._key:
            return uuid4().hex[:12]
        return hashlib.sha256(f"{self._key}/{trial.number}".encode()).hexdigest()[:12]

    def _settings(self) -> Any:
        return self._wandb.Settings(
            mode="offline" if self._offline else "online",
            silent=True,
            console="off",
            init_timeout=INIT_SECONDS,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
        )


def _tame_wandb() -> None:
    """Set what W&B reads: no words on the terminal, no questions, no reports to its makers, no command line."""
    del sys.argv[1:]  # W&B stores it, and it may hold a password; this process is for delivery alone
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
