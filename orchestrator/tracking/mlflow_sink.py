"""MLflow as a sink: experiment = space, parent run = study, child run = trial, steps = epochs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from configs.problems import mask_credentials
from orchestrator.reading.views import StudyView
from orchestrator.storage.tables import StudyState
from orchestrator.tracking.sinks import DeliveryRefusedError, EpochMetrics, TrialFacts

METRICS_PER_BATCH = 1000  # MLflow takes no more in one request
LONGEST_PARAM = 6000
PARENT = "mlflow.parentRunId"
STUDY_KEY = "spikebench.study_key"
TRIAL = "spikebench.trial"
FINAL = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST"}
TIMEOUT_SECONDS = "10"
# Run to the thread that measures the machine; it outlives a sink that is opened again after trouble.
_MONITORS: dict[str, Any] = {}


class MlflowSink:
    """Deliver one study, or one run, to MLflow.

    Args:
        uri: tracking URI: a database URL or a server's address.
        experiment: name of the experiment; None takes the space's or the run's.
        note: told once when files cannot be stored.
        system_metrics: measure this machine too, on the study's run or on the one run.
    """

    name = "mlflow"
    service = "MLflow"

    def __init__(
        self, uri: str, experiment: str | None, note: Callable[[str], None], *, system_metrics: bool = False
    ) -> None:
        _tame_mlflow()
        from mlflow import MlflowClient  # noqa: PLC0415 - a second to import, and it reads the environment set above

        _tame_loggers()
        self._uri = uri
        self._named = experiment
        self._system_metrics = system_metrics
        if (folder := _folder_of(uri)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=uri)
        self._note = note
        self._experiment = ""
        self._parent = ""
        self._study: StudyView | None = None
        self._orphans: dict[int, str] = {}
        self._artifacts = True

    def open_study(self, study: StudyView) -> None:
        """Find or make experiment and parent run."""
        self._study = study
        self._experiment = self._experiment_id(self._named or study.space)
        # A study of the same name in another database is another study.
        key = f"{study.name}@{study.created_at:.3f}"
        found = next(self._runs(f"tags.`{STUDY_KEY}` = '{_quoted(key)}'"), None)
        if found is None:
            tags = {
                STUDY_KEY: key,
                "spikebench.study": study.name,
                "spikebench.space_hash": study.space_hash,
                "spikebench.seed": str(study.seed),
                "spikebench.budget_trials": str(study.budget),
            }
            found = self._client.create_run(
                self._experiment, start_time=_milliseconds(study.created_at), tags=tags, run_name=study.name
            )
        self._parent = str(found.info.run_id)
        self._client.update_run(self._parent, status="RUNNING")
        self._watch(self._parent)
        children = self._runs(f"tags.`{PARENT}` = '{self._parent}'")
        self._orphans = {int(run.data.tags[TRIAL]): run.info.run_id for run in children if TRIAL in run.data.tags}

    def open_alone(self, name: str) -> None:
        """Find or make the experiment."""
        self._experiment = self._experiment_id(self._named or name)

    def open_trial(self, trial: TrialFacts, run_id: str | None) -> str:
        """Find or make the trial's run, a child of the study's if there is one."""
        run_id = run_id or self._orphans.get(trial.number)
        if run_id is not None:
            self._try(self._client.update_run, run_id, status="RUNNING")
            if self._study is None:
                self._watch(run_id)
            return run_id
        tags = {"spikebench.config_hash": trial.config_hash, "spikebench.run_dir": trial.run_dir}
        if self._study is not None:
            tags |= {PARENT: self._parent, TRIAL: str(trial.number), "spikebench.study": self._study.name}
        run = self._try(
            self._client.create_run,
            self._experiment,
            start_time=_milliseconds(trial.started_at),
            tags=tags,
            run_name=trial.name,
        )
        run_id = str(run.info.run_id)
        self._log_params(run_id, trial.params)
        self._store(self._client.log_dict, run_id, trial.config or {}, "config.yaml")
        if self._study is None:
            self._watch(run_id)
        return run_id

    def log(self, run_id: str, epochs: Sequence[EpochMetrics]) -> None:
        """Send epochs, one request each, or several epochs in a request when much is to be made up for."""
        from mlflow.entities import Metric  # noqa: PLC0415

        batch: list[Any] = []
        for epoch in epochs:
            when = _milliseconds(epoch.reported_at)
            entries = [Metric(name, value, when, epoch.epoch) for name, value in epoch.metrics.items()]
            if batch and len(batch) + len(entries) > METRICS_PER_BATCH:
                self._send(run_id, batch)
                batch = []
            batch += entries
        self._send(run_id, batch)

    def close_trial(self, run_id: str, trial: TrialFacts) -> None:
        """Set status and end reason; an interrupted trial is KILLED until it goes on."""
        if self._study is None:
            self._unwatch(run_id)
        if trial.end_reason is None:
            self._try(self._client.set_terminated, run_id, status="KILLED")
            return
        self._try(self._client.set_tag, run_id, "spikebench.end_reason", trial.end_reason)
        self._try(self._client.set_tag, run_id, "spikebench.attempts", str(trial.attempt))
        end = None if trial.ended_at is None else _milliseconds(trial.ended_at)
        self._try(self._client.set_terminated, run_id, status="FAILED" if trial.failed else "FINISHED", end_time=end)

    def close_study(self, state: str, report: Path | None) -> None:
        """Store the report and set the status of the parent run."""
        if report is not None:
            self._store(self._client.log_artifact, self._parent, str(report))
        self._unwatch(self._parent)
        status = "FINISHED" if state == StudyState.COMPLETE else "KILLED"
        self._try(self._client.set_terminated, self._parent, status=status, end_time=_milliseconds(time.time()))

    def _watch(self, run_id: str) -> None:
        """Have MLflow measure this machine, its GPUs among it, from a thread of its own while the run is RUNNING."""
        there = _MONITORS.get(run_id)
        if not self._system_metrics or (there is not None and there._process is not None and there._process.is_alive()):
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415

        _MONITORS[run_id] = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self._uri)
        _MONITORS[run_id].start()

    def _unwatch(self, run_id: str) -> None:
        if (monitor := _MONITORS.pop(run_id, None)) is not None:
            monitor.finish()

    def _send(self, run_id: str, batch: list[Any]) -> None:
        for start in range(0, len(batch), METRICS_PER_BATCH):
            self._try(self._client.log_batch, run_id, metrics=batch[start : start + METRICS_PER_BATCH])

    def _log_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        entries = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        for start in range(0, len(entries), 100):
            self._try(self._client.log_batch, run_id, params=entries[start : start + 100])

    def _store(self, action: Callable[..., Any], *args: Any) -> None:
        """Store a file; a server without an artifact store is no reason to lose the numbers."""
        if not self._artifacts:
            return
        try:
            action(*args)
        except Exception as error:  # whatever the artifact store's library raises
            self._artifacts = False
            self._note(f"MLflow stores no artifacts ({first_words(error)}); numbers are delivered all the same")

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifact_location(self._uri, name)))

    def _runs(self, condition: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            return action(*args, **kwargs)
        except MlflowException as error:
            if error.error_code in FINAL:
                raise DeliveryRefusedError(first_words(error)) from error
            raise


def artifact_location(uri: str, experiment: str) -> str | None:
    """Return the artifact folder for an experiment: beside an SQLite file; a server has its own."""
    folder = _folder_of(uri)
    return None if folder is None else (folder / "mlartifacts" / experiment).as_uri()


def _folder_of(uri: str) -> Path | None:
    """Return the folder of an SQLite file, or None for anything else."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).resolve().parent


def first_words(error: BaseException) -> str:
    """Return the first line of an error, short and without passwords."""
    return mask_credentials(next(iter(str(error).strip().splitlines()), type(error).__name__))[:120]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _quoted(text: str) -> str:
    return text.replace("'", "")


def _tame_mlflow() -> None:
    """Set what MLflow reads at import: short waits (our own loop tries again), no reports to its makers, no words."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _tame_loggers() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
