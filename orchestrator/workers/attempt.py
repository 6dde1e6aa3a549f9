"""One attempt at a trial, seen from the worker: start its process, write down what it says, keep the lease, end it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections import deque
from multiprocessing.connection import wait
from typing import Any

from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import LeaseLostError, StorageError
from orchestrator.machine.provenance import provenance
from orchestrator.queue.endings import kernel_kills, reason_of_exit
from orchestrator.queue.jobs import Claim, finish, goes_on, hold
from orchestrator.queue.records import (
    AttemptStart,
    drop_overtaken_epochs,
    forget_checkpoints,
    record_checkpoint,
    record_epochs,
    record_peaks,
    record_start,
)
from orchestrator.queue.timing import beat_seconds
from orchestrator.storage.database import Database, first_line
from orchestrator.storage.tables import EndReason, JobState
from orchestrator.workers.doorbell import Doorbell, Ring
from orchestrator.workers.trial_handle import Handle, Handles
from orchestrator.workers.trial_process import ALIVE, TrialEnd, TrialSpec, write_config
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint, Verdict

LOOK_SECONDS = 1.0  # how soon a trial hears that it is cancelled or its study paused
GATHER_SECONDS = 0.05  # what a trial says within so short a time is written together
RETRY_SECONDS = 1.0  # between two attempts to reach a database that is away
STOP_PATIENCE_SECONDS = 10.0  # a trial that shall end leaves nothing behind that is worth waiting for
DUMP_SECONDS = 1.0  # time for a trial that hangs to write its stack into its log
LONGEST_SILENCE_OF_DATABASE = 3600.0  # a finished trial's result is worth waiting for
log = logging.getLogger(__name__)


class Attempt:
    """Run one claimed trial to its end.

    Args:
        database: where everything is written.
        held: the claim.
        device: "cpu", "cuda:N", or "cuda:N,M" for trials of two processes.
        handles: give the process it runs in.
    """

    def __init__(self, database: Database, held: Claim, device: str, handles: Handles) -> None:
        self._database = database
        self._held = held
        self._device = device
        self._spec = TrialSpec(
            held.attempt_config, held.trainer, held.run_dir, device, held.threads, attempt=held.attempt
        )
        self._handles = handles
        self._handle: Handle | None = None  # before the start, and where it failed
        self._outbox: deque[RunFacts | EpochReport | SavedCheckpoint] = deque()
        self._end: TrialEnd | None = None
        self._sent = Verdict.CONTINUE
        self._reason_to_stop: str | None = None
        self._next_beat = time.monotonic() + beat_seconds()  # the claim was the first
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._kill_at = math.inf
        self._away = False  # the database
        self._pipe_open = True
        hang_seconds = self._spec.config.get("training", {}).get("hang_seconds")
        self._hang_seconds = math.inf if hang_seconds is None else float(hang_seconds)
        self._alive_at = math.inf  # when the trial last said something; not before it has started
        self._hangs = False
        self._kernel_kills = (0, 0)  # at the last two looks

    def run(self, doorbell: Doorbell) -> JobState | None:
        """Run the trial until it ends, is preempted or is lost to another worker.

        Args:
            doorbell: says when this worker shall leave; the trial is then preempted.

        Returns:
            What became of the job; None when another worker has it now.
        """
        try:
            self._start()
            while self._process_alive():
                self._step(doorbell)
            self._receive()
            state = self._conclude()
        except LeaseLostError as error:
            log.warning("%s", error)
            self._kill()
            return None
        else:
            doorbell.ring(Ring.ENDED)  # the controller asks for the next trial while this one's process goes
            return state
        finally:
            if self._handle is not None:
                self._handle.close()

    def _start(self) -> None:
        try:
            self._held.run_dir.mkdir(parents=True, exist_ok=True)
            self._handle = self._handles.take()
            with contextlib.suppress(ConnectionError):  # it has died meanwhile; its exit code tells how
                self._handle.begin(self._spec)
            write_config(self._spec)  # while the trial starts
        except OSError as error:
            self._end = TrialEnd(EndReason.ERROR, f"cannot start the trial in {self._held.run_dir}: {error}")
        self._alive_at = time.monotonic()
        self._kernel_kills = (kernel_kills(),) * 2

    def _process_alive(self) -> bool:
        return self._end is None and self._handle is not None and self._handle.process.is_alive()

    def _kill(self) -> None:
        if self._handle is not None:
            self._handle.process.kill()

    def _step(self, doorbell: Doorbell) -> None:
        assert self._handle is not None
        own: list[Any] = [self._handle.process.sentinel, *([self._handle.pipe] if self._pipe_open else [])]
        due = min(self._next_beat, self._next_look, self._kill_at, self._alive_at + self._hang_seconds)
        wait([*own, *doorbell.sources], timeout=max(0.0, due - time.monotonic()))
        self._receive()
        doorbell.hear()
        if doorbell.leaving:
            self._tell(Verdict.PREEMPT)
        self._look()
        self._watch_for_hang()
        if time.monotonic() >= self._kill_at:
            self._kill()
        if self._end is None and time.monotonic() >= self._next_beat:
            self._flush(patience=0.0)

    def _look(self) -> None:
        """Read once a second whether the trial shall go on; where not, the beat that says what is wanted is due."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        self._kernel_kills = (self._kernel_kills[1], kernel_kills())
        if self._sent is Verdict.STOP:
            return
        with contextlib.suppress(DBAPIError), self._database.read() as connection:  # if it is away, the beat copes
            if not goes_on(connection, self._held):
                self._next_beat = now

    def _watch_for_hang(self) -> None:
        """End a trial that has neither stepped nor reported for too long; its stack goes into its log first."""
        if self._end is None and not self._hangs and time.monotonic() >= self._alive_at + self._hang_seconds:
            self._hangs = True
            self._alive_at = math.inf
            self._kill_at = time.monotonic() + DUMP_SECONDS
            if self._pid:
                with contextlib.suppress(OSError):
                    os.kill(self._pid, signal.SIGUSR1)

    def _receive(self) -> None:
        """Take every message that is there."""
        if self._handle is None:
            return
        try:
            while self._pipe_open and self._handle.pipe.poll(0):
                message = self._handle.pipe.recv()
                if not self._hangs:
                    self._alive_at = time.monotonic()
                if isinstance(message, TrialEnd):
                    self._end = self._end or message
                elif message != ALIVE:
                    self._outbox.append(message)
                    if not self._away:
                        self._next_beat = min(self._next_beat, time.monotonic() + GATHER_SECONDS)
        except (EOFError, OSError):
            self._pipe_open = False

    def _flush(self, patience: float) -> None:
        """Renew the lease and write what has come; what the database does not take now is kept for the next time."""
        try:
            verdict, reason = self._database.write(self._write, patience)
        except StorageError as error:
            if not self._away:
                log.warning("trial %d goes on without the database: %s", self._held.trial_number, error)
            self._away = True
            self._next_beat = time.monotonic() + RETRY_SECONDS
            return
        except DBAPIError as error:  # not away: it refuses what this trial reports, and would refuse it again
            self._refuse(error)
            self._kill()
            return
        self._away = False
        self._outbox.clear()
        self._next_beat = time.monotonic() + beat_seconds()
        if verdict is not Verdict.CONTINUE:
            self._reason_to_stop = reason
            self._tell(verdict)

    def _write(self, connection: SqlConnection) -> tuple[Verdict, str | None]:
        wish = hold(connection, self._held)
        self._record(connection)
        return wish

    def _record(self, connection: SqlConnection) -> None:
        for message in self._outbox:
            if isinstance(message, RunFacts):
                record_start(connection, self._held, self._facts_of(message))
            elif isinstance(message, SavedCheckpoint):
                record_checkpoint(connection, self._held, message)
        record_epochs(connection, self._held, [item for item in self._outbox if isinstance(item, EpochReport)])

    @property
    def _pid(self) -> int:
        return 0 if self._handle is None else self._handle.process.pid or 0

    def _facts_of(self, facts: RunFacts) -> AttemptStart:
        return AttemptStart(self._pid, self._spec.log_path, facts, provenance(self._device))

    def _tell(self, verdict: Verdict) -> None:
        if self._sent not in (verdict, Verdict.STOP):
            self._sent = verdict
            self._kill_at = time.monotonic() + STOP_PATIENCE_SECONDS if verdict is Verdict.STOP else math.inf
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.pipe.send(verdict)

    def _conclude(self) -> JobState:
        if self._end is None and self._handle is not None:  # it died; how tells why
            self._handle.process.join(timeout=10.0)
        reason, detail = self._reason()

        def action(connection: SqlConnection) -> JobState:
            state = finish(connection, self._held, reason, detail)  # before all else: it refuses who has lost the trial
            self._record(connection)
            kept = [path for path in self._held.run_dir.glob("ckpt-*") if path.is_file()]
            forget_checkpoints(connection, self._held.job_id, kept)
            if self._end is not None:
                record_peaks(connection, self._held, self._end.peak_memory_mb, self._end.peak_rss_mb)
            if state is JobState.DONE and reason is not EndReason.FINISHED and self._held.attempt > 1:
                drop_overtaken_epochs(connection, self._held)
            return state

        try:
            return self._database.write(action, LONGEST_SILENCE_OF_DATABASE)
        except DBAPIError as error:
            self._refuse(error)
            reason, detail = self._reason()
            return self._database.write(action, LONGEST_SILENCE_OF_DATABASE)

    def _refuse(self, error: DBAPIError) -> None:
        """Make an error of the trial of what the database will never take; the worker lives on."""
        self._outbox.clear()
        self._end = TrialEnd(EndReason.ERROR, f"the database refuses what the trial reports: {first_line(error)}")

    def _reason(self) -> tuple[EndReason, str]:
        log = f"log: {self._spec.log_path}"
        if self._end is None and self._hangs:
            return EndReason.HANG, f"no step and no report for {self._hang_seconds:g} s; {log} has where it stood"
        if self._end is None and self._sent is Verdict.STOP:
            return EndReason(self._reason_to_stop or EndReason.CANCELLED), "ended by its worker: it did not listen"
        if self._end is None:
            killed = kernel_kills() > self._kernel_kills[0]
            code = None if self._handle is None else self._handle.process.exitcode
            reason, how = reason_of_exit(code, kernel_killed=killed)
            return reason, f"the trial's process ended without a word ({how}); {log}"
        if self._end.reason is EndReason.CANCELLED:
            return EndReason(self._reason_to_stop or EndReason.CANCELLED), self._end.detail
        detail = self._end.detail
        if self._end.reason not in (EndReason.FINISHED, EndReason.PREEMPTED) and self._handle is not None:
            detail = f"{detail}; {log}"
        return self._end.reason, detail
