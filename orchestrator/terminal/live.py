"""The view of a running study: a live picture in a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.reading.labels import duration, end_text, metric_text, roughly, short_metric
from orchestrator.reading.snapshot import RunningTrial, StudySnapshot
from orchestrator.reading.views import StudyView, TrialState, TrialView
from orchestrator.terminal.panel import study_panel

EPOCH_LINE_SECONDS = 5.0  # at most one line about epochs in this time
PROGRESS_LINE_SECONDS = 60.0


class View(Protocol):
    """Show a study while it runs."""

    def start(self) -> None:
        """Begin to show."""

    def update(self, snapshot: StudySnapshot) -> None:
        """Show the study as it is now."""

    def note(self, text: str) -> None:
        """Show one line that stays; may be called from another thread, also after `stop`."""

    def stop(self) -> None:
        """Leave the last state on the screen and let go of the terminal."""


def make_view(console: Console) -> View:
    """Return the live picture for a terminal, plain lines for a file, a pipe or a CI log."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else LogView(console)


class LiveView:
    """A picture of the study that is redrawn in place.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._started = time.monotonic()

    def start(self) -> None:
        """Begin to show."""
        self._started = time.monotonic()
        self._live.start()

    def update(self, snapshot: StudySnapshot) -> None:
        """Redraw the picture."""
        elapsed = time.monotonic() - self._started
        self._live.update(study_panel(snapshot, self._console.size, elapsed), refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the picture."""
        self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def stop(self) -> None:
        """Leave the last picture on the screen."""
        self._live.stop()


class LogView:
    """Lines of text: every end of a trial, and now and then an epoch and the progress.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: int | None = None  # ended trials that have had their line; None before the first snapshot
        self._epochs: dict[int, int] = {}
        self._next_epoch_line = 0.0
        self._next_progress_line = 0.0

    def start(self) -> None:
        """Wait for the first snapshot."""
        self._told = None

    def update(self, snapshot: StudySnapshot) -> None:
        """Write what is new since the last snapshot."""
        now = time.monotonic()
        if self._told is None:
            self._told = len(snapshot.ended)
        for trial in snapshot.ended[self._told :]:
            self._line(ended_line(snapshot.study, trial))
        news = len(snapshot.ended) > self._told
        self._told = len(snapshot.ended)
        self._tell_epoch(snapshot, now)
        if now >= self._next_progress_line or (news and not snapshot.running):
            self._line(progress_line(snapshot))
            self._next_progress_line = now + PROGRESS_LINE_SECONDS

    def note(self, text: str) -> None:
        """Write one line."""
        self._line(text)

    def stop(self) -> None:
        """Do nothing: every line is out already."""

    def _tell_epoch(self, snapshot: StudySnapshot, now: float) -> None:
        moved = [trial for trial in snapshot.running if trial.epoch > self._epochs.get(trial.number, 0)]
        if moved and now >= self._next_epoch_line:
            newest = max(moved, key=lambda trial: trial.epoch - self._epochs.get(trial.number, 0))
            self._line(epoch_line(snapshot.study, newest))
            self._next_epoch_line = now + EPOCH_LINE_SECONDS
            self._epochs = {trial.number: trial.epoch for trial in snapshot.running}

    def _line(self, text: str) -> None:
        self._console.print(time.strftime("%H:%M:%S"), text, soft_wrap=True, markup=False, highlight=False)


def ended_line(study: StudyView, trial: TrialView) -> str:
    """Return one line about a trial that has ended: its numbers, or why it failed and where its log is."""
    spent = f"{trial.epochs} epochs in {duration(trial.seconds)}"
    if trial.state is TrialState.FAILED:
        why = end_text(trial.end_reason) + (f": {trial.end_detail}" if trial.end_detail else "")
        log = f"; log: {trial.log_path}" if trial.log_path and trial.log_path not in trial.end_detail else ""
        return f"trial {trial.number} failed after {spent}: {why}{log}"
    how = "finished" if trial.state is TrialState.FINISHED else end_text(trial.end_reason)
    return f"trial {trial.number} {how}: {_values(study, trial.metrics)}; {spent}"


def epoch_line(study: StudyView, trial: RunningTrial) -> str:
    """Return one line about the newest epoch of a running trial."""
    of = f"/{trial.epochs}" if trial.epochs else ""
    pace = f"; {duration(trial.epoch_seconds)} per epoch" if trial.epoch_seconds else ""
    return f"trial {trial.number} epoch {trial.epoch}{of}: {_values(study, trial.metrics)}{pace}"


def progress_line(snapshot: StudySnapshot) -> str:
    """Return one line about the whole study."""
    parts = [f"{snapshot.study.name}: {len(snapshot.ended)} of {snapshot.study.budget} trials"]
    if failed := snapshot.count(TrialState.FAILED):
        parts.append(f"{failed} failed")
    parts.append(f"{len(snapshot.running)} running")
    if snapshot.front.trials:
        parts.append(f"{len(snapshot.front.trials)} on the front" if len(snapshot.study.objectives) > 1 else "")
    left = snapshot.seconds_left
    if left:
        parts.append(f"{roughly(left)} left")
    return ", ".join(part for part in parts if part)


def _values(study: StudyView, metrics: dict[str, float]) -> str:
    return ", ".join(
        f"{short_metric(o.metric)} {metric_text(o.metric, metrics.get(o.metric))}" for o in study.objectives
    )
