"""What the controller asks of whoever starts its workers."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Protocol

from orchestrator.machine.slots import Slot


class Executor(Protocol):
    """Start workers, wake them, and make them leave."""

    @property
    def slots(self) -> list[Slot]:
        """Places for workers, one worker each."""

    def start(self) -> None:
        """Start one worker per slot."""

    def sources(self) -> list[Connection]:
        """Return connections that become readable when a job has ended or a worker has died."""

    def tend(self) -> None:
        """Take what the workers rang and start dead ones again."""

    def wake(self) -> None:
        """Tell the workers that there is a job."""

    def leave(self) -> None:
        """Ask every worker to checkpoint its trial, give it back and end."""

    def living(self) -> int:
        """Return how many workers have not ended."""

    def kill(self) -> None:
        """End every worker at once, and its trial with it."""
