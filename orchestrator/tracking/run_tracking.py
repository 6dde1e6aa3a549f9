"""Deliver the numbers of one run that belongs to no study, from a process of its own, so that it never waits."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from configs.problems import SpikebenchError
from configs.resolve import config_hash, to_dict
from configs.schema import RunConfig
from orchestrator.tracking.mlflow_sink import first_words
from orchestrator.tracking.sinks import DeliveryRefusedError, EpochMetrics, Sink, TrialFacts
from orchestrator.tracking.targets import (
    LAST_SECONDS,
    STOP,
    Note,
    Target,
    delivering,
    leave_signals_to_the_parent,
    noting,
    targets_of,
)
from trainers.protocol import EpochReport, Outcome

LONGEST_PAUSE_SECONDS = 60.0
LAST_TRIES = 3


class RunDelivery:
    """Hand over what a run reports; no call waits for a service.

    Args:
        wire: to the process that delivers; None drops everything.
    """

    def __init__(self, wire: Connection | None) -> None:
        self._wire = wire

    def epoch(self, report: EpochReport) -> None:
        """Hand over the numbers of an epoch."""
        self._send(EpochMetrics(report.epoch, time.time(), dict(report.metrics)))

    def ended(self, outcome: Outcome) -> None:
        """Hand over how the run ended; one that was preempted goes on later."""
        if outcome is not Outcome.PREEMPTED:
            self._send(End(str(outcome), time.time(), failed=False))

    def failed(self) -> None:
        """Hand over that an error ended the run."""
        self._send(End("error", time.time(), failed=True))

    def _send(self, message: object) -> None:
        if self._wire is not None:
            with contextlib.suppress(OSError):  # the process has died: its numbers are not worth the run
                self._wire.send(message)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    reason: str
    at: float
    failed: bool


@contextlib.contextmanager
def run_delivery(config: RunConfig, folder: Path, note: Note, *, resume: bool) -> Iterator[RunDelivery]:
    """Deliver a run's numbers while the block runs, and for at most 30 s after.

    They go to the services that the configuration asks for.

    Args:
        config: what is trained.
        folder: the run's folder; its name is the run's, and it keeps how far each service has been given the numbers.
        note: told in one line of trouble and its end; called from another thread.
        resume: go on with the run that the folder knows of.
    """
    targets = targets_of(config.tracking, folder)
    if not targets:
        yield RunDelivery(None)
        return
    if not resume:
        for target in targets:
            _mark_file(folder, target).unlink(missing_ok=True)
    facts = TrialFacts(
        number=0,
        name=folder.resolve().name,
        params=_flat(config.model_dump(mode="json", exclude={"tracking"})),
        config=to_dict(config),
        config_hash=config_hash(config),
        attempt=1,
        run_dir=str(folder.resolve()),
        started_at=time.time(),
        ended_at=None,
        end_reason=None,
        failed=False,
    )
    with delivering(main, (facts,), targets, note) as wire:
        delivery = RunDelivery(wire)
        try:
            yield delivery
        except SpikebenchError:
            delivery.failed()
            raise


def main(facts: TrialFacts, targets: list[Target], wire: Connection) -> None:
    """Deliver until told to stop, or until the training is gone.

    Args:
        facts: the run.
        targets: where to.
        wire: the other end is the training's: it sends epochs, the end and when to stop, and is sent notes for people.
    """
    leave_signals_to_the_parent()
    note = noting(wire, targets)
    couriers = [RunCourier(facts, target, note) for target in targets]
    threads = [threading.Thread(target=courier.work, daemon=True) for courier in couriers]
    for thread in threads:
        thread.start()
    with contextlib.suppress(EOFError, OSError):
        while (message := wire.recv()) != STOP:
            for courier in couriers:
                courier.take(message)
    for courier in couriers:
        courier.take(STOP)
    deadline = time.monotonic() + LAST_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for courier in couriers:
        if courier.missing:
            note(f"{courier.service} has not taken {courier.missing} epochs; --resume delivers them")
    wire.close()
    os._exit(0)  # a call that hangs in a thread must not hold the process


class RunCourier:
    """Carry a run's numbers to one service; what it has taken is kept in the run's folder.

    Args:
        facts: the run, not ended.
        target: the service.
        note: told of trouble and its end.
    """

    def __init__(self, facts: TrialFacts, target: Target, note: Note) -> None:
        self.service = target.service
        self._facts = facts
        self._target = target
        self._note = note
        self._path = _mark_file(Path(facts.run_dir), target)
        self._mark = _read_mark(self._path)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._waiting: list[EpochMetrics] = []
        self._newest = 0
        self._refused = False
        self._stop = False
        self._sink: Sink | None = None
        self._run_id = ""

    @property
    def missing(self) -> int:
        """How many epochs the service has not taken."""
        return 0 if self._refused else max(0, self._newest - self._mark.get("epoch", 0))

    def take(self, message: object) -> None:
        """Take an epoch, an end or `STOP`, from another thread."""
        if isinstance(message, EpochMetrics):
            self._newest = message.epoch
        self._inbox.put(message)

    def work(self) -> None:
        """Deliver what comes until told to stop; while the service is away, try again with growing pauses."""
        failures = last_failures = 0
        while last_failures < LAST_TRIES:
            try:
                self._deliver()
                if failures:
                    self._note(f"{self.service} answers again; what it missed is delivered")
                failures = 0
                if self._stop:
                    return
                self._receive(None)
            except DeliveryRefusedError as error:
                self._refused = True
                self._note(f"{self.service} refuses the run: {error}")
                return
            except Exception as error:  # the service's libraries raise what they like; the run goes on
                if not failures:
                    words = first_words(error)
                    self._note(
                        f"{self.service} cannot be reached ({words}); training goes on, numbers are delivered later"
                    )
                failures += 1
                self._sink = None
                if self._stop:
                    last_failures += 1
                    time.sleep(1.0)
                else:
                    self._receive(min(2.0**failures, LONGEST_PAUSE_SECONDS))

    def _receive(self, seconds: float | None) -> None:
        """Take in what has come; wait for one message, or for all that come in so many seconds."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._stop:
            try:
                self._sort(self._inbox.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                return
            if deadline is None and self._inbox.empty():
                return

    def _sort(self, message: object) -> None:
        if isinstance(message, EpochMetrics):
            if message.epoch > self._mark.get("epoch", 0):  # a resumed run reports its earlier epochs again
                self._waiting.append(message)
        elif isinstance(message, End):
            self._facts = replace(self._facts, end_reason=message.reason, ended_at=message.at, failed=message.failed)
        else:
            self._stop = True

    def _deliver(self) -> None:
        if self._sink is None:
            sink = self._target.open(self._note)
            sink.open_alone(self._facts.name)
            self._run_id = sink.open_trial(self._facts, self._mark.get("run_id"))
            self._sink = sink
            self._write_mark(self._mark.get("epoch", 0))
        if self._waiting:
            self._sink.log(self._run_id, self._waiting)
            self._write_mark(self._waiting[-1].epoch)
            self._waiting = []
        if self._stop:
            self._sink.close_trial(self._run_id, self._facts)

    def _write_mark(self, epoch: int) -> None:
        self._mark = {"run_id": self._run_id, "epoch": epoch}
        half = self._path.with_suffix(".tmp")
        half.write_text(json.dumps(self._mark), encoding="utf-8")
        half.replace(self._path)


def _mark_file(folder: Path, target: Target) -> Path:
    return folder / f"{target.name}.json"


def _read_mark(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        mark = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(mark, dict):
            return mark
    return {}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
