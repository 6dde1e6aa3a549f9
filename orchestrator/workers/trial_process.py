"""One trial in a process of its own: it trains, talks to its worker over a pipe, and dies with it."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from configs.problems import SpikebenchError
from configs.schema import RunConfig
from orchestrator.errors import TrainerNotFoundError
from orchestrator.machine.forkserver import accept_sigterm
from orchestrator.queue.endings import (
    EXIT_OOM,
    EXIT_PREEMPTED,
    kernel_kills,
    peak_memory_mb,
    peak_rss_mb,
    reason_of_error,
    reason_of_exit,
)
from orchestrator.storage.tables import EndReason
from trainers.protocol import (
    EpochReport,
    Outcome,
    ProcessLostError,
    Result,
    RunFacts,
    SavedCheckpoint,
    Trainer,
    Verdict,
)

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's takes a tenth of the time
ALIVE = "alive"  # the message of a trial that has made a step
ALIVE_SECONDS = 0.5  # shortest time between two of them
LONGEST_NAME = 128  # of a metric, as its column has it
OUR_TRAINER = ("trainers.training", "trainers.factory", "trainers.checkpoint")  # what `trainers:train` imports


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """Everything a trial process needs.

    Args:
        config: the resolved configuration.
        trainer: "module:function".
        run_dir: folder of the trial; the log and the checkpoints go there. A checkpoint that is there is gone on from.
        device: "cpu", "cuda:N", or "cuda:N,M" for a trial of two processes; it sees no other GPU.
        threads: CPU threads.
        attempt: number of the attempt at the trial.
    """

    config: dict[str, Any]
    trainer: str
    run_dir: Path
    device: str
    threads: int
    attempt: int

    @property
    def log_path(self) -> Path:
        """File with everything the trial's process prints."""
        return self.run_dir / "trial.log"


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """The last message of a trial process.

    Args:
        reason: why it ended.
        detail: one line for people.
        peak_memory_mb: most GPU memory it had reserved.
        peak_rss_mb: most host memory it had.
    """

    reason: EndReason
    detail: str = ""
    peak_memory_mb: float | None = None
    peak_rss_mb: float | None = None


class PipeReporter:
    """A reporter that sends everything to the worker and hears verdicts from it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._verdict = Verdict.CONTINUE
        self._alive_at = -math.inf

    def started(self, facts: RunFacts) -> None:
        """Send what the run runs on."""
        self._pipe.send(facts)

    def epoch(self, report: EpochReport) -> None:
        """Send the numbers of one epoch, as plain finite ones: nothing else has a place in a table.

        Raises:
            ValueError: the name of a metric is too long.
        """
        if long := [name for name in report.metrics if len(name) > LONGEST_NAME]:
            raise ValueError(f"expected names of metrics of at most {LONGEST_NAME} characters, got '{long[0]}'")
        metrics = {name: float(value) for name, value in report.metrics.items() if math.isfinite(value)}
        self._pipe.send(replace(report, metrics=metrics, seconds=float(report.seconds)))

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Send the note of a checkpoint."""
        self._pipe.send(saved)

    def verdict(self) -> Verdict:
        """Return the newest verdict the worker has sent, and let it know that the run lives."""
        if (now := time.monotonic()) >= self._alive_at + ALIVE_SECONDS:
            self._alive_at = now
            self._pipe.send(ALIVE)
        while self._verdict is Verdict.CONTINUE and self._pipe.poll(0):
            self._verdict = self._pipe.recv()
        return self._verdict

    def preempt(self) -> None:
        """Have the run write a checkpoint and end, whatever the worker says."""
        self._verdict = Verdict.PREEMPT


def main(pipe: Connection, lifeline: Connection) -> None:
    """Wait for the specification of a trial, run it, and leave with the exit code of how it ended.

    Args:
        pipe: to and from the worker; the specification comes first.
        lifeline: never carries anything; it closes when the worker is gone, and this process then ends at once.
    """
    reporter = PipeReporter(pipe)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's business; it tells the worker
    signal.signal(signal.SIGTERM, lambda *_: reporter.preempt())
    accept_sigterm()
    threading.Thread(target=_die_with_worker, args=(lifeline,), daemon=True).start()
    try:
        spec: TrialSpec = pipe.recv()
    except (EOFError, OSError):  # the worker had no trial for it
        os._exit(0)
    _see_only(spec.device)
    with _logged(spec.log_path):
        end = run(spec, reporter)
        with contextlib.suppress(OSError):  # the disk may be full
            sys.stdout.flush()
            sys.stderr.flush()
    pipe.send(replace(end, peak_memory_mb=peak_memory_mb(), peak_rss_mb=peak_rss_mb()))
    pipe.close()
    os._exit({EndReason.PREEMPTED: EXIT_PREEMPTED, EndReason.OOM: EXIT_OOM}.get(end.reason, 0))


