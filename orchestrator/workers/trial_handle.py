"""A trial's process as its worker holds it, and the next one, started ahead while the worker waits for work."""

from __future__ import annotations

import contextlib
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Protocol

from orchestrator.machine.forkserver import ensure_forkserver
from orchestrator.workers.trial_process import TrialSpec, main

EXIT_SECONDS = 5.0  # how long a process that has nothing left to do may take to end


class Running(Protocol):
    """What a trial runs in, with the names that `multiprocessing` gives to a process."""

    @property
    def pid(self) -> int | None:
        """Process id; None without a process of its own."""

    @property
    def sentinel(self) -> int | Connection:
        """Readable once the trial has ended."""

    @property
    def exitcode(self) -> int | None:
        """How it ended; None before."""

    def is_alive(self) -> bool:
        """Tell whether it has not ended."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""

    def kill(self) -> None:
        """End it at once."""


class Handle(Protocol):
    """A trial as its worker holds it."""

    @property
    def pipe(self) -> Connection:
        """What the trial says, and hears."""

    @property
    def process(self) -> Running:
        """What it runs in."""

    def begin(self, spec: TrialSpec) -> None:
        """Run a trial."""

    def close(self) -> None:
        """End the trial if it has not ended."""


class Handles(Protocol):
    """Where a worker gets one handle after the other from."""

    def prepare(self) -> None:
        """Make ready for the next trial."""

    def take(self) -> Handle:
        """Return what waits for its trial."""

    def close(self) -> None:
        """End what waits."""


class TrialHandle:
    """A process that waits for the specification of a trial and then runs it.

    Args:
        context: forkserver that has the trainer imported.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, context: ForkServerContext) -> None:
        ensure_forkserver()
        self.pipe, trial_pipe = context.Pipe()
        trial_lifeline, self._lifeline = context.Pipe(duplex=False)
        self.process: ForkServerProcess = context.Process(target=main, args=(trial_pipe, trial_lifeline), name="trial")
        try:
            self.process.start()
        except BaseException:
            self.pipe.close()
            self._lifeline.close()
            raise
        finally:
            trial_pipe.close()
            trial_lifeline.close()

    def begin(self, spec: TrialSpec) -> None:
        """Have the process run a trial.

        Raises:
            OSError: the process has died.
        """
        self.pipe.send(spec)

    def close(self) -> None:
        """End the process if it has not ended, and wait until it is gone."""
        self._lifeline.close()  # should the process still live, it ends now
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.join(timeout=EXIT_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class TrialHandles:
    """Processes for one trial after the other.

    Starting one takes 10 to 20 ms. A worker that has just finished a trial waits about as long for the next, so it
    starts the process then. No spare process exists while a trial runs.

    Args:
        context: forkserver that has the trainer imported.
    """

    def __init__(self, context: ForkServerContext) -> None:
        self._context = context
        self._spare: TrialHandle | None = None

    def prepare(self) -> None:
        """Start a process for the next trial, if none waits; a failure shows again when the process is needed."""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = TrialHandle(self._context)

    def take(self) -> TrialHandle:
        """Return a process that waits for its trial.

        Raises:
            OSError: no process can be started.
        """
        spare, self._spare = self._spare, None
        if spare is not None and spare.process.is_alive():
            return spare
        if spare is not None:
            spare.close()
        return TrialHandle(self._context)

    def close(self) -> None:
        """End the process that waits."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
