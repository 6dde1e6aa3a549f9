"""`spikebench train`: train one configuration, one line per epoch, and test the weights it ends with."""

from __future__ import annotations

import logging
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import yaml
from rich.console import Console

from configs.problems import ConfigError, Problem, Where
from configs.resolve import resolve, to_dict
from configs.schema import RunConfig
from orchestrator.commands.options import OVERRIDES, overrides_of
from orchestrator.reading.labels import duration
from orchestrator.tracking.run_tracking import RunDelivery, run_delivery
from orchestrator.tracking.targets import require_services
from trainers.checkpoint import newest_valid
from trainers.evaluation import evaluate
from trainers.protocol import EpochReport, Outcome, Result, RunFacts, SavedCheckpoint, TrainerError, Verdict
from trainers.training import train

CONTEXT_SETTINGS = OVERRIDES
EXIT_INTERRUPTED = 130
COLUMNS = {  # heading -> metric and format; a row fits into 80 characters
    "   loss": ("train_loss", "7.4f"),
    "   acc": ("train_accuracy", "6.4f"),
    "val loss": ("val_loss", "8.4f"),
    "val acc": ("val_accuracy", "7.4f"),
    "density": ("val_spike_density", "7.4f"),
    "     lr": ("learning_rate", "7.1e"),
}


def command(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Option("--config", "-c", help="A file, or a shipped configuration.")] = None,
    model_config: Annotated[str | None, typer.Option(help="File with the model's part.")] = None,
    train_config: Annotated[str | None, typer.Option(help="File with the training's part.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; runs/train/NAME OF THE FILE by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; the same number gives the same bits.")
    ] = None,
) -> None:
    """Train one configuration.

    Any key of it can be set: --training.epochs 3. Ctrl-C once saves a checkpoint and stops, twice stops at once.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    console = Console(highlight=False)
    resolved = resolve(config, overrides_of(ctx), model_config=model_config, train_config=train_config).config
    require_services(resolved.tracking)
    named = train_config or model_config or config or "run"
    folder = run_dir or Path("runs") / "train" / Path(named).stem
    start = find_start(folder, resume=resume)
    written = write_config(resolved, folder, keep=start is not None)
    console.print(f"resolved configuration: {written}", soft_wrap=True, markup=False)
    if resume:
        console.print(f"going on from {start}" if start else "no checkpoint yet: starting afresh", soft_wrap=True)
    go_on = shlex.join(["spikebench", "train", "--config", str(written), "--run-dir", str(folder), "--resume"])

    with run_delivery(resolved, folder, printing(console), resume=resume) as delivery:
        reporter = ConsoleReporter(console, delivery)
        try:
            with reporter.listening():
                result = train(resolved, reporter, start, run_dir=folder, threads=threads)
        except KeyboardInterrupt:
            console.print(f"stopped at once. Go on from the newest checkpoint with:\n{go_on}", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        delivery.ended(result.outcome)
        if result.outcome is not Outcome.FINISHED:
            saved = f"saved {result.checkpoint.path}" if result.checkpoint else "no checkpoint could be written"
            console.print(f"stopped in epoch {result.epochs + 1}; {saved}. Go on with:\n{go_on}", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED)
        show_end(console, result, threads)


def printing(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line as it is."""
    return lambda text: console.print(text, soft_wrap=True, markup=False)


def find_start(folder: Path, *, resume: bool) -> Path | None:
    """Return the checkpoint to go on from, or None for a fresh start.

    Raises:
        ConfigError: the folder holds checkpoints of an earlier run, and `--resume` is not given.
    """
    if resume:
        return newest_valid(folder)
    if any(folder.glob("ckpt-*.pt")):
        message = f"{folder} has checkpoints of an earlier run"
        raise ConfigError([Problem(Where(None), message, "add --resume to go on, or give another --run-dir")])
    return None


def write_config(config: RunConfig, folder: Path, *, keep: bool) -> Path:
    """Write the resolved configuration, whole, beside the checkpoints.

    Args:
        config: what is trained.
        folder: the run's folder.
        keep: leave a file that is there as it is: the one the run was started with.

    Raises:
        TrainerError: the folder cannot be written.
    """
    path = folder / "config.yaml"
    if keep and path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"cannot write {path}: {error.strerror or error}. Give a writable --run-dir") from error
    return path


def show_end(console: Console, result: Result, threads: int | None) -> None:
    """Print what the last epoch's weights do on the images nobody has looked at."""
    measure = "accuracy" if "val_accuracy" in result.metrics else "loss"
    best, last = (metrics[f"val_{measure}"] for metrics in (result.best, result.metrics))
    console.print(f"validation {measure} {last:.4f} (best epoch {best:.4f})")
    if result.checkpoint is None:
        console.print("no checkpoint could be written, so the test split was not measured")
        return
    measured = evaluate(result.checkpoint.path, "test", threads=threads)
    accuracy = f"accuracy [bold]{measured['test_accuracy']:.4f}[/], " if "test_accuracy" in measured else ""
    console.print(
        f"test {accuracy}loss {measured['test_loss']:.4f}, "
        f"spike density {measured['test_spike_density']:.4f} (weights of the last epoch)",
        soft_wrap=True,
    )
    console.print(f"checkpoint: {result.checkpoint.path}", soft_wrap=True, markup=False)


class ConsoleReporter:
    """Print a line per epoch and hand its numbers on; turn Ctrl-C into a verdict.

    Args:
        console: where to print.
        delivery: takes the numbers for other services.
    """

    def __init__(self, console: Console, delivery: RunDelivery) -> None:
        self._console = console
        self._delivery = delivery
        self._interrupted = False
        self._seconds: list[float] = []

    def started(self, facts: RunFacts) -> None:
        """Print what the run runs on, and the headings."""
        self._console.print(
            f"{facts.parameters:,} parameters on {facts.device}, neurons by {facts.neuron_backend}, "
            f"{facts.effective_batch} images per update",
            soft_wrap=True,
        )
        self._console.print("  epoch  " + "  ".join(COLUMNS) + "  seconds  left", style="bold", soft_wrap=True)

    def epoch(self, report: EpochReport) -> None:
        """Print the numbers of an epoch and hand them on."""
        self._delivery.epoch(report)
        self._seconds.append(report.seconds)
        recent = self._seconds[-5:]
        left = sum(recent) / len(recent) * (report.epochs - report.epoch)
        cells = "  ".join(_cell(report.metrics.get(name), style) for name, style in COLUMNS.values())
        line = f"{report.epoch:>3}/{report.epochs:<3}  {cells}  {report.seconds:7.1f}  {duration(left)}"
        self._console.print(line, soft_wrap=True)

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Say nothing: a checkpoint is no news."""

    def verdict(self) -> Verdict:
        """Ask for a checkpoint and an end once Ctrl-C was pressed."""
        return Verdict.PREEMPT if self._interrupted else Verdict.CONTINUE

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as wishes for the length of the block; a second one ends it at once."""
        owner = os.getpid()

        def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            if os.getpid() != owner:  # a loader process, which has inherited this handler
                return
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            self._console.print("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _cell(value: float | None, style: str) -> str:
    """Return a number in its format, or a dash as wide: an encoder that is trained alone has no accuracy."""
    return "-".rjust(int(style.partition(".")[0])) if value is None else format(value, style)
