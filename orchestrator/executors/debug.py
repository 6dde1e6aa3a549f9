"""Trials one after the other inside the controller's process, where a debugger reaches them."""

from __future__ import annotations

import contextlib
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from orchestrator.errors import OrchestratorError
from orchestrator.executors.inside import InsideWorker
from orchestrator.machine.slots import Slot
from orchestrator.workers.doorbell import Ring
from orchestrator.workers.trial_process import PipeReporter, TrialSpec, run
from orchestrator.workers.worker import WorkerSettings

KILL_SECONDS = 2.0  # how long an abandoned trial is waited for


class DebugExecutor:
    """One worker whose trials are threads of this process: no process is started, and breakpoints work.

    A trial can fail but not crash without the study, and one that hears nothing cannot be ended.

    Args:
        url: database URL.
        study_id: study to work for.
        slot: device and threads.
    """

    def __init__(self, url: str, study_id: int, slot: Slot) -> None:
        self._settings = WorkerSettings(url, study_id, slot, ())
        self._worker: InsideWorker | None = None

    @property
    def slots(self) -> list[Slot]:
        """The one place."""
        return [self._settings.slot]

    def start(self) -> None:
        """Start the worker."""
        self._worker = InsideWorker(self._settings, ThreadHandles())

    def sources(self) -> list[Connection]:
        """Return the worker's wire."""
        return [self._worker.wire] if self._worker is not None and self._worker.alive else []

    def tend(self) -> None:
        """Take what the worker rang.

        Raises:
            OrchestratorError: it has ended by an error.
        """
        if self._worker is None:
            return
        self._worker.heard()
        if self._worker.problem is not None:
            raise OrchestratorError(f"the worker ended: {self._worker.problem}") from self._worker.problem

    def wake(self) -> None:
        """Tell the worker that there is a job."""
        self._say(Ring.JOB)

    def leave(self) -> None:
        """Ask the worker to checkpoint its trial, give it back and end."""
        self._say(Ring.LEAVE)

    def living(self) -> int:
        """Return 1 while the worker has not ended."""
        return int(self._worker is not None and self._worker.alive)

    def kill(self) -> None:
        """Let the worker go; a trial that listens ends, one that does not ends with this process."""
        self.leave()
        if self._worker is not None:
            self._worker.join(KILL_SECONDS)

    def _say(self, what: Ring) -> None:
        if self._worker is not None:
            self._worker.say(what)


class ThreadHandles:
    """Threads of this process for one trial after the other."""

    def prepare(self) -> None:
        """Do nothing: a thread starts at once."""

    def take(self) -> ThreadHandle:
        """Return a thread that waits for its trial."""
        return ThreadHandle()

    def close(self) -> None:
        """Do nothing: no thread waits."""


class ThreadHandle:
    """A trial in a thread of this process."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        self.process = TrialThread(theirs)

    def begin(self, spec: TrialSpec) -> None:
        """Start the trial."""
        self.process.begin(spec)

    def close(self) -> None:
        """Hear nothing more of the trial."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.join(KILL_SECONDS)


class TrialThread(threading.Thread):
    """Runs one trial, under the names that a process has.

    Args:
        pipe: to and from its worker.
    """

    pid = None
    exitcode = None

    def __init__(self, pipe: Connection) -> None:
        super().__init__(name="trial", daemon=True)
        self.sentinel, self._ended = Pipe(duplex=False)
        self._pipe = pipe
        self._spec: TrialSpec | None = None
        self._killed = False

    def begin(self, spec: TrialSpec) -> None:
        """Run a trial."""
        self._spec = spec
        self.start()

    def run(self) -> None:
        """Train, and send how it ended."""
        assert self._spec is not None
        try:
            end = run(self._spec, PipeReporter(self._pipe))
            with contextlib.suppress(OSError):  # nobody listens any more
                self._pipe.send(end)
        finally:
            self._pipe.close()
            self._ended.close()

    def is_alive(self) -> bool:
        """Tell whether the trial has not ended; one that was killed counts as ended."""
        return not self._killed and super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the trial has ended; one that was killed is not waited for."""
        if not self._killed:
            super().join(timeout)

    def kill(self) -> None:
        """Make the trial's next word an error, and wait no longer: nothing ends a thread at once."""
        self._killed = True
        self._pipe.close()
        self._ended.close()
