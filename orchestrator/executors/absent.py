"""Workers that somebody else starts, on this machine or another; they find their work in the database."""

from __future__ import annotations

from multiprocessing.connection import Connection

from orchestrator.machine.slots import Slot


class AbsentExecutor:
    """Start nothing: a controller with it waits for workers from anywhere."""

    @property
    def slots(self) -> list[Slot]:
        """Return no places: the workers that are there are counted in the database."""
        return []

    def start(self) -> None:
        """Start nothing."""

    def sources(self) -> list[Connection]:
        """Return nothing to wait on: what workers do is read at every tick."""
        return []

    def tend(self) -> None:
        """Leave the workers to whoever started them."""

    def wake(self) -> None:
        """Do nothing: workers look for work once a second."""

    def leave(self) -> None:
        """Do nothing: workers leave a study that has stopped by themselves and wait for another."""

    def living(self) -> int:
        """Return 0: none is this controller's to wait for."""
        return 0

    def kill(self) -> None:
        """Kill nothing."""
