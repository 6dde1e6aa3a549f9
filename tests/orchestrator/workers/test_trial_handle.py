from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from configs.schema import RunConfig
from orchestrator.storage.tables import EndReason
from orchestrator.workers.trial_handle import TrialHandle, TrialHandles
from orchestrator.workers.trial_process import TrialEnd, TrialSpec

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialHandles]:
    monkeypatch.syspath_prepend(str(SUPPORT))
    made = TrialHandles(multiprocessing.get_context("forkserver"))
    yield made
    made.close()


def run(handle: TrialHandle, run_dir: Path) -> TrialEnd:
    """Run a trial of a fake trainer to its end."""
    config = RunConfig.model_validate({"model": {"name": "stal_srnn"}, "training": {"epochs": 2}})
    handle.begin(TrialSpec(config.model_dump(mode="json"), "fake_trainers:quick", run_dir, "cpu", 1, attempt=1))
    message = None
    while not isinstance(message, TrialEnd):
        assert handle.pipe.poll(60)
        message = handle.pipe.recv()
    return message


def test_the_process_that_waits_runs_the_next_trial(handles: TrialHandles, tmp_path: Path) -> None:
    handles.prepare()
    handles.prepare()
    handle = handles.take()
    assert handle.process.is_alive()
    assert run(handle, tmp_path / "run").reason is EndReason.FINISHED
    assert (tmp_path / "run/trial.log").exists()
    another = handles.take()
    assert another.process.pid != handle.process.pid
    handle.close()
    another.close()


def test_a_process_that_died_waiting_is_replaced(handles: TrialHandles, tmp_path: Path) -> None:
    handles.prepare()
    spare = handles._spare
    assert spare is not None
    os.kill(spare.process.pid or 0, signal.SIGKILL)
    spare.process.join(60)
    handle = handles.take()
    assert handle is not spare
    assert run(handle, tmp_path / "run").reason is EndReason.FINISHED
    handle.close()


def test_no_process_outlives_its_worker(handles: TrialHandles) -> None:
    handles.prepare()
    assert handles._spare is not None
    process = psutil.Process(handles._spare.process.pid)
    handles.close()
    assert not process.is_running()
    running = handles.take()
    process = psutil.Process(running.process.pid)
    running.close()
    assert not process.is_running()
