"""One attempt at a trial, seen from the worker: start its process, write down what it says, keep the lease, end it."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections import deque
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from typing import Any

from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from orchestrator.database import Database
from orchestrator.doorbell import Doorbell
from orchestrator.errors import LeaseLostError, StorageError
from orchestrator.jobs import (
    AttemptStart,
    Claim,
    finish,
    forget_checkpoints,
    goes_on,
    hold,
    record_checkpoint,
    record_epochs,
    record_start,
)
from orchestrator.provenance import provenance
from orchestrator.tables import EndReason, JobState
from orchestrator.trial_process import TrialEnd, TrialSpec, main, write_config
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint, Verdict

BEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how soon a trial hears that it is cancelled or its study paused
STOP_PATIENCE_SECONDS = 10.0  # a trial that shall end leaves nothing behind that is worth waiting for
LONGEST_SILENCE_OF_DATABASE = 3600.0  # a finished trial's result is worth waiting for
log = logging.getLogger(__name__)


class Attempt:
    """Run one claimed trial to its end.

    Args:
        database: where everything is written.
        held: the claim.
        device: "cpu" or "cuda:N".
        context: forkserver that has the trainer imported.
    """

    def __init__(self, database: Database, held: Claim, device: str, context: ForkServerContext) -> None:
        self._database = database
        self._held = held
        self._device = device
        self._spec = TrialSpec(held.config, held.trainer, held.run_dir, device, held.threads)
        self._pipe, self._trial_pipe = context.Pipe()
        self._trial_lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(
            target=main, args=(self._trial_pipe, self._trial_lifeline, self._spec), name=f"trial-{held.trial_number}"
        )
        self._outbox: deque[RunFacts | EpochReport | SavedCheckpoint] = deque()
        self._end: TrialEnd | None = None
        self._sent = Verdict.CONTINUE
        self._reason_to_stop: str | None = None
        self._next_beat = 0.0
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._kill_at = math.inf
        self._pipe_open = True

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
            return self._conclude()
        except LeaseLostError as error:
            log.warning("%s", error)
            self._process.kill()
            return None
        finally:
            self._close()

    def _start(self) -> None:
        try:
            self._held.run_dir.mkdir(parents=True, exist_ok=True)
            write_config(self._spec)
            self._process.start()
        except OSError as error:
            self._end = TrialEnd(EndReason.ERROR, f"cannot start the trial in {self._held.run_dir}: {error}")
        self._trial_pipe.close()
        self._trial_lifeline.close()

    def _process_alive(self) -> bool:
        return self._end is None and self._process.is_alive()

    def _step(self, doorbell: Doorbell) -> None:
        own: list[Any] = [self._process.sentinel, *([self._pipe] if self._pipe_open else [])]
        due = min(self._next_beat, self._next_look, self._kill_at)
        wait([*own, *doorbell.sources], timeout=max(0.0, due - time.monotonic()))
        self._receive()
        doorbell.hear()
        if doorbell.leaving:
            self._tell(Verdict.PREEMPT)
        self._look()
        if time.monotonic() >= self._kill_at:
            self._process.kill()
        if self._end is None and (self._outbox or time.monotonic() >= self._next_beat):
            self._flush(patience=0.0)

    def _look(self) -> None:
        """Read once a second whether the trial shall go on; where not, the beat that says what is wanted is due."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if self._sent is Verdict.STOP:
            return
        with contextlib.suppress(DBAPIError), self._database.read() as connection:  # if it is away, the beat copes
            if not goes_on(connection, self._held):
                self._next_beat = now

    def _receive(self) -> None:
        """Take every message that is there."""
        try:
            while self._pipe_open and self._pipe.poll(0):
                message = self._pipe.recv()
                if isinstance(message, TrialEnd):
                    self._end = message
                else:
                    self._outbox.append(message)
        except (EOFError, OSError):
            self._pipe_open = False

    def _flush(self, patience: float) -> None:
        """Renew the lease and write what has come; what the database does not take now is kept for the next time."""
        try:
            verdict, reason = self._database.write(self._write, patience)
        except StorageError as error:
            log.warning("trial %d goes on without the database: %s", self._held.trial_number, error)
            self._next_beat = time.monotonic() + 1.0
            return
        self._outbox.clear()
        self._next_beat = time.monotonic() + BEAT_SECONDS
        if verdict is not Verdict.CONTINUE:
            self._reason_to_stop = reason
            self._tell(verdict)

    def _write(self, connection: SqlConnection) -> tuple[Verdict, str | None]:
        wish = hold(connection, self._held)
        for message in self._outbox:
            if isinstance(message, RunFacts):
                record_start(connection, self._held, self._facts_of(message))
            elif isinstance(message, SavedCheckpoint):
                record_checkpoint(connection, self._held, message)
        record_epochs(connection, self._held, [item for item in self._outbox if isinstance(item, EpochReport)])
        return wish

    def _facts_of(self, facts: RunFacts) -> AttemptStart:
        return AttemptStart(
            pid=self._process.pid or 0,
            log_path=self._spec.log_path,
            resumed_epoch=facts.resumed_epoch,
            neuron_backend=facts.neuron_backend,
            provenance=provenance(self._device),
        )

    def _tell(self, verdict: Verdict) -> None:
        if self._sent not in (verdict, Verdict.STOP):
            self._sent = verdict
            self._kill_at = time.monotonic() + STOP_PATIENCE_SECONDS if verdict is Verdict.STOP else math.inf
            with contextlib.suppress(OSError):
                self._pipe.send(verdict)

    def _conclude(self) -> JobState:
        if self._process.pid is not None:
            self._process.join(timeout=10.0)
        reason, detail = self._reason()

        def action(connection: SqlConnection) -> JobState:
            self._write(connection)
            kept = [path for path in self._held.run_dir.glob("ckpt-*") if path.is_file()]
            forget_checkpoints(connection, self._held.job_id, kept)
            return finish(connection, self._held, reason, detail)

        return self._database.write(action, LONGEST_SILENCE_OF_DATABASE)

    def _reason(self) -> tuple[EndReason, str]:
        if self._end is None and self._sent is Verdict.STOP:
            return EndReason(self._reason_to_stop or EndReason.CANCELLED), "ended by its worker: it did not listen"
        if self._end is None:
            code = self._process.exitcode
            how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
            return EndReason.CRASH, f"the trial's process ended without a word ({how}); log: {self._spec.log_path}"
        if self._end.reason is EndReason.FINISHED and self._sent is Verdict.STOP:
            return EndReason(self._reason_to_stop or EndReason.CANCELLED), self._end.detail
        detail = self._end.detail
        if self._end.reason not in (EndReason.FINISHED, EndReason.PREEMPTED) and self._process.pid is not None:
            detail = f"{detail}; log: {self._spec.log_path}"
        return self._end.reason, detail

    def _close(self) -> None:
        self._lifeline.close()  # should the process still live, it ends now
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(timeout=5.0)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._process.close()
