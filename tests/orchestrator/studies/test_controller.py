"""A controller whose workers are threads of the test: they claim and end jobs as real ones do, without processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from searching import write_space
from sqlalchemy import select, update

from orchestrator.errors import StudyBusyError
from orchestrator.executors.absent import AbsentExecutor
from orchestrator.queue.jobs import Claim, WorkerIdentity, claim, end_workers, finish, hold, register_worker
from orchestrator.queue.lease import has_controller
from orchestrator.queue.records import record_epochs
from orchestrator.reading.snapshot import StudySnapshot
from orchestrator.storage.database import Database
from orchestrator.storage.study import Study, open_study, require_row
from orchestrator.storage.tables import EndReason, JobRow, StudyRow, StudyState
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.control import cancel, pause, resume, standing, stop
from orchestrator.studies.controller import Controller
from orchestrator.studies.enqueue import enqueue
from search_spaces.load import load_space
from trainers.protocol import EpochReport, Verdict

TRIALS = 4
NUMBERS = {"val_accuracy": 0.5, "val_spike_density": 0.1}
PATIENCE = 60.0  # for a machine that is busy with something else


class Silent:
    """A view that only remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self) -> None: ...

    def update(self, snapshot: StudySnapshot) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None: ...


class Hand(threading.Thread):
    """A worker whose trials go on until `ready` is set, unless something else is wanted of them."""

    def __init__(self, database: Database, ready: threading.Event) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._ready = ready
        self.leaving = False
        self.start()

    def run(self) -> None:
        who = WorkerIdentity(self.name, "host/boot", 1, 0.0, "cpu", 1)
        self._database.write(lambda connection: register_worker(connection, who, None))
        while not self.leaving:
            held = self._database.write(lambda connection: claim(connection, who))
            if held is not None:
                reason = self._train(held)
                self._database.write(lambda c, held=held, reason=reason: finish(c, held, reason))
            time.sleep(0.02)
        self._database.write(lambda connection: end_workers(connection, [who.id]))

    def _train(self, held: Claim) -> EndReason:
        while not self.leaving:
            verdict, reason = self._database.write(lambda connection: hold(connection, held))
            if verdict is Verdict.PREEMPT:
                break
            if verdict is Verdict.STOP:
                return EndReason(reason)
            if self._ready.is_set():
                self._database.write(lambda c: record_epochs(c, held, [EpochReport(1, 1, NUMBERS, 0.1)]))
                return EndReason.FINISHED
            time.sleep(0.02)
        return EndReason.PREEMPTED


