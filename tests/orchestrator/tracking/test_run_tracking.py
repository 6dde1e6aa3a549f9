from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from wandb_files import read_runs

from configs.problems import ConfigError
from configs.resolve import from_dict, resolve, to_dict
from configs.schema import RunConfig
from orchestrator.errors import TrackingError
from orchestrator.tracking.run_tracking import End, RunCourier, run_delivery
from orchestrator.tracking.sinks import DeliveryRefusedError, EpochMetrics, TrialFacts
from orchestrator.tracking.targets import STOP, MlflowTarget, require_services, targets_of
from trainers.protocol import EpochReport, Outcome, TrainerError


class MemorySink:
    """A sink that keeps everything, and fails when told to."""

    name = "memory"
    service = "Memory"

    def __init__(self) -> None:
        self.opened: list[str | None] = []
        self.epochs: list[int] = []
        self.ends: list[str | None] = []
        self.troubles: list[Exception] = []

    def open_alone(self, name: str) -> None:
        assert name == "digits"

    def open_trial(self, trial: TrialFacts, run_id: str | None) -> str:
        if self.troubles:
            raise self.troubles.pop(0)
        self.opened.append(run_id)
        return run_id or "the-run"

    def log(self, run_id: str, epochs: Sequence[EpochMetrics]) -> None:
        assert run_id == "the-run"
        self.epochs += [epoch.epoch for epoch in epochs]

    def close_trial(self, run_id: str, trial: TrialFacts) -> None:
        self.ends.append(trial.end_reason)


class MemoryTarget:
    name = "memory"
    service = "Memory"
    secret = None

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink

    def open(self, note: Callable[[str], None]) -> MemorySink:
        return self.sink


def facts(folder: Path) -> TrialFacts:
    return TrialFacts(0, "digits", {}, {}, "hash", 1, str(folder), 1.0, None, None, failed=False)


def carry(folder: Path, sink: MemorySink, epochs: Sequence[int], *, end: bool = True) -> list[str]:
    """Deliver a run's epochs at once; return the notes."""
    notes: list[str] = []
    courier = RunCourier(facts(folder), MemoryTarget(sink), notes.append)  # type: ignore[arg-type]
    for epoch in epochs:
        courier.take(EpochMetrics(epoch, 1.0, {"val_loss": 1.0}))
    if end:
        courier.take(End("finished", 2.0, failed=False))
    courier.take(STOP)
    courier.work()
    assert courier.missing == (0 if sink.opened or notes[-1].startswith("Memory refuses") else len(epochs))
    return notes


def test_a_resumed_run_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    sink = MemorySink()
    assert carry(tmp_path, sink, [1, 2], end=False) == []
    assert json.loads((tmp_path / "memory.json").read_text()) == {"run_id": "the-run", "epoch": 2}
    assert carry(tmp_path, sink, [1, 2, 3]) == []
    assert (sink.opened, sink.epochs, sink.ends) == ([None, "the-run"], [1, 2, 3], [None, "finished"])


def test_trouble_is_told_once_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.run_tracking.time.sleep", lambda _: None)
    sink = MemorySink()
    sink.troubles = [ConnectionError("refused"), ConnectionError("refused again")]
    assert carry(tmp_path, sink, [1, 2]) == [
        "Memory cannot be reached (refused); training goes on, numbers are delivered later",
        "Memory answers again; what it missed is delivered",
    ]
    assert (sink.epochs, sink.ends) == ([1, 2], ["finished"])


def test_a_service_that_stays_away_or_refuses_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.run_tracking.time.sleep", lambda _: None)
    away = MemorySink()
    away.troubles = [ConnectionError("refused")] * 9
    assert len(carry(tmp_path, away, [1, 2])) == 1
    refusing = MemorySink()
    refusing.troubles = [DeliveryRefusedError("the run was deleted")]
    assert carry(tmp_path, refusing, [1, 2]) == ["Memory refuses the run: the run was deleted"]


def config(**tracking: Any) -> RunConfig:
    words = [f"--tracking.{key}={value}" for key, value in tracking.items()]
    return resolve("stal/srnn_digits", words).config


def report(epoch: int) -> EpochReport:
    return EpochReport(epoch, 3, {"val_loss": 1.0 / epoch, "val_accuracy": 0.5}, 1.0)


