from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from seeded import Seeding, seed_study
from sqlalchemy import insert, select, update

from orchestrator.errors import StorageError
from orchestrator.reading.views import StudyView
from orchestrator.storage.database import Database
from orchestrator.storage.tables import EndReason, EpochRow, JobRow, JobState, MetricRow, StudyRow
from orchestrator.tracking.sinks import DeliveryRefusedError, EpochMetrics, TrialFacts
from orchestrator.tracking.targets import MlflowTarget
from orchestrator.tracking.tracking import Courier, deliver_forever, delivery, refuse_shared_database, undelivered


class MemorySink:
    """A sink that keeps everything, and fails when told to."""

    name = "memory"
    service = "Memory"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.epochs: dict[str, list[int]] = defaultdict(list)
        self.metrics: dict[tuple[str, int], dict[str, float]] = {}
        self.ends: dict[str, str | None] = {}
        self.configs: dict[str, Any] = {}
        self.study_state: str | None = None
        self.report: Path | None = None
        self.trouble: Exception | None = None
        self.refused: set[int] = set()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.trouble:
            raise self.trouble

    def open_study(self, study: StudyView) -> None:
        self._call("open_study")

    def open_alone(self, name: str) -> None:
        self._call("open_alone")

    def open_trial(self, trial: TrialFacts, run_id: str | None) -> str:
        self._call("open_trial")
        if trial.number in self.refused:
            raise DeliveryRefusedError("the run was deleted")
        if run_id is None:
            self.configs[f"run{trial.number}"] = trial.config
        return run_id or f"run{trial.number}"

    def log(self, run_id: str, epochs: Sequence[EpochMetrics]) -> None:
        self._call("log")
        for epoch in epochs:
            self.epochs[run_id].append(epoch.epoch)
            self.metrics[run_id, epoch.epoch] = epoch.metrics

    def close_trial(self, run_id: str, trial: TrialFacts) -> None:
        self._call("close_trial")
        self.ends[run_id] = trial.end_reason

    def close_study(self, state: str, report: Path | None) -> None:
        self._call("close_study")
        self.study_state, self.report = state, report


def carry(database: Database, study: int, sink: MemorySink) -> list[str]:
    """Deliver everything there is; return the notes."""
    notes: list[str] = []
    courier = Courier(database, study, sink, notes.append)
    while courier.deliver():
        pass
    return notes


def test_every_epoch_is_delivered_once(database: Database) -> None:
    study = seed_study(database, trials=20, running=2, waiting=1, epochs=4)
    seed_study(database, name="other", trials=2, epochs=4)
    sink = MemorySink()
    assert undelivered(database, study, sink.name)[0] > 0
    assert carry(database, study, sink) == []
    assert sink.epochs["run0"] == [1, 2, 3, 4]
    assert sink.ends["run0"] == "finished"
    assert sink.ends["run12"] == "oom"
    assert sink.configs["run0"]["training"]["epochs"] == 4
    assert "run20" not in sink.ends
    assert "run22" not in sink.epochs
    assert undelivered(database, study, sink.name) == (0, 0)
    with database.read() as connection:
        query = select(MetricRow.name, MetricRow.value).where(MetricRow.job_id == 1, MetricRow.epoch == 4)
        assert sink.metrics["run0", 4] == {row.name: row.value for row in connection.execute(query)}
    before = len(sink.calls)
    carry(database, study, sink)
    assert sink.calls[before:] == ["open_study"]  # by the new courier; nothing else is sent again


def test_a_running_trial_is_continued_in_its_run(local: Database) -> None:
    study = seed_study(local, Seeding(trials=0, running=1, epochs=3))
    sink = MemorySink()
    with local.begin() as connection:
        connection.execute(EpochRow.__table__.delete())
        connection.execute(MetricRow.__table__.delete())
    carry(local, study, sink)
    add_epoch(local, 1)
    carry(local, study, sink)
    add_epoch(local, 2)
    with local.begin() as connection:
        ended = {"state": JobState.DONE, "end_reason": EndReason.FINISHED}
        connection.execute(update(JobRow).values(ended))
    carry(local, study, sink)
    assert sink.epochs["run0"] == [1, 2]
    assert sink.ends == {"run0": "finished"}


def add_epoch(database: Database, epoch: int) -> None:
    with database.begin() as connection:
        connection.execute(insert(EpochRow).values(job_id=1, epoch=epoch, attempt=1, seconds=1.0, reported_at=1.0))
        connection.execute(insert(MetricRow).values(job_id=1, epoch=epoch, name="val_loss", value=1.0))


