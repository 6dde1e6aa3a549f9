"""What every executor has to do, whatever its workers are; a test module derives from `ExecutorContract`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leash
import pytest
import walking_trainer
from searching import SUPPORT, write_space
from sqlalchemy import text

from orchestrator.crew import Request, hire
from orchestrator.reading.front import pareto_front
from orchestrator.reading.snapshot import StudySnapshot
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.study import open_study
from orchestrator.storage.tables import StudyState
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.controller import Controller
from search_spaces.load import load_space

TRIALS = 8
ONE_WORKER: dict[str, Any] = {"count": 1, "threads": 1}


class Notes:
    """A view that only remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self) -> None: ...

    def update(self, snapshot: StudySnapshot) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None: ...


class Scene:
    """A study in a folder, which any executor may run."""

    def __init__(self, folder: Path, executor: dict[str, Any], **changes: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.space = load_space(
            write_space(folder, **{"workers": ONE_WORKER, "max_failures_in_row": TRIALS, **changes, **executor})
        )
        self.view = Notes()
        self.database: Database = open_database(f"sqlite:///{folder}/study.db", create=True)

    def run(self, *, until: Callable[[], bool] | None = None) -> StudyState:
        """Run the study to its end, or until something is true, and interrupt it then as Ctrl-C does."""
        section = self.space.space.workers
        request = Request(section.count, section.threads, section.per_gpu, section.gpu_fraction)
        crew = hire(self.space, request, self.database.url, self.folder / "runs" / "tiny")
        study = open_study(self.database, self.space)
        made = crew(study)
        ask_tell = AskTell(self.database, study, self.folder / "runs", made.threads)
        controller = Controller(self.database, study, ask_tell, made.executor, self.view)
        ended = threading.Event()
        if until is not None:
            threading.Thread(target=self._interrupt, args=(until, ended), daemon=True).start()
        try:
            return controller.run()
        finally:
            ended.set()
            study.close()

    def tie(self, epochs: int) -> None:
        """Let no trial go on beyond so many epochs."""
        leash.tie(self.folder / "runs" / "tiny", epochs)

    def untie(self) -> None:
        """Let trials go on to their end."""
        leash.untie(self.folder / "runs" / "tiny")

    def close(self) -> None:
        self.database.engine.dispose()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    def is_true(self, sql: str) -> bool:
        rows = self.query(sql)
        return bool(rows and rows[0][0])

    def rows(self) -> dict[str, Any]:
        """Return everything of the study that depends on neither time nor place."""
        jobs = self.query(
            "SELECT trial_number, state, end_reason, attempt, failures, told, config_hash, params, threads"
            " FROM sb_jobs ORDER BY trial_number"
        )
        attempts = self.query(
            "SELECT trial_number, sb_attempts.attempt, sb_attempts.end_reason FROM sb_attempts"
            " JOIN sb_jobs ON sb_jobs.id = job_id ORDER BY 1, 2"
        )
        curves = self.query(
            "SELECT trial_number, epoch, name, value FROM sb_metrics JOIN sb_jobs ON sb_jobs.id = job_id"
            " WHERE name LIKE 'val_%' ORDER BY 1, 2, 3"
        )
        states = self.query("SELECT number, state FROM trials ORDER BY number")
        values = self.query(
            "SELECT number, objective, value FROM trial_values JOIN trials USING (trial_id) ORDER BY 1, 2"
        )
        return {"jobs": jobs, "attempts": attempts, "curves": curves, "states": states, "values": values}

    def front(self) -> list[int]:
        points: dict[int, list[float]] = {}
        for number, _, value in self.rows()["values"]:
            points.setdefault(number, []).append(value)
        numbers = sorted(points)
        return [numbers[at] for at in pareto_front([points[n] for n in numbers], ["maximize", "minimize"])]

    def _interrupt(self, until: Callable[[], bool], ended: threading.Event) -> None:
        while not ended.wait(0.05):
            if until():
                os.kill(os.getpid(), signal.SIGINT)
                return


class ExecutorContract:
    """Tests of an executor; `executor` says in the terms of a space which one."""

    @pytest.fixture
    def executor(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _trainers_are_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(SUPPORT))

    def test_one_worker_makes_the_same_study_as_in_the_controllers_own_process(
        self, tmp_path: Path, executor: dict[str, Any]
    ) -> None:
        changes = {"trainer": "varied_trainer:vary", "budget": {"trials": TRIALS}}
        reference = Scene(tmp_path / "debug", {"executor": "debug"}, **changes)
        scene = Scene(tmp_path / "this", executor, **changes)
        try:
            assert reference.run() is StudyState.COMPLETE
            assert scene.run() is StudyState.COMPLETE
            found = scene.rows()
            assert found == reference.rows()
            assert {end for _, _, end in found["attempts"]} == {"finished", "error", "nan"}
            assert scene.front() == reference.front() != []
            assert scene.query("SELECT count(*) FROM sb_workers WHERE ended_at IS NULL") == [(0,)]
        finally:
            reference.close()
            scene.close()

    def test_an_interrupt_has_the_trial_checkpointed_and_the_next_start_loses_nothing(
        self, tmp_path: Path, executor: dict[str, Any]
    ) -> None:
        changes: dict[str, Any] = {
            "trainer": "walking_trainer:walk",
            "budget": {"trials": 2},
            "overrides": {"loss.name": "ce_ss", "training.epochs": 20},
        }
        scene = Scene(tmp_path, executor, **changes)
        try:
            scene.tie(10)
            state = scene.run(until=lambda: scene.is_true("SELECT count(*) = 10 FROM sb_epochs"))
            assert state is StudyState.STOPPED
            assert scene.query("SELECT DISTINCT state FROM sb_jobs") == [("pending",)]
            assert scene.query("SELECT end_reason FROM sb_attempts") == [("preempted",)]
            assert scene.query("SELECT count(*) FROM sb_epochs") == [(10,)]
            scene.untie()
            assert scene.run() is StudyState.COMPLETE
            assert scene.query("SELECT trial_number, state, end_reason FROM sb_jobs ORDER BY 1") == [
                (0, "done", "finished"),
                (1, "done", "finished"),
            ]
            assert scene.query("SELECT count(*), sum(epoch) FROM sb_epochs") == [(40, 2 * 20 * 21 // 2)]
            assert walking_trainer.repeated(tmp_path / "runs/tiny/trial_00000") == [0]
        finally:
            scene.close()

    def test_the_services_own_stop_rules_end_a_running_trial(self, tmp_path: Path, executor: dict[str, Any]) -> None:
        scene = Scene(
            tmp_path,
            executor,
            trainer="fake_trainers:steady",
            budget={"trials": 1},
            overrides={"loss.name": "ce_ss", "training.epochs": 20},
            constraints=[{"metric": "val_spike_density", "max": 1e-6, "hard": True}],
            stop={"constraint": {"grace": 0, "epochs": 2}},
        )
        try:
            scene.tie(10)  # it never goes on from there: only its end ends the study
            assert scene.run() is StudyState.COMPLETE
            assert scene.query("SELECT state, end_reason FROM sb_jobs") == [("done", "constraint")]
            assert scene.query("SELECT state FROM trials") == [("PRUNED",)]
        finally:
            scene.close()
