"""Workers of this machine, one process per slot."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from orchestrator.errors import OrchestratorError
from orchestrator.machine.forkserver import ensure_forkserver, no_main_module
from orchestrator.machine.slots import Slot
from orchestrator.workers.doorbell import Ring
from orchestrator.workers.worker import WorkerSettings, main

SHORT_LIFE_SECONDS = 10.0
MOST_SHORT_LIVES = 5
KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)  # says nothing about whether workers can live here


@dataclass(slots=True)
class _Member:
    slot: Slot
    process: ForkServerProcess
    wire: Connection
    born: float


class LocalExecutor:
    """Keep one worker process per slot alive.

    Args:
        url: database URL.
        study_id: study the workers are for; None works for all.
        slots: places for workers.
        preload: modules that trials need.
    """

    def __init__(self, url: str, study_id: int | None, slots: Sequence[Slot], preload: Sequence[str]) -> None:
        self._url = url
        self._study_id = study_id
        self._slots = list(slots)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["orchestrator.workers.worker"])
        self._preload = tuple(preload)
        self._members: list[_Member] = []
        self._short_lives = 0
        self._leaving = False

    @property
    def slots(self) -> list[Slot]:
        """Places for workers."""
        return self._slots

    def start(self) -> None:
        """Start one worker per slot."""
        self._members = [self._launch(slot) for slot in self._slots]

    def sources(self) -> list[Connection]:
        """Return the wires of the workers; a dead worker's wire is readable too."""
        return [member.wire for member in self._members]

    def tend(self) -> None:
        """Take what the workers rang, and start those again that died.

        Raises:
            OrchestratorError: workers die again and again right after their start.
        """
        for index, member in enumerate(self._members):
            alive = _take_rings(member.wire) and member.process.is_alive()
            if alive or self._leaving:
                continue
            self._count_short_life(member)
            member.wire.close()
            self._members[index] = self._launch(member.slot)

    def wake(self) -> None:
        """Tell every worker that there is a job; those at work find out later by themselves."""
        self._say(Ring.JOB)

    def leave(self) -> None:
        """Ask every worker to checkpoint its trial, give it back and end."""
        self._leaving = True
        self._say(Ring.LEAVE)

    def living(self) -> int:
        """Return how many workers have not ended."""
        return sum(member.process.is_alive() for member in self._members)

    def kill(self) -> None:
        """Kill every worker; their trials end with them."""
        self._leaving = True
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.join(timeout=5.0)

    def _launch(self, slot: Slot) -> _Member:
        ensure_forkserver()
        ours, theirs = self._context.Pipe()
        settings = WorkerSettings(self._url, self._study_id, slot, self._preload)
        process = self._context.Process(target=main, args=(settings, theirs), name=f"worker-{slot.device}")
        with no_main_module():
            process.start()
        theirs.close()
        return _Member(slot, process, ours, time.monotonic())

    def _say(self, what: Ring) -> None:
        for member in self._members:
            with contextlib.suppress(OSError):
                member.wire.send(what)

    def _count_short_life(self, member: _Member) -> None:
        if member.process.exitcode in KILLED_FROM_OUTSIDE:
            return
        self._short_lives = self._short_lives + 1 if time.monotonic() - member.born < SHORT_LIFE_SECONDS else 0
        if self._short_lives >= MOST_SHORT_LIVES:
            raise OrchestratorError(
                f"workers on {member.slot.device} die right after their start (exit code {member.process.exitcode}): "
                "see the lines above; `spikebench doctor` tests this machine"
            )


def _take_rings(wire: Connection) -> bool:
    """Drop the rings that have come; False when the other end has closed."""
    try:
        while wire.poll(0):
            wire.recv()
    except (EOFError, OSError):
        return False
    return True