def test_a_courier_that_dies_before_its_mark_repeats_but_loses_nothing(local: Database) -> None:
    study = seed_study(local, trials=3, epochs=4)
    sink = MemorySink()

    class Killed(BaseException):
        pass

    courier = Courier(local, study, sink, lambda _: None)
    marks = iter([None, Killed()])  # opened; then killed after the epochs went out

    def mark(*_: object, **__: object) -> None:
        if (event := next(marks)) is not None:
            raise event

    courier._mark = mark  # type: ignore[method-assign]
    with pytest.raises(Killed):
        courier.deliver()
    carry(local, study, sink)
    assert set(sink.epochs["run0"]) == {1, 2, 3, 4}
    assert all(sink.epochs[f"run{number}"] == [1, 2, 3, 4] for number in (1, 2))


def test_an_epoch_without_metrics_does_not_hold_up_the_delivery(local: Database) -> None:
    study = seed_study(local, trials=1, epochs=3)
    with local.begin() as connection:
        connection.execute(MetricRow.__table__.delete().where(MetricRow.epoch == 3))
    carry(local, study, MemorySink())
    assert undelivered(local, study, MemorySink.name) == (0, 0)


def test_a_refused_trial_is_named_and_the_others_go_on(local: Database) -> None:
    study = seed_study(local, trials=3, epochs=2)
    sink = MemorySink()
    sink.refused = {1}
    assert carry(local, study, sink) == ["Memory refuses trial 1: the run was deleted"]
    assert sorted(sink.ends) == ["run0", "run2"]
    assert carry(local, study, sink) == []


def test_leaving_marks_what_is_not_finished(local: Database) -> None:
    study = seed_study(local, trials=2, running=1, epochs=4)
    add_to_running = {"job_id": 3, "epoch": 1}
    with local.begin() as connection:
        connection.execute(EpochRow.__table__.delete().where(EpochRow.job_id == 3))
        connection.execute(insert(EpochRow).values(**add_to_running, attempt=1, seconds=1.0, reported_at=1.0))
        connection.execute(update(StudyRow).values(state="stopped"))
    sink = MemorySink()
    courier = Courier(local, study, sink, lambda _: None)
    courier.deliver()
    courier.leave()
    assert sink.ends["run2"] is None
    assert sink.study_state == "stopped"


