"""A snapshot of a study as a picture for the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from orchestrator.reading.labels import (
    duration,
    end_text,
    metric_text,
    number_text,
    roughly,
    rounded,
    short_keys,
    short_metric,
)
from orchestrator.reading.snapshot import StudySnapshot
from orchestrator.reading.views import StudyView, TrialFront, TrialState, spread
from orchestrator.storage.tables import StudyState

WIDE = 118  # columns from which front and ended trials stand side by side
MOST_LINES = 12  # of front and ended trials, however high the terminal
STATE_STYLES = {TrialState.FINISHED: "green", TrialState.STOPPED: "yellow", TrialState.FAILED: "red"}


def study_panel(snapshot: StudySnapshot, size: ConsoleDimensions, elapsed: float | None = None) -> RenderableType:
    """Return a picture of a study that fits a terminal.

    Args:
        snapshot: the study now.
        size: columns and lines there are.
        elapsed: seconds since this run of the study began; None leaves it out.
    """
    wide = size.width >= WIDE
    space = max(6, size.height - 12)  # lines left for the three tables
    running_lines = min(len(snapshot.running), max(2, space // 2))
    rest = space - running_lines
    each = min(MOST_LINES, max(2, rest if wide else rest // 2 - 1))
    parts: list[RenderableType] = [_head(snapshot, elapsed), _bar(snapshot), _figures(snapshot)]
    if snapshot.running:
        parts += [Text(), _running(snapshot, running_lines, size.width)]
    front = front_table(snapshot.study, snapshot.front, each, size.width)
    ended = _ended(snapshot, each)
    if wide and front and ended:
        beside = Table.grid(padding=(0, 4))
        beside.add_row(front, ended)
        parts += [Text(), beside]
    else:
        for table in (front, ended):
            parts += [Text(), table] if table else []
    return Group(Rule(style="bright_black"), *parts)


def _head(snapshot: StudySnapshot, elapsed: float | None) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    name = Text(snapshot.study.name, style="bold")
    name.append(f"  {snapshot.study.state}", style="cyan")
    if snapshot.study.state == StudyState.STOPPED and snapshot.study.state_detail:
        name.append(f"  {snapshot.study.state_detail}", style="yellow")
    times = Text()
    if elapsed is not None:
        times.append(f"{duration(elapsed)} so far", style="bright_black")
    left = snapshot.seconds_left
    if snapshot.running and left is not None:
        times.append("   " if elapsed is not None else "")
        times.append(f"{roughly(left)} left", style="bold")
    line.add_row(name, times)
    return line


def _bar(snapshot: StudySnapshot) -> RenderableType:
    done, total = len(snapshot.ended), max(snapshot.study.budget, len(snapshot.ended))
    line = Table.grid(expand=True, padding=(0, 2, 0, 0))
    line.add_column(ratio=1)
    line.add_column()
    line.add_row(
        ProgressBar(total=max(total, 1), completed=done, complete_style="cyan", finished_style="green"),
        Text.assemble((f"{done}", "bold"), f" of {snapshot.study.budget} trials{_hours(snapshot)}"),
    )
    return line


def _hours(snapshot: StudySnapshot) -> str:
    """Return how much of a budget in hours is used, where there is one."""
    hours = snapshot.study.budget_hours
    return "" if hours is None else f", {duration(snapshot.device_seconds)} of {hours:g} h"


def _figures(snapshot: StudySnapshot) -> Text:
    counts = Counter(trial.state for trial in snapshot.ended)
    parts = [Text(f"{counts[state]} {state}", style=style) for state, style in STATE_STYLES.items() if counts[state]]
    parts.append(Text(f"{len(snapshot.running)} running"))
    parts += [Text(f"{snapshot.waiting} waiting")] if snapshot.waiting else []
    parts.append(Text(f"{snapshot.workers} worker{'' if snapshot.workers == 1 else 's'}"))
    if snapshot.epochs_per_minute:
        parts.append(Text(f"{rounded(snapshot.epochs_per_minute)} epochs/min"))
    parts.append(Text(f"{duration(snapshot.device_seconds)} on devices"))
    return Text("  ·  ", style="bright_black").join(parts)


def _running(snapshot: StudySnapshot, lines: int, width: int) -> RenderableType:
    table = _table("Running")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("", width=16 if width >= 100 else 8)
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("s/epoch", justify="right", no_wrap=True)
    _objective_columns(table, snapshot.study)
    table.add_column("on", no_wrap=True, overflow="ellipsis")
    for trial in snapshot.running[:lines]:
        pace = f"{trial.epoch_seconds:.3g}" if trial.epoch_seconds else "-"
        where = trial.device + (f"@{trial.host}" if trial.host else "")
        where += f"  attempt {trial.attempt}" if trial.attempt > 1 else ""
        table.add_row(
            str(trial.number),
            ProgressBar(total=trial.epochs or 1, completed=trial.epoch, complete_style="cyan"),
            f"{trial.epoch}/{trial.epochs}" if trial.epochs else str(trial.epoch),
            pace,
            *_objective_cells(snapshot.study, trial.metrics),
            where,
        )
    if len(snapshot.running) > lines:
        table.caption = f"and {len(snapshot.running) - lines} more"
    return table


def front_table(study: StudyView, front: TrialFront, lines: int, width: int) -> Table | None:
    """Return a front as a table, best first in the first objective; None when there is nothing on it.

    Args:
        study: names the objectives and parameters.
        front: the trials to show.
        lines: at most so many; of more, a spread over the whole front is shown.
        width: columns of the terminal; parameters that do not fit are left out.
    """
    if not front.trials:
        return None
    single = len(study.objectives) == 1
    title = "Best" if single else f"Front, {len(front.trials)} trial{'s' if len(front.trials) > 1 else ''}"
    if not front.feasible:
        title = "No trial keeps the constraints; nearest"
    table = _table(title)
    table.add_column("trial", justify="right", no_wrap=True)
    _objective_columns(table, study)
    names = short_keys([parameter.key for parameter in study.parameters])
    room = max(1, (width // (2 if width >= WIDE else 1) - 10 - 16 * len(study.objectives)) // 14)
    shown = list(names)[:room]
    for key in shown:
        table.add_column(names[key], justify="right", no_wrap=True)
    for trial in spread(front.trials, lines):
        params = [number_text(trial.params[key]) if key in trial.params else "-" for key in shown]
        table.add_row(str(trial.number), *_objective_cells(study, trial.metrics), *params)
    return table


def _ended(snapshot: StudySnapshot, lines: int) -> RenderableType | None:
    newest = list(reversed(snapshot.ended[-lines:]))
    if not newest:
        return None
    table = _table("Last ended")
    table.add_column("trial", justify="right", no_wrap=True)
    _objective_columns(table, snapshot.study)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("end", no_wrap=True, overflow="ellipsis", max_width=48)
    for trial in newest:
        end = trial.state.value if trial.state is TrialState.FINISHED else end_text(trial.end_reason)
        table.add_row(
            str(trial.number),
            *_objective_cells(snapshot.study, trial.metrics),
            duration(trial.seconds),
            Text(end, style=STATE_STYLES[trial.state]),
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bright_black",
        caption_justify="left",
    )


def _objective_columns(table: Table, study: StudyView) -> None:
    for objective in study.objectives:
        arrow = "↑" if objective.direction == "maximize" else "↓"
        table.add_column(f"{short_metric(objective.metric)} {arrow}", justify="right", no_wrap=True)


def _objective_cells(study: StudyView, metrics: dict[str, float]) -> list[str]:
    return [metric_text(objective.metric, metrics.get(objective.metric)) for objective in study.objectives]
