"""How a worker hears, between its own work, that there is a job or that it shall leave."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any

from orchestrator.machine.forkserver import accept_sigterm


class Ring(StrEnum):
    """What is said through a doorbell. Only hints: the truth is in the database."""

    JOB = "job"  # to a worker: there may be work
    LEAVE = "leave"  # to a worker: checkpoint, give the job back, end
    ENDED = "ended"  # from a worker: a job has ended


class Doorbell:
    """A worker's side of the wire to its controller, and of SIGTERM.

    Args:
        wire: connection to a local controller; None for a worker that was started alone. When the other end closes, the
            controller is gone and the worker leaves.
    """

    def __init__(self, wire: Connection | None) -> None:
        self._wire = wire
        self._signal_reader, self._signal_writer = multiprocessing.Pipe(duplex=False)
        self.leaving = False

    def listen_to_signals(self) -> None:
        """Leave on SIGTERM; ignore Ctrl-C, which reaches the whole process group and is the controller's to decide."""

        def leave(*_: Any) -> None:
            self.leaving = True
            with contextlib.suppress(OSError):
                self._signal_writer.send_bytes(b".")  # wakes whoever waits

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, leave)
        accept_sigterm()

    @property
    def sources(self) -> list[Connection]:
        """Connections to wait on beside one's own; none any more once the worker is leaving."""
        if self.leaving:
            return []
        return [self._signal_reader] if self._wire is None else [self._signal_reader, self._wire]

    def hear(self, timeout: float = 0.0) -> None:
        """Take what was said, waiting at most `timeout` seconds for something."""
        ready = wait(self.sources, timeout) if self.sources else []
        if self._wire is None or self._wire not in ready:
            return
        try:
            while self._wire.poll(0):
                self.leaving |= self._wire.recv() == Ring.LEAVE
        except (EOFError, OSError):
            self.leaving = True

    def ring(self, what: Ring) -> None:
        """Say something to the controller, if there is one."""
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.send(what)
