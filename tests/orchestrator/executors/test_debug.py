"""The executor inside the controller's process keeps the contract, and starts no process."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import psutil
import pytest
from contracts.executors import ExecutorContract, Scene

from orchestrator.storage.tables import StudyState
from orchestrator.workers import attempt


class TestDebugExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> dict[str, Any]:
        return {"executor": "debug"}

    def test_no_process_is_started(self, tmp_path: Path) -> None:
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        scene = Scene(tmp_path, {"executor": "debug"}, trainer="fake_trainers:quick", budget={"trials": 2})
        try:
            assert scene.run() is StudyState.COMPLETE
        finally:
            scene.close()
        assert {child.pid for child in psutil.Process().children(recursive=True)} == before
        assert not multiprocessing.active_children()

    def test_a_trial_that_does_not_listen_is_left_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(attempt, "STOP_PATIENCE_SECONDS", 0.5)
        scene = Scene(
            tmp_path,
            {"executor": "debug"},
            trainer="fake_trainers:deaf",
            budget={"trials": 1},
            overrides={"loss.name": "ce_ss", "training.epochs": 40},
            constraints=[{"metric": "val_spike_density", "max": 1e-6, "hard": True}],
            stop={"constraint": {"grace": 0, "epochs": 1}},
        )
        try:
            assert scene.run() is StudyState.COMPLETE
            assert scene.query("SELECT state, end_reason, end_detail FROM sb_jobs") == [
                ("done", "constraint", "ended by its worker: it did not listen")
            ]
        finally:
            scene.close()