def run(spec: TrialSpec, reporter: PipeReporter) -> TrialEnd:
    """Train as the specification says and put whatever happens into an end reason."""
    killed = kernel_kills()
    try:
        trainer = load_trainer(spec.trainer)
        config = RunConfig.model_validate(spec.config)
        more = {"attempt": spec.attempt} if "attempt" in inspect.signature(trainer).parameters else {}
        start = _newest_checkpoint(spec.run_dir, spec.attempt)
        return _end_of(trainer(config, reporter, start, run_dir=spec.run_dir, threads=spec.threads, **more))
    except ProcessLostError as error:  # as if it had been the trial's only process
        reason, how = reason_of_exit(error.exitcode, kernel_killed=kernel_kills() > killed)
        return TrialEnd(reason, f"{error}: {how}")
    except Exception as error:  # whatever a trainer raises ends one trial, never the worker
        with contextlib.suppress(OSError):
            traceback.print_exc()
        reason = reason_of_error(error)
        told = str(error) if isinstance(error, SpikebenchError) else f"{type(error).__name__}: {error}".splitlines()[0]
        return TrialEnd(reason, f"out of memory: {told}" if reason is EndReason.OOM else told)


def load_trainer(name: str) -> Trainer:
    """Import a trainer by `module:function`.

    Raises:
        TrainerNotFoundError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        trainer: Trainer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise TrainerNotFoundError(f"trainer '{name}' cannot be loaded: {error}; expected 'module:function'") from error
    return trainer


def require_trainer(name: str) -> None:
    """Raise unless the module of a trainer can be found, without importing it.

    Args:
        name: "module:function".

    Raises:
        TrainerNotFoundError: there is no such module.
    """
    module = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        found = False
    if not found:
        raise TrainerNotFoundError(
            f"trainer '{name}': there is no module '{module}'; expected 'module:function' that Python can import "
            "(PYTHONPATH tells it where)"
        )


def modules_of(trainer: str) -> tuple[str, ...]:
    """Return the modules that trials of a trainer import, to be imported once for all.

    Args:
        trainer: "module:function".
    """
    module = trainer.partition(":")[0]
    return OUR_TRAINER if module == "trainers" else (module,)


def write_config(spec: TrialSpec) -> Path:
    """Write the resolved configuration into the run folder, so that `spikebench train --config` repeats the trial."""
    path = spec.run_dir / "config.yaml"
    path.write_text(yaml.dump(spec.config, Dumper=DUMPER, sort_keys=False))
    return path


def _newest_checkpoint(run_dir: Path, attempt: int) -> Path | None:
    """Return the newest checkpoint whose bytes verify; the files are asked, not SQL, which may lag behind them."""
    if not any(run_dir.glob("ckpt-*")):
        return None
    from trainers.checkpoint import adopt_newest  # noqa: PLC0415 - loads torch, which another trainer may not need

    return adopt_newest(run_dir, attempt)


def _end_of(result: Result) -> TrialEnd:
    if result.outcome is Outcome.PREEMPTED:
        return TrialEnd(EndReason.PREEMPTED, "; ".join(filter(None, (f"after epoch {result.epochs}", result.note))))
    if result.outcome is Outcome.STOPPED:
        return TrialEnd(EndReason.CANCELLED, result.note)  # whoever stopped it says why
    return TrialEnd(EndReason.FINISHED, result.note)


def _die_with_worker(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def _see_only(device: str) -> None:
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's numbers; CUDA's own put the fastest GPU first
    os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:") if device.startswith("cuda:") else ""


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send everything the process prints, native code included, to the trial's log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(file=2)  # a fault in native code leaves its stack in the log
    faulthandler.register(signal.SIGUSR1, file=2)  # asked for by the worker before it ends a trial that hangs
    yield