def test_trouble_is_told_once_and_made_up_for(local: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = seed_study(local, trials=3, epochs=2)
    sink, notes, stop = MemorySink(), [], threading.Event()
    sink.trouble = ConnectionError("connection refused")
    monkeypatch.setattr("orchestrator.tracking.tracking.LONGEST_PAUSE_SECONDS", 0.01)
    work = threading.Thread(
        target=deliver_forever, args=(local, study, lambda: sink, stop, notes.append), kwargs={"service": "Memory"}
    )
    work.start()
    wait_until(lambda: len(sink.calls) >= 5)
    sink.trouble = None
    wait_until(lambda: len(sink.ends) == 3)
    stop.set()
    work.join(60)
    assert not work.is_alive()
    assert [note.split(" (")[0] for note in notes] == [
        "Memory cannot be reached",
        "Memory answers again; what it missed is delivered",
    ]
    assert "connection refused" in notes[0]
    assert sink.study_state == "running"


def test_a_service_that_stays_away_does_not_hold_the_end(local: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = seed_study(local, trials=3, epochs=2)
    sink, stop = MemorySink(), threading.Event()
    sink.trouble = ConnectionError("refused")
    stop.set()
    monkeypatch.setattr("orchestrator.tracking.tracking.time.sleep", lambda _: None)
    deliver_forever(local, study, lambda: sink, stop, lambda _: None, service="Memory")
    assert len(sink.calls) == 3
    assert undelivered(local, study, sink.name) == (6, 3)


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("storage", "mlflow"),
    [
        ("sqlite:///runs/a.db", "sqlite:///./runs/../runs/a.db"),
        ("postgresql+psycopg://me:pw@db:5432/optuna", "postgresql://you@db/optuna"),
    ],
)
def test_mlflow_never_shares_the_studys_database(storage: str, mlflow: str) -> None:
    with pytest.raises(StorageError, match="cannot share") as raised:
        refuse_shared_database(storage, mlflow)
    assert "pw" not in str(raised.value)


@pytest.mark.parametrize(
    "mlflow", ["sqlite:///runs/mlflow.db", "http://127.0.0.1:5000", "runs/mlruns", "postgresql://db/mlflow"]
)
def test_other_places_are_taken(mlflow: str) -> None:
    refuse_shared_database("sqlite:///runs/a.db", mlflow)
    refuse_shared_database("postgresql+psycopg://db/optuna", mlflow)


def test_without_an_address_nothing_is_started(local: Database) -> None:
    with delivery(local, 1, [], pytest.fail):
        assert threading.active_count() >= 1


@pytest.mark.system
def test_numbers_arrive_in_mlflow_from_a_process_of_its_own(local: Database, tmp_path: Path) -> None:
    study = seed_study(local, trials=13, running=1, epochs=3)
    notes: list[str] = []
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    with delivery(local, study, [MlflowTarget(uri)], notes.append):
        pass  # a search that ends at once
    assert undelivered(local, study, "mlflow") == (0, 0)
    assert [note for note in notes if "last numbers" not in note] == []
    with delivery(local, study, [MlflowTarget(uri)], notes.append):  # the same command again finds everything there
        pass
    runs = mlflow_runs(uri)
    parents = [run for run in runs if "mlflow.parentRunId" not in run["tags"]]
    assert [run["tags"]["spikebench.study"] for run in parents] == ["stal_loss"]
    children = {run["tags"]["spikebench.trial"]: run for run in runs if run not in parents}
    assert set(children) >= {str(number) for number in range(13)}
    first = children["0"]
    assert first["tags"]["mlflow.parentRunId"] == parents[0]["id"]
    assert (first["status"], first["tags"]["spikebench.end_reason"]) == ("FINISHED", "finished")
    assert children["12"]["status"] == "FAILED"
    assert [step for step, _ in first["val_accuracy"]] == [1, 2, 3]
    assert "loss.omega" in first["params"]
    assert (Path(first["artifacts"].removeprefix("file://")) / "config.yaml").is_file()


def mlflow_runs(uri: str) -> list[dict[str, Any]]:
    """Read every run with plain SQL, as MLflow's own client takes seconds to import."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)
    with engine.connect() as connection:
        runs = {
            row.run_uuid: {
                "id": row.run_uuid,
                "status": row.status,
                "artifacts": row.artifact_uri,
                "tags": {},
                "params": {},
            }
            for row in connection.execute(text("select run_uuid, status, artifact_uri from runs"))
        }
        for kind in ("tags", "params"):
            for row in connection.execute(text(f"select run_uuid, key, value from {kind}")):
                runs[row.run_uuid][kind][row.key] = row.value
        query = text("select run_uuid, step, value from metrics where key = 'val_accuracy' order by step")
        for row in connection.execute(query):
            runs[row.run_uuid].setdefault("val_accuracy", []).append((row.step, row.value))
    engine.dispose()
    return list(runs.values())


@pytest.mark.system
def test_a_server_that_hangs_delays_the_end_but_not_the_search(
    local: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("orchestrator.tracking.targets.LAST_SECONDS", 90.0)  # for a process that starts slowly
    study = seed_study(local, trials=3, epochs=2)
    notes: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        started = time.perf_counter()
        target = MlflowTarget(f"http://me:s3cr3t@127.0.0.1:{silent.getsockname()[1]}")
        with delivery(local, study, [target], notes.append):
            assert time.perf_counter() - started < 20.0
        assert time.perf_counter() - started < 90.0
    assert "6 epochs of 3 trials" in notes[-1]
    assert "s3cr3t" not in "".join(notes)


@pytest.mark.system
def test_a_continued_trial_goes_on_in_its_run_and_the_machine_is_measured(
    local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    study = seed_study(local, Seeding(trials=0, running=1, epochs=3))
    with local.begin() as connection:
        connection.execute(EpochRow.__table__.delete())
        connection.execute(MetricRow.__table__.delete())
    uri, report = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "report.html"
    add_epoch(local, 1)
    with delivery(local, study, [MlflowTarget(uri)], lambda _: None):
        pass  # the controller is interrupted
    assert {run["status"] for run in mlflow_runs(uri)} == {"KILLED"}
    add_epoch(local, 2)
    with local.begin() as connection:
        connection.execute(update(JobRow).values(state=JobState.DONE, end_reason=EndReason.FINISHED))
        connection.execute(update(StudyRow).values(state="complete"))
    with delivery(local, study, [MlflowTarget(uri, system_metrics=True)], lambda _: None, report):
        wait_until(lambda: steps_of(uri, "system/cpu_utilization_percentage"))
        report.write_text("written at the end")
    runs = mlflow_runs(uri)
    assert [run["status"] for run in runs] == ["FINISHED", "FINISHED"]
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run["tags"])
    (child,) = (run for run in runs if run is not parent)
    assert steps_of(uri, "val_loss") == [(child["id"], 1), (child["id"], 2)]
    assert {run_id for run_id, _ in steps_of(uri, "system/cpu_utilization_percentage")} == {parent["id"]}
    assert (Path(parent["artifacts"].removeprefix("file://")) / "report.html").read_text() == "written at the end"


def steps_of(uri: str, metric: str) -> list[tuple[str, int]]:
    """Return run and step of every value of a metric."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)
    with engine.connect() as connection:
        query = text("select run_uuid, step from metrics where key = :key order by step")
        steps = [(row.run_uuid, row.step) for row in connection.execute(query, {"key": metric})]
    engine.dispose()
    return steps