def test_without_a_service_nothing_is_started(tmp_path: Path) -> None:
    with run_delivery(config(), tmp_path, pytest.fail, resume=False) as delivery:
        delivery.epoch(report(1))
        delivery.ended(Outcome.FINISHED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
def test_a_run_is_one_run_in_both_services(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    both = config(mlflow="true", mlflow_uri=uri, wandb="true", wandb_offline="true", wandb_project="thesis")
    notes: list[str] = []
    with run_delivery(both, folder, notes.append, resume=False) as delivery:
        delivery.epoch(report(1))
        delivery.ended(Outcome.PREEMPTED)
    with run_delivery(both, folder, notes.append, resume=True) as delivery:
        for epoch in (1, 2, 3):
            delivery.epoch(report(epoch))
        delivery.ended(Outcome.FINISHED)
    assert [note for note in notes if "last numbers" not in note] == []
    assert mlflow_rows(uri, "select name from experiments where name != 'Default'") == [("digits",)]
    assert mlflow_rows(uri, "select name, status from runs") == [("digits", "FINISHED")]
    assert mlflow_rows(uri, "select step from metrics where key = 'val_loss' order by step") == [(1,), (2,), (3,)]
    assert mlflow_rows(uri, "select value from params where key = 'model.name'") == [("stal_srnn",)]
    first, second = read_runs(folder)
    assert first.id == second.id
    assert (first.project, first.group, first.name) == ("thesis", "", "digits")
    assert (list(first.history), list(second.history)) == ([1], [2, 3])
    assert second.summary["end_reason"] == "finished"


def mlflow_rows(uri: str, query: str) -> list[tuple[Any, ...]]:
    """Read with plain SQL, as MLflow's own client takes seconds to import."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return rows


@pytest.mark.system
def test_a_server_that_hangs_delays_the_end_but_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("orchestrator.tracking.targets.LAST_SECONDS", 90.0)  # for a process that starts slowly
    notes: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        uri = f"http://me:s3cr3t@127.0.0.1:{silent.getsockname()[1]}"
        started = time.perf_counter()
        with run_delivery(config(mlflow="true", mlflow_uri=uri), tmp_path, notes.append, resume=False) as delivery:
            for epoch in range(1, 2001):
                delivery.epoch(report(epoch))
            delivery.ended(Outcome.FINISHED)
            assert time.perf_counter() - started < 60.0
        assert time.perf_counter() - started < 120.0
    assert notes[-1] == "MLflow has not taken 2000 epochs; --resume delivers them"
    assert "s3cr3t" not in "".join(notes)


def test_a_password_is_known_to_be_one() -> None:
    assert MlflowTarget("http://me:s3cr3t@host").secrets == ("s3cr3t",)
    assert set(MlflowTarget("http://me:s3%2Fcr3t@host").secrets) == {"s3/cr3t", "s3%2Fcr3t"}
    assert MlflowTarget("runs/mlruns").secrets == ()
    assert "s3cr3t" not in repr(MlflowTarget("http://me:s3cr3t@host"))


def test_a_reference_in_the_address_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_PASSWORD", "s3cr3t")
    tracking = config(mlflow="true", mlflow_uri="http://me:${MLFLOW_PASSWORD}@host").tracking
    assert tracking.mlflow_uri == "http://me:${MLFLOW_PASSWORD}@host"
    require_services(tracking)
    (target,) = targets_of(tracking, tmp_path)
    assert isinstance(target, MlflowTarget)
    assert target.uri == "http://me:s3cr3t@host"
    monkeypatch.delenv("MLFLOW_PASSWORD")
    with pytest.raises(ConfigError, match="MLFLOW_PASSWORD is not set"):
        require_services(tracking)


def test_a_password_in_plain_text_works_once_with_a_warning_and_is_asked_for_again(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    given = config(mlflow="true", mlflow_uri="http://me:s3cr3t@host")
    require_services(given.tracking)
    assert "has its password in plain text" in caplog.text
    (target,) = targets_of(given.tracking, tmp_path)
    assert isinstance(target, MlflowTarget)
    assert target.uri == "http://me:s3cr3t@host"
    with pytest.raises(TrackingError, match=r"me:\*\*\*@host', whose password was not stored"):
        require_services(from_dict(to_dict(given)).tracking)
    assert "s3cr3t" not in caplog.text


@pytest.mark.system
def test_an_error_ends_the_run_as_failed(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def fail() -> None:
        with run_delivery(config(mlflow="true", mlflow_uri=uri), tmp_path, lambda _: None, resume=False) as delivery:
            delivery.epoch(report(1))
            raise TrainerError("the data are gone")

    with pytest.raises(TrainerError):
        fail()
    assert mlflow_rows(uri, "select status from runs") == [("FAILED",)]