class Scene:
    """A study, its hands, and what happens to it while its controller runs."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.ready = threading.Event()
        self.view = Silent()
        self.study = self._open()
        self.hands = [Hand(database, self.ready) for _ in range(2)]
        self.failure: BaseException | None = None

    def _open(self) -> Study:
        space = load_space(write_space(self.folder))
        return open_study(self.database, space)

    @property
    def row(self) -> StudyRow:
        return require_row(self.database, "tiny")

    def controller(self) -> Controller:
        ask_tell = AskTell(self.database, self.study, self.folder / "runs", threads=1)
        return Controller(self.database, self.study, ask_tell, AbsentExecutor(), self.view)

    def play(self, *steps: Callable[[], Any]) -> StudyState:
        """Run a controller to its end while a thread takes the steps; a step that returns False is tried again."""

        def act() -> None:
            try:
                for step in steps:
                    deadline = time.monotonic() + PATIENCE
                    while step() is False:
                        assert time.monotonic() < deadline, "a step never came true"
                        time.sleep(0.02)
            except BaseException as error:
                self.failure = error
                stop(self.database, self.row)

        actor = threading.Thread(target=act)
        actor.start()
        state = self.controller().run()
        actor.join()
        if self.failure is not None:
            raise self.failure
        return state

    def jobs(self) -> list[tuple[int, str, int]]:
        with self.database.read() as connection:
            query = select(JobRow.trial_number, JobRow.state, JobRow.attempt).order_by(JobRow.trial_number)
            return [tuple(row) for row in connection.execute(query)]

    def states(self) -> list[str]:
        return [state for _, state, _ in self.jobs()]

    def close(self) -> None:
        for hand in self.hands:
            hand.leaving = True
        for hand in self.hands:
            hand.join()
        self.study.close()


@pytest.fixture
def scene(database: Database, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(database, tmp_path)
    yield made
    made.close()


def test_a_paused_study_gives_its_trials_back_and_goes_on_with_the_same(scene: Scene) -> None:
    seen: list[Any] = []
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        lambda: pause(scene.database, scene.row),
        lambda: scene.states() == ["pending"] * 2,
        lambda: time.sleep(1.0),  # some ticks in which nothing may be asked or given out
        lambda: seen.append((scene.jobs(), scene.row.state, has_controller(scene.database, scene.row))),
        lambda: resume(scene.database, scene.row),
        scene.ready.set,
    )
    assert seen == [([(0, "pending", 1), (1, "pending", 1)], "paused", True)]
    assert state is StudyState.COMPLETE
    assert scene.jobs() == [(0, "done", 2), (1, "done", 2), (2, "done", 1), (3, "done", 1)]
    assert scene.view.notes[0].startswith("paused: ")
    assert scene.view.notes[1] == "resumed"


def test_a_stopped_study_ends_its_controller_and_a_new_one_goes_on(scene: Scene) -> None:
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        lambda: stop(scene.database, scene.row),
    )
    assert state is StudyState.STOPPED
    assert (scene.row.state, scene.row.controller) == ("stopped", None)
    assert "spikebench stop" in scene.row.state_detail
    scene.ready.set()
    assert scene.play() is StudyState.COMPLETE
    assert scene.states() == ["done"] * TRIALS


def test_a_pause_without_a_controller_holds_the_next_one(scene: Scene) -> None:
    pause(scene.database, scene.row)
    scene.ready.set()
    state = scene.play(
        lambda: has_controller(scene.database, scene.row),
        lambda: time.sleep(1.0),
        lambda: scene.failure or (scene.jobs() == [] or pytest.fail("a trial was asked")),
        lambda: resume(scene.database, scene.row),
    )
    assert state is StudyState.COMPLETE


def test_a_controller_that_is_interrupted_in_a_pause_leaves_the_study_paused(scene: Scene) -> None:
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        lambda: pause(scene.database, scene.row),
        lambda: scene.states() == ["pending"] * 2,
        lambda: time.sleep(1.0),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    assert state is StudyState.PAUSED
    assert (scene.row.state, scene.row.controller) == ("paused", None)


def test_a_cancelled_trial_counts_but_is_no_failure_and_has_no_values(scene: Scene) -> None:
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        lambda: [cancel(scene.database, scene.row, 1)],
        lambda: scene.states() == ["leased", "failed", "leased"],
        lambda: pause(scene.database, scene.row),
        lambda: "leased" not in scene.states(),
        lambda: [cancel(scene.database, scene.row, number) for number in (0, 2)],  # three failures would end the study
        lambda: resume(scene.database, scene.row),
        scene.ready.set,
    )
    assert state is StudyState.COMPLETE
    assert scene.states() == ["failed"] * 3 + ["done"]
    trials = scene.study.optuna.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL"] * 3 + ["COMPLETE"]
    assert [trial.user_attrs.get("end_reason") for trial in trials] == ["cancelled"] * 3 + [None]


def test_enqueued_parameters_come_before_the_samplers(scene: Scene) -> None:
    assert enqueue(scene.database, scene.row, {"loss.omega": 1e-5}).number == 0
    scene.ready.set()
    assert scene.play() is StudyState.COMPLETE
    with scene.database.read() as connection:
        params = connection.execute(select(JobRow.params).order_by(JobRow.trial_number)).scalars().all()
    assert len(params) == TRIALS
    assert params[0]["loss.omega"] == 1e-5
    assert 0.1 <= params[0]["loss.c"] <= 10.0
    assert len({point["loss.omega"] for point in params}) == TRIALS
    late = enqueue(scene.database, scene.row, {"loss.omega": 2e-5})
    assert (late.number, late.missing) == (4, 1)


def test_parameters_enqueued_while_it_runs_are_next(scene: Scene) -> None:
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        lambda: enqueue(scene.database, scene.row, {"loss.omega": 1e-5}) and None,
        scene.ready.set,
    )
    assert state is StudyState.COMPLETE
    with scene.database.read() as connection:
        query = select(JobRow.params).where(JobRow.trial_number == 2)
        assert connection.execute(query).scalar_one()["loss.omega"] == 1e-5
    assert scene.states() == ["done"] * TRIALS


def test_a_second_controller_is_refused_and_asks_nothing(scene: Scene) -> None:
    def second() -> None:
        with pytest.raises(StudyBusyError, match="another controller"):
            scene.controller()._lease.acquire()  # signals are for main threads, so not the whole run

    asked: list[int] = []
    state = scene.play(
        lambda: scene.states() == ["leased"] * 2,
        second,
        lambda: asked.append(len(scene.jobs())),
        scene.ready.set,
    )
    assert (state, asked) == (StudyState.COMPLETE, [2])


def test_a_controller_that_was_replaced_asks_nothing_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.queue.lease.beat_seconds", lambda: 0.0)

    def usurp() -> None:
        with scene.database.begin() as connection:
            connection.execute(update(StudyRow).values(controller="other/boot 1 1.00 abc", controller_lease_until=1e12))

    with pytest.raises(StudyBusyError, match="taken the study over"):
        scene.play(lambda: scene.states() == ["leased"] * 2, usurp)
    assert standing(scene.database, scene.study.id).state is StudyState.RUNNING
    assert scene.row.controller == "other/boot 1 1.00 abc"
    assert len(scene.jobs()) == 2
