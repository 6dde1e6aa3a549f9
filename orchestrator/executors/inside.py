"""A worker in a thread of this process."""

from __future__ import annotations

import contextlib
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from orchestrator.workers.doorbell import Doorbell, Ring
from orchestrator.workers.trial_handle import Handles
from orchestrator.workers.worker import Worker, WorkerSettings


class InsideWorker:
    """A worker that lives and dies with this process.

    Args:
        settings: what to work on.
        handles: what its trials run in; None is a process for each.
    """

    def __init__(self, settings: WorkerSettings, handles: Handles | None = None) -> None:
        self.wire, theirs = Pipe()
        self.id: str | None = None  # key in `sb_workers`, once it has opened the database
        self.problem: Exception | None = None  # why it ended, unless it was asked to
        self._thread = threading.Thread(target=self._work, args=(settings, theirs, handles), name="worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def say(self, what: Ring) -> None:
        """Ring its doorbell."""
        with contextlib.suppress(OSError):
            self.wire.send(what)

    def heard(self) -> int:
        """Return how many jobs have ended since this was asked last."""
        rings = 0
        with contextlib.suppress(EOFError, OSError):
            while self.wire.poll(0):
                rings += self.wire.recv() == Ring.ENDED
        return rings

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    def _work(self, settings: WorkerSettings, wire: Connection, handles: Handles | None) -> None:
        try:
            worker = Worker(settings, Doorbell(wire), handles)
            self.id = worker.id
            worker.run()
        except Exception as error:  # whoever holds this worker says it where people see it
            self.problem = error
        finally:
            wire.close()
