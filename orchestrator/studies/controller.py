"""The controller of one study: keeps its workers busy, hands lost trials on, and ends when the budget is used."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import FrameType

from optuna.exceptions import StorageInternalError
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import StorageError
from orchestrator.executors.base import Executor
from orchestrator.machine.identity import is_dead
from orchestrator.queue.jobs import end_workers, living_workers, return_lost, trial_hours, worker_count
from orchestrator.queue.lease import ControllerLease
from orchestrator.queue.timing import beat_seconds, lease_seconds, reap_seconds
from orchestrator.reading.snapshot import SnapshotReader
from orchestrator.storage.database import Database, is_transient
from orchestrator.storage.study import Study, set_state
from orchestrator.storage.tables import StudyState
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.control import begin, standing
from orchestrator.studies.retention import Retention
from orchestrator.studies.stopping import StopRules
from orchestrator.terminal.live import View

TICK_SECONDS = 0.5
LONGEST_OUTAGE_SECONDS = 3600.0  # how long a study waits for its database
LEAVE_PATIENCE_SECONDS = 600.0  # how long Ctrl-C waits for trials to write their checkpoints


class Controller:
    """Run one study to its end.

    Args:
        database: an open database.
        study: the study, opened.
        ask_tell: asks and tells its trials.
        executor: starts the workers.
        view: shows what happens.
    """

    def __init__(self, database: Database, study: Study, ask_tell: AskTell, executor: Executor, view: View) -> None:
        self._database = database
        self._study = study
        self._ask_tell = ask_tell
        self._executor = executor
        self._view = view
        self._snapshots = SnapshotReader(database, study.id)
        self._stop_rules = StopRules(database, study.id, study.checked.space)
        self._lease = ControllerLease(database, study.id)
        self._retention = Retention(database, study)
        self._signal_reader, self._signal_writer = Pipe(duplex=False)
        self._interrupts = 0
        self.preempted = False  # by SIGTERM, as schedulers and container runtimes do
        self._reap_at = 0.0
        self._spare_until = 0.0  # until then nobody is taken for dead who was only not heard
        self._show_at = 0.0
        self._away_since: float | None = None  # the database
        self._open = 0  # jobs that are pending or running
        self._state = StudyState.RUNNING  # as people want it
        self._stop_reason = ""

    def run(self) -> StudyState:
        """Work until the budget is used, the study stops itself, or a person interrupts.

        Returns:
            COMPLETE, STOPPED with the reason in the study's row, or PAUSED when it was interrupted during a pause.

        Raises:
            StudyBusyError: another controller holds the study.
        """
        self._lease.acquire()
        with self._signals(), self._shown():
            try:
                begin(self._database, self._study.id, self._study.budget)
                self._reap()
                self._ask_tell.adopt_orphans()
                self._retention.sweep()
                self._tick()
                if not self._finished():
                    self._executor.start()
                    self._loop()
                return self._end()
            finally:
                self._executor.kill()
                self._reap()
                self._lease.release()

    def _loop(self) -> None:
        while not self._finished():
            self._wait(TICK_SECONDS)
            if self._interrupts:
                self._leave("interrupted; the same command goes on")
                return
            self._executor.tend()
            self._try_tick()
            if self._state is StudyState.STOPPED:
                self._leave("by `spikebench stop`; the same command goes on")
                return
        self._executor.leave()

    def _try_tick(self) -> None:
        """Do everything that is due; while the database is away trials go on, and the study does when it is back."""
        began = time.monotonic()
        try:
            if self._away_since is not None:
                self._ask_tell.recover()
                self._spare_the_silent()
            self._tick()
        except (StorageError, StorageInternalError, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not is_transient(error):
                raise
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                self._view.note("the database is away; running trials go on, and what they report is kept")
            elif now - self._away_since > LONGEST_OUTAGE_SECONDS:
                raise
        else:
            if time.monotonic() - began > beat_seconds():  # it waited for the database
                self._spare_the_silent()
            if self._away_since is not None:
                self._away_since = None
                self._view.note("the database is back")

    def _spare_the_silent(self) -> None:
        """Give workers the time of a lease to be heard again: they could not renew theirs either."""
        self._spare_until = time.monotonic() + lease_seconds()

    def _tick(self) -> None:
        """Do everything that is due; cheap when nothing is."""
        began = time.monotonic()
        self._lease.renew()
        if time.monotonic() - began > beat_seconds():
            self._spare_the_silent()
        if time.monotonic() >= self._reap_at:
            self._reap()
        self._stop_rules.apply()
        ended = self._ask_tell.tell_ended()
        self._check_failures()
        self._heed()
        if self._ask():
            self._executor.wake()
        self._retention.ended(ended)  # while workers have begun what was asked
        if time.monotonic() >= self._show_at:
            self._show_at = time.monotonic() + TICK_SECONDS
            self._view.update(self._snapshots.read())

    def _heed(self) -> None:
        """Read what people want of the study, and how much of its work is open."""
        now = standing(self._database, self._study.id)
        self._open = now.open
        if now.state is self._state:
            return
        self._state = now.state
        if now.state is StudyState.PAUSED:
            resume = f"`spikebench resume {self._study.name}`"
            self._view.note(f"paused: running trials write a checkpoint and wait; {resume} goes on")
        elif now.state is StudyState.RUNNING:
            self._view.note("resumed")
        self._executor.wake()  # workers look again: there is work, or there is none any more

    def _ask(self) -> bool:
        """Queue as many trials as there are idle places and trials left in the budget."""
        asked = False
        places = max(len(self._executor.slots), worker_count(self._database, self._study.id))
        while (
            self._state is StudyState.RUNNING
            and not self._stop_reason
            and self._open < places
            and self._ask_tell.asked < self._study.budget
            and self._hours_left()
        ):
            self._lease.renew()
            if self._ask_tell.ask() is None:
                break
            self._open += 1
            asked = True
        return asked

    def _hours_left(self) -> bool:
        hours = self._study.checked.space.budget.hours
        if hours is not None and trial_hours(self._database, self._study.id) >= hours:
            self._stop_reason = f"the budget of {hours:g} trial hours is used"
        return not self._stop_reason

    def _check_failures(self) -> None:
        most = self._study.checked.space.max_failures_in_row
        if self._ask_tell.failures_in_row >= most:
            self._stop_reason = (
                f"{most} trials in a row failed: see `spikebench status {self._study.name}` for their logs"
            )

    def _finished(self) -> bool:
        return self._open == 0 and (bool(self._stop_reason) or self._ask_tell.asked >= self._study.budget)

    def _reap(self) -> None:
        """Give back the trials of workers that died or whose lease ran out; they go on from their last checkpoints."""
        dead = [
            worker.id
            for worker in living_workers(self._database, self._study.id)
            if is_dead(worker.host, worker.pid, worker.process_started)
        ]

        def action(connection: SqlConnection) -> list[int]:
            end_workers(connection, dead)
            return return_lost(connection, dead, self._study.id, expired=time.monotonic() >= self._spare_until)

        for number in self._database.write(action):
            self._view.note(f"trial {number} lost its worker; it goes on from its last checkpoint")
        self._reap_at = time.monotonic() + reap_seconds()

    def _leave(self, reason: str) -> None:
        """Have every trial checkpointed and given back; a second interrupt ends them at once."""
        self._stop_reason = reason
        again = " again" if self._interrupts else ""
        self._view.note(f"stopping: running trials write a checkpoint (Ctrl-C{again} stops at once)")
        self._executor.leave()
        most = 2 if self._interrupts else 1
        deadline = time.monotonic() + LEAVE_PATIENCE_SECONDS
        while self._executor.living() and self._interrupts < most and time.monotonic() < deadline:
            time.sleep(0.1)
            with contextlib.suppress(StorageError):  # their checkpoints are worth waiting for all the same
                self._lease.renew()
        self._ask_tell.tell_ended()

    def _end(self) -> StudyState:
        if self._open == 0 and not self._stop_reason:
            state, detail = StudyState.COMPLETE, ""
        elif self._interrupts and self._state is StudyState.PAUSED:  # a pause outlives its controller
            return self._state
        else:
            state, detail = StudyState.STOPPED, self._stop_reason
        set_state(self._database, self._study.id, state, detail)
        self._view.update(self._snapshots.read())
        return state

    def _wait(self, timeout: float) -> None:
        """Sleep until a worker rings, a signal comes or the time is over."""
        sources: list[Connection] = [*self._executor.sources(), self._signal_reader]
        wait(sources, timeout)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM instead of dying of them; in a thread of a program they are the program's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, _: FrameType | None) -> None:
            self._interrupts += 1
            self.preempted |= number == signal.SIGTERM
            with contextlib.suppress(OSError):
                self._signal_writer.send_bytes(b".")

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        self._view.start()
        try:
            yield
        finally:
            self._view.stop()
