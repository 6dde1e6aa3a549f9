"""The report of a study: one HTML file, readable without a network, while the study runs and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from orchestrator.errors import OutputError
from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reading.importance import FEWEST_TRIALS, MOST_TRIALS, importances
from orchestrator.reading.labels import duration, end_text, hours, metric_label, metric_text, number_text, short_keys
from orchestrator.reading.snapshot import best_of
from orchestrator.reading.views import ENDED, TrialState, TrialView
from orchestrator.reports.report_figures import (
    curve_figure,
    firing_rate_figure,
    front_figures,
    history_figure,
    importance_figure,
    parallel_figure,
    slice_figure,
)
from orchestrator.reports.report_page import Page, cell, copyable, paragraph, table, text
from orchestrator.storage.database import Database

MOST_ROWS = 50
BEST_ROWS = 10
LOSSES = ("train_loss", "val_loss")


def write_report(database: Database, study_name: str, path: Path) -> Path:
    """Write the report of a study.

    Args:
        database: an open database.
        study_name: the study.
        path: the HTML file; an older one is replaced when the new one is complete.

    Returns:
        The path.

    Raises:
        StudyNotFoundError: there is no such study.
        OutputError: the file cannot be written.
    """
    page = render_report(read_history(database, study_name))
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write the report {path.resolve()}: {error.strerror}; give another --output"
        ) from error
    return path


def render_report(history: StudyHistory) -> str:
    """Return the report as HTML."""
    study = history.study
    page = Page(f"{study.name} - spikebench", _header(history), _footer(history))
    if history.finished:
        _add_front(page, history)
        _add_history(page, history)
        _add_importances(page, history)
        _add_parameters(page, history)
    else:
        page.section("front", "Results", paragraph("No trial has finished yet."))
    _add_curves(page, history)
    _add_firing_rates(page, history)
    _add_ends(page, history)
    return page.render()


def _header(history: StudyHistory) -> str:
    study = history.study
    counts = Counter(trial.state for trial in history.trials)
    ended = sum(counts[state] for state in ENDED)
    by_state = ", ".join(f"{counts[state]} {state}" for state in TrialState if counts[state])
    state = study.state + (f": {study.state_detail}" if study.state_detail else "")
    facts = [(f"{ended} of {study.budget} trials", by_state or "none yet"), *_best_facts(history)]
    spent = history.device_seconds
    facts += [
        (duration(history.wall_seconds), "from the first start to the last end"),
        (hours(spent) if spent >= 3600 else duration(spent), "device time, all trials together"),
        (study.space, f"space, hash {study.space_hash[:12]}, seed {study.seed}"),
        (history.database.masked_url, "database"),
    ]
    cards = "".join(_fact(value, name) for value, name in facts)
    goals = ", ".join(f"{o.direction} {metric_label(o.metric).lower()}" for o in study.objectives)
    goals += "".join(f", keep {constraint}" for constraint in study.constraints)
    return (
        f'<h1>{text(study.name)} <span class="state">{text(state)}</span></h1>'
        f'<div class="soft">{text(goals[:1].upper() + goals[1:])}</div><div class="facts">{cards}</div>'
    )


def _fact(value: str, name: str) -> str:
    size = ' class="long"' if len(value) > 20 else ""
    return f'<div class="fact"><b{size}>{text(value)}</b><span>{text(name)}</span></div>'


def _best_facts(history: StudyHistory) -> list[tuple[str, str]]:
    feasible = [trial for trial in history.finished if trial.violation <= 0]
    facts = []
    for index, objective in enumerate(history.study.objectives):
        if (best := best_of(feasible, index, objective.direction)) is not None:
            side = "highest" if objective.direction == "maximize" else "lowest"
            name = f"{side} {metric_label(objective.metric).lower()}, trial {best.number}"
            facts.append((metric_text(objective.metric, best.metrics[objective.metric]), name))
    return facts


def _footer(history: StudyHistory) -> str:
    when, made = (datetime.fromtimestamp(t, UTC) for t in (history.read_at, history.study.created_at))
    return text(
        f"Study created {made:%Y-%m-%d %H:%M} UTC. Report of {when:%Y-%m-%d %H:%M} UTC by spikebench "
        f"{version('spikebench')}. Values are of each trial's last epoch, on the validation split."
    )


def _add_front(page: Page, history: StudyHistory) -> None:
    study, front = history.study, history.front
    several = len(study.objectives) > 1
    parts = []
    if not front.feasible:
        bounds = ", ".join(str(constraint) for constraint in study.constraints)
        parts.append(paragraph(f"No trial keeps the constraints ({bounds}). These miss them least.", kind="note"))
    elif several:
        parts.append(paragraph("No other trial beats these in every objective. Point at a dot for its parameters."))
    figures = front_figures(history)
    places = [page.figure(figure) for figure in figures]
    parts += places if len(places) == 1 else [f'<div class="pair">{"".join(places)}</div>']
    parts.append(_front_table(history))
    page.section("front", "Pareto front" if several else "Best trials", *parts)


def _front_table(history: StudyHistory) -> str:
    study, trials = history.study, _listed(history)
    keys = [parameter.key for parameter in study.parameters]
    names = short_keys(keys)
    misses = [("misses by", True)] if not history.front.feasible else []
    headings = [("trial", True), *((metric_label(o.metric), True) for o in study.objectives), *misses]
    headings += [*((names[key], True) for key in keys), ("epochs", True), ("time", True)]
    rows = []
    for trial in trials[:MOST_ROWS]:
        cells = [cell(trial.number, number=True)]
        cells += [cell(metric_text(o.metric, trial.metrics.get(o.metric)), number=True) for o in study.objectives]
        cells += [cell(f"{100 * trial.violation:.3g} %", number=True)] if misses else []
        cells += [cell(number_text(trial.params[key]) if key in trial.params else "-", number=True) for key in keys]
        cells += [cell(trial.epochs, number=True), cell(duration(trial.seconds), number=True)]
        command = f'<td colspan="{len(headings) - 1}">{copyable(trial.replay_command)}</td>'
        rows.append(f'<tr class="headed">{"".join(cells)}</tr><tr class="command"><td></td>{command}</tr>')
    more = len(trials) - MOST_ROWS
    return table(headings, rows) + (paragraph(f"And {more} more trials on the front.") if more > 0 else "")


def _listed(history: StudyHistory) -> Sequence[TrialView]:
    """Return the trials to list: the front, or the best ones of a single objective."""
    if len(history.study.objectives) > 1 or not history.front.feasible:
        return history.front.trials
    sign = -1.0 if history.study.objectives[0].direction == "maximize" else 1.0
    feasible = [trial for trial in history.finished if trial.violation <= 0]
    return sorted(feasible, key=lambda trial: (sign * (trial.values or (0.0,))[0], trial.number))[:BEST_ROWS]


def _add_history(page: Page, history: StudyHistory) -> None:
    places = [page.figure(history_figure(history, index)) for index in range(len(history.study.objectives))]
    page.section("history", "History", f'<div class="pair">{"".join(places)}</div>')


def _add_importances(page: Page, history: StudyHistory) -> None:
    count = len(history.finished)
    shares = importances(history)
    if count < FEWEST_TRIALS:
        body = [paragraph(f"Needs {FEWEST_TRIALS} finished trials; there are {count}.")]
    elif not shares:
        body = [paragraph("The finished trials do not tell the parameters apart.")]
    else:
        caution = "; with so few trials take it as a hint" if count < 50 else ""
        taken = f"{min(count, MOST_TRIALS)} of {count}" if count > MOST_TRIALS else str(count)
        what = "How much each parameter decides which trials reach the best tenth"
        body = [
            paragraph(f"{what} (PED-ANOVA, {taken} trials{caution})."),
            page.figure(importance_figure(history, shares)),
        ]
    page.section("importance", "Parameter importance", *body)


def _add_parameters(page: Page, history: StudyHistory) -> None:
    study = history.study
    page.section(
        "parallel",
        "Parallel coordinates",
        paragraph("One line per trial. Drag along an axis to choose a range, drag an axis name to move it."),
        page.figure(parallel_figure(history), wide=True),
    )
    slices = [paragraph("Orange: trials of the front.")]
    for index, objective in enumerate(study.objectives):
        figures = (slice_figure(history, parameter, index) for parameter in study.parameters)
        places = "".join(page.figure(found) for found in figures)
        slices.append(f'<h3>{text(metric_label(objective.metric))}</h3><div class="grid">{places}</div>')
    page.section("slices", "Each parameter alone", *slices)


def _add_curves(page: Page, history: StudyHistory) -> None:
    metrics = list(dict.fromkeys([*(objective.metric for objective in history.study.objectives), *LOSSES]))
    figures = [found for metric in metrics if (found := curve_figure(history, metric)) is not None]
    if figures:
        places = "".join(page.figure(found) for found in figures)
        words = "Coloured: trials of the front, from the best in the first objective (dark) on. Grey: the others."
        page.section("curves", "Learning curves", paragraph(words), f'<div class="pair">{places}</div>')


def _add_firing_rates(page: Page, history: StudyHistory) -> None:
    found = firing_rate_figure(history)
    if found is not None:
        words = "Spikes per neuron and time step on the validation split, for trials of the front."
        page.section("rates", "Firing rates by layer", paragraph(words), page.figure(found, wide=True))


def _add_ends(page: Page, history: StudyHistory) -> None:
    counts = Counter(trial.end_reason for trial in history.trials if trial.state in ENDED)
    rows = [
        f"<tr>{cell(reason)}{cell(count, number=True)}{cell(end_text(reason))}</tr>"
        for reason, count in counts.most_common()
    ]
    parts = [table([("end", False), ("trials", True), ("meaning", False)], rows)] if rows else []
    failed = [trial for trial in history.trials if trial.state is TrialState.FAILED]
    failed.sort(key=lambda trial: -(trial.ended_at or math.inf))
    if failed:
        parts.append("<h3>Failed trials</h3>")
        parts.append(
            paragraph("Newest first." if len(failed) <= MOST_ROWS else f"The newest {MOST_ROWS} of {len(failed)}.")
        )
        parts.append(
            table([("trial", True), ("end", False), ("what happened", False)], map(_failure_row, failed[:MOST_ROWS]))
        )
    page.section("ends", "How trials ended", *(parts or [paragraph("No trial has ended yet.")]))


def _failure_row(trial: TrialView) -> str:
    log = f"<div><code>{text(trial.log_path)}</code></div>" if trial.log_path else ""
    tries = f" ({trial.attempts} attempts)" if trial.attempts > 1 else ""
    what = f"<td>{text(trial.end_detail)}{text(tries)}{log}</td>"
    return f"<tr>{cell(trial.number, number=True)}{cell(trial.end_reason)}{what}</tr>"
