"""One trial in a process of its own: it trains, talks to its worker over a pipe, and dies with it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from configs.problems import SpikebenchError
from configs.schema import RunConfig
from orchestrator.errors import TrainerNotFoundError
from orchestrator.tables import EndReason
from trainers.protocol import (
    DivergedError,
    EpochReport,
    Outcome,
    Result,
    RunFacts,
    SavedCheckpoint,
    Trainer,
    Verdict,
)

EXIT_PREEMPTED = 75
EXIT_OOM = 70
OUR_TRAINER = ("trainers.training", "trainers.factory", "trainers.checkpoint")  # what `trainers:train` imports


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """Everything a trial process needs.

    Args:
        config: the resolved configuration.
        trainer: "module:function".
        run_dir: folder of the trial; the log and the checkpoints go there. A checkpoint that is there is gone on from.
        device: "cpu" or "cuda:N"; the process sees no other GPU.
        threads: CPU threads.
    """

    config: dict[str, Any]
    trainer: str
    run_dir: Path
    device: str
    threads: int

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
    """

    reason: EndReason
    detail: str = ""


class PipeReporter:
    """A reporter that sends everything to the worker and hears verdicts from it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._verdict = Verdict.CONTINUE

    def started(self, facts: RunFacts) -> None:
        """Send what the run runs on."""
        self._pipe.send(facts)

    def epoch(self, report: EpochReport) -> None:
        """Send the numbers of one epoch."""
        self._pipe.send(report)

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Send the note of a checkpoint."""
        self._pipe.send(saved)

    def verdict(self) -> Verdict:
        """Return the newest verdict the worker has sent."""
        while self._verdict is Verdict.CONTINUE and self._pipe.poll(0):
            self._verdict = self._pipe.recv()
        return self._verdict


def main(pipe: Connection, lifeline: Connection, spec: TrialSpec) -> None:
    """Run one trial and leave with the exit code of how it ended.

    Args:
        pipe: to and from the worker.
        lifeline: never carries anything; it closes when the worker is gone, and this process then ends at once.
        spec: what to run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's business; it tells the worker
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_worker, args=(lifeline,), daemon=True).start()
    _see_only(spec.device)
    with _logged(spec.log_path):
        end = run(spec, PipeReporter(pipe))
        sys.stdout.flush()
        sys.stderr.flush()
    pipe.send(end)
    pipe.close()
    os._exit({EndReason.PREEMPTED: EXIT_PREEMPTED, EndReason.OOM: EXIT_OOM}.get(end.reason, 0))


def run(spec: TrialSpec, reporter: PipeReporter) -> TrialEnd:
    """Train as the specification says and put whatever happens into an end reason."""
    try:
        trainer = load_trainer(spec.trainer)
        config = RunConfig.model_validate(spec.config)
        result = trainer(config, reporter, _newest_checkpoint(spec.run_dir), run_dir=spec.run_dir, threads=spec.threads)
        return _end_of(result)
    except DivergedError as error:
        traceback.print_exc()
        return TrialEnd(EndReason.NAN, str(error))
    except SpikebenchError as error:
        traceback.print_exc()
        return TrialEnd(EndReason.ERROR, str(error))
    except MemoryError as error:
        traceback.print_exc()
        return TrialEnd(EndReason.OOM, f"out of memory: {error}")
    except Exception as error:  # whatever a trainer raises ends one trial, never the worker
        traceback.print_exc()
        reason = EndReason.OOM if type(error).__name__ == "OutOfMemoryError" else EndReason.ERROR
        return TrialEnd(reason, f"{type(error).__name__}: {error}".splitlines()[0])


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
    path.write_text(yaml.safe_dump(spec.config, sort_keys=False))
    return path


def _newest_checkpoint(run_dir: Path) -> Path | None:
    """Return the newest checkpoint whose bytes verify; the files are asked, not SQL, which may lag behind them."""
    if not any(run_dir.glob("ckpt-*")):
        return None
    from trainers.checkpoint import newest_valid  # noqa: PLC0415 - loads torch, which another trainer may not need

    return newest_valid(run_dir)


def _end_of(result: Result) -> TrialEnd:
    if result.outcome is Outcome.PREEMPTED:
        return TrialEnd(EndReason.PREEMPTED, f"after epoch {result.epochs}")
    return TrialEnd(EndReason.FINISHED)  # a stopped trial gets its reason from whoever stopped it


def _die_with_worker(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def _see_only(device: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:") if device.startswith("cuda:") else ""


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send everything the process prints, native code included, to the trial's log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    yield
