"""The figures of a study's report, each a function of its history."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from orchestrator.reading.history import StudyHistory
from orchestrator.reading.labels import metric_label, number_text, short_keys
from orchestrator.reading.views import Parameter, TrialView, spread
from orchestrator.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    HEAT_SCALE,
    ORANGE,
    SCALE,
    figure,
    hover,
    metric_axis,
    natural,
    parameter_axis,
    scaled,
    spans_decades,
    text_of,
)

# A browser draws so many quickly without a graphics card; more would not show more. The front is always drawn whole.
MOST_DOTS = 3000
MOST_SLICE_DOTS = 1000
MOST_LINES = 500
MOST_CURVES = 300
NAMED_TRIALS = 8
PAIRS = 6


def front_figures(history: StudyHistory) -> list[go.Figure]:
    """Return the front as one figure for each pair of objectives; none for a single objective."""
    pairs = itertools.islice(itertools.combinations(range(len(history.study.objectives)), 2), PAIRS)
    return [_front_figure(history, across=second, up=first) for first, second in pairs]


def _front_figure(history: StudyHistory, across: int, up: int) -> go.Figure:
    study, front = history.study, history.front
    on_front = {trial.number for trial in front.trials}
    others = [trial for trial in history.finished if trial.number not in on_front]
    groups = [
        ("breaks a constraint", {"color": GREY, "symbol": "x", "opacity": 0.6, "size": 7},
         [trial for trial in others if not trial.violation <= 0]),
        ("dominated", {"color": BLUE, "opacity": 0.45, "size": 7},
         [trial for trial in others if trial.violation <= 0]),
    ]  # fmt: skip
    traces = [_dots(history, trials, across, up, name=name, marker=marker) for name, marker, trials in groups if trials]
    if len(study.objectives) == 2 and front.feasible:
        traces.insert(0, _attainment(history, across, up))
    name = "Pareto front" if front.feasible else "least violating"
    marker = {"color": ORANGE, "size": 10, "line": {"color": "white", "width": 1}}
    traces.append(_dots(history, front.trials, across, up, name=name, marker=marker))
    x, y = study.objectives[across].metric, study.objectives[up].metric
    return figure(
        traces,
        xaxis=metric_axis(x, [(trial.values or ())[across] for trial in history.finished]),
        yaxis=metric_axis(y, [(trial.values or ())[up] for trial in history.finished]),
        hovermode="closest",
        height=520,
    )


def _dots(
    history: StudyHistory, trials: Sequence[TrialView], across: int, up: int, *, name: str, marker: dict[str, Any]
) -> Any:
    study = history.study
    names = short_keys([parameter.key for parameter in study.parameters])
    drawn = spread(trials, MOST_DOTS)
    count = str(len(trials)) if len(drawn) == len(trials) else f"{len(drawn)} of {len(trials)} drawn"
    return go.Scatter(
        x=scaled(study.objectives[across].metric, ((trial.values or ())[across] for trial in drawn)),
        y=scaled(study.objectives[up].metric, ((trial.values or ())[up] for trial in drawn)),
        mode="markers",
        name=f"{name} ({count})",
        marker=marker,
        hovertext=[hover(study, trial, names) for trial in drawn],
        hoverinfo="text",
    )


def _attainment(history: StudyHistory, across: int, up: int) -> Any:
    """Return the stairs that bound what the front attains."""
    study = history.study
    steps = sorted(((trial.values or ())[across], (trial.values or ())[up]) for trial in history.front.trials)
    # Going right, a stair is climbed where it is met if small values are good across, and one step before otherwise.
    shape = "hv" if study.objectives[across].direction == "minimize" else "vh"
    return go.Scatter(
        x=scaled(study.objectives[across].metric, (x for x, _ in steps)),
        y=scaled(study.objectives[up].metric, (y for _, y in steps)),
        mode="lines",
        line={"color": ORANGE, "width": 1.5, "shape": shape},
        hoverinfo="skip",
        showlegend=False,
    )


def history_figure(history: StudyHistory, objective: int) -> go.Figure:
    """Return an objective over the trials, with the best value so far.

    Args:
        history: the study.
        objective: index of the objective.
    """
    study = history.study
    metric, direction = study.objectives[objective].metric, study.objectives[objective].direction
    better = max if direction == "maximize" else min
    climbs: list[tuple[int, float]] = []  # the trials at which the best value changed
    for trial in history.finished:
        value = (trial.values or ())[objective]
        if trial.violation <= 0 and (not climbs or better(climbs[-1][1], value) != climbs[-1][1]):
            climbs.append((trial.number, value))
    drawn = spread(history.finished, MOST_DOTS)
    dots = go.Scatter(
        x=[trial.number for trial in drawn],
        y=scaled(metric, ((trial.values or ())[objective] for trial in drawn)),
        mode="markers",
        name="trial",
        marker={"color": BLUE, "opacity": 0.5, "size": 6},
        hovertemplate="trial %{x}: %{y:.4g}<extra></extra>",
    )
    if climbs:
        climbs.append((history.finished[-1].number, climbs[-1][1]))
    line = {"color": ORANGE, "width": 2, "shape": "hv"}
    kept = " that keeps the constraints" if study.constraints else ""
    stairs = go.Scatter(
        x=[number for number, _ in climbs],
        y=scaled(metric, (value for _, value in climbs)),
        mode="lines",
        name=f"best so far{kept}",
        line=line,
        hoverinfo="skip",
    )
    axis = metric_axis(metric, [(trial.values or ())[objective] for trial in history.finished])
    return figure([dots, stairs], xaxis={"title": {"text": "Trial number"}}, yaxis=axis, height=360)


def importance_figure(history: StudyHistory, shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Return the share of each parameter in each objective, as bars.

    Args:
        history: the study.
        shares: what `importances` returned, not empty.
    """
    keys = [parameter.key for parameter in history.study.parameters]
    names = short_keys(keys)
    keys.sort(key=lambda key: sum(found.get(key, 0.0) for found in shares.values()))
    bars = [
        go.Bar(
            y=[names[key] for key in keys],
            x=[100 * found.get(key, 0.0) for key in keys],
            orientation="h",
            name=metric_label(metric),
            marker={"color": color},
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )
        for (metric, found), color in zip(shares.items(), itertools.cycle([BLUE, ORANGE, GREEN, GREY]), strict=False)
    ]
    height = 130 + 22 * len(keys) * max(1, len(bars))
    axis = {"title": {"text": "Share in reaching the best tenth [%]"}, "rangemode": "tozero"}
    return figure(bars, xaxis=axis, yaxis={"ticksuffix": "  "}, barmode="group", height=min(height, 900))


def slice_figure(history: StudyHistory, parameter: Parameter, objective: int) -> go.Figure:
    """Return an objective over one parameter.

    Args:
        history: the study.
        parameter: the parameter.
        objective: index of the objective.
    """
    study = history.study
    names = short_keys([other.key for other in study.parameters])
    metric = study.objectives[objective].metric
    on_front = {trial.number for trial in history.front.trials}
    shown = [trial for trial in history.finished if parameter.key in trial.params]
    others = spread([trial for trial in shown if trial.number not in on_front], MOST_SLICE_DOTS)
    members = [trial for trial in shown if trial.number in on_front]
    traces = [
        go.Scatter(
            x=[_place(parameter, trial.params[parameter.key]) for trial in trials],
            y=scaled(metric, ((trial.values or ())[objective] for trial in trials)),
            mode="markers",
            marker={"color": color, "size": size, "opacity": opacity},
            customdata=[trial.number for trial in trials],
            hovertemplate="trial %{customdata}<br>%{x}: %{y:.4g}<extra></extra>",
        )
        for trials, color, size, opacity in ((others, BLUE, 6, 0.4), (members, ORANGE, 8, 1.0))
    ]
    return figure(
        traces,
        xaxis=parameter_axis(parameter, names[parameter.key]),
        yaxis=metric_axis(metric, [(trial.values or ())[objective] for trial in history.finished]),
        showlegend=False,
        height=270,
        margin={"l": 56, "r": 12, "t": 10, "b": 44},
    )


def _place(parameter: Parameter, value: Any) -> Any:
    return text_of(value) if parameter.kind == "categorical" else value


def parallel_figure(history: StudyHistory) -> go.Figure:
    """Return parallel coordinates: one line per trial through its parameters and objectives."""
    study = history.study
    on_front = {trial.number for trial in history.front.trials}
    others = spread([trial for trial in history.finished if trial.number not in on_front], MOST_LINES)
    trials = [*others, *history.front.trials]  # the front is drawn last, on top
    names = short_keys([parameter.key for parameter in study.parameters])
    axes = [_parameter_line_axis(parameter, names[parameter.key], trials) for parameter in study.parameters]
    for index, objective in enumerate(study.objectives):
        values = scaled(objective.metric, ((trial.values or ())[index] for trial in trials))
        label = metric_label(objective.metric, unit=True)
        axes.append(_log_line_axis(label, values, min(values), max(values)) if spans_decades(values)
                    else {"label": label, "values": values})  # fmt: skip
    first = study.objectives[0].metric
    colour = scaled(first, ((trial.values or ())[0] for trial in trials))
    bar = {"title": {"text": metric_label(first, unit=True), "side": "right"}, "thickness": 12}
    line = {"color": colour, "colorscale": SCALE, "showscale": True, "colorbar": bar}
    lines = go.Parcoords(dimensions=axes, line=line, labelangle=-18, labelfont={"size": 12}, tickfont={"size": 11})
    return figure([lines], height=460, margin={"l": 60, "r": 70, "t": 90, "b": 30})


def _parameter_line_axis(parameter: Parameter, label: str, trials: Sequence[TrialView]) -> dict[str, Any]:
    values = [trial.params.get(parameter.key) for trial in trials]
    if parameter.kind == "categorical":
        choices = list(parameter.choices)
        texts = [text_of(choice) for choice in choices]
        places = [choices.index(v) if v in choices else -1 for v in values]
        off = [-1] if -1 in places else []
        ticks = {"tickvals": [*off, *range(len(choices))], "ticktext": [*("off" for _ in off), *texts]}
        return {"label": label, "values": places, "range": [min([0, *off]) - 0.2, len(choices) - 0.8], **ticks}
    if parameter.log:
        return _log_line_axis(label, values, parameter.low, parameter.high)
    if None not in values:
        return {"label": label, "values": values, "range": [parameter.low, parameter.high]}
    off_place = parameter.low - 0.1 * (parameter.high - parameter.low)
    ticks = {"tickvals": [off_place, parameter.low, parameter.high]}
    texts = ["off", number_text(parameter.low), number_text(parameter.high)]
    places_or_off = [off_place if value is None else value for value in values]
    return {"label": label, "values": places_or_off, "range": [off_place, parameter.high], "ticktext": texts, **ticks}


def _log_line_axis(label: str, values: Sequence[Any], low: float, high: float) -> dict[str, Any]:
    """Return an axis of logarithms whose ticks show the numbers themselves; a missing value lies below as "off"."""
    bottom, top = math.log10(low), math.log10(high)
    decades = [10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1)]
    ticks = sorted({low, high, *decades}) if len(decades) < 3 else decades
    places, texts = [math.log10(tick) for tick in ticks], [number_text(tick) for tick in ticks]
    if None in values:
        bottom -= 0.1 * (top - bottom)
        places, texts = [bottom, *places], ["off", *texts]
    logs = [bottom if value is None else math.log10(value) for value in values]
    return {"label": label, "values": logs, "range": [bottom, top], "tickvals": places, "ticktext": texts}


def curve_figure(history: StudyHistory, metric: str) -> go.Figure | None:
    """Return the learning curves of a metric: front trials coloured and named, all others thin; None without any.

    Args:
        history: the study.
        metric: name of the metric.
    """
    named = spread(history.front.trials, NAMED_TRIALS)
    others = [trial for trial in history.trials if trial.number not in {front.number for front in named}]
    curves = history.curves(metric, [*named, *spread(others, MOST_CURVES)])
    if not curves:
        return None
    named = [trial for trial in named if trial.number in curves]
    x: list[float | None] = []
    y: list[float | None] = []
    for number in curves.keys() - {trial.number for trial in named}:
        x += [*(float(epoch) for epoch, _ in curves[number]), None]
        y += [*scaled(metric, (value for _, value in curves[number])), None]
    pale = {"color": "rgba(138,143,152,0.35)", "width": 1}
    traces: list[Any] = [
        go.Scatter(x=x, y=y, mode="lines", line=pale, hoverinfo="skip", name="other trials")
    ] if x else []  # fmt: skip
    for trial, color in zip(named, _shades(len(named)), strict=True):
        curve = curves[trial.number]
        traces.append(
            go.Scatter(
                x=[epoch for epoch, _ in curve],
                y=scaled(metric, (value for _, value in curve)),
                mode="lines+markers",
                line={"color": color, "width": 2},
                marker={"size": 5},
                name=f"trial {trial.number}",
                hovertemplate=f"trial {trial.number}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )
    axis = metric_axis(metric, [value for curve in curves.values() for _, value in curve])
    below = {"yanchor": "top", "y": -0.18}
    return figure(traces, xaxis={"title": {"text": "Epoch"}}, yaxis=axis, height=460, legend=below)


def _shades(count: int) -> list[str]:
    """Return dark to light colours of one scale, so that the order of the front is seen in its curves."""
    from plotly.colors import sample_colorscale  # noqa: PLC0415 - numpy and colour tables, only for curves

    return list(sample_colorscale(SCALE, [index / max(1, count - 1) for index in range(count)]))


def firing_rate_figure(history: StudyHistory) -> go.Figure | None:
    """Return the firing rate of each layer for trials of the front, as a table of colours; None without any."""
    chosen = spread(history.front.trials, 2 * NAMED_TRIALS)
    rates = history.layer_rates(chosen)
    if not rates:
        return None
    layers = sorted({layer for found in rates.values() for layer in found}, key=natural, reverse=True)
    columns = [trial.number for trial in chosen if trial.number in rates]
    grid = [[rates[number].get(layer, math.nan) for number in columns] for layer in layers]
    positive = [rate for row in grid for rate in row if rate > 0]
    logarithmic = spans_decades(positive)
    colours = [[_colour_value(rate, logarithmic) for rate in row] for row in grid]
    table = go.Heatmap(
        z=colours,
        x=[f"trial {number}" for number in columns],
        y=[html.escape(layer) for layer in layers],
        text=[["" if math.isnan(rate) else number_text(float(f"{rate:.2g}")) for rate in row] for row in grid],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
        colorscale=HEAT_SCALE,
        xgap=2,
        ygap=2,
        colorbar=_rate_bar(positive, logarithmic),
    )
    axes = {"xaxis": {"side": "top", "showgrid": False}, "yaxis": {"showgrid": False, "ticksuffix": "  "}}
    return figure([table], height=130 + 28 * len(layers), margin={"l": 20, "r": 20, "t": 40, "b": 20}, **axes)


def _colour_value(rate: float, logarithmic: bool) -> float | None:
    if math.isnan(rate) or (logarithmic and rate <= 0):
        return None
    return math.log10(rate) if logarithmic else rate


def _rate_bar(positive: Sequence[float], logarithmic: bool) -> dict[str, Any]:
    bar: dict[str, Any] = {"thickness": 12}
    if logarithmic:
        powers = range(math.ceil(math.log10(min(positive))), math.floor(math.log10(max(positive))) + 1)
        bar |= {"tickvals": list(powers), "ticktext": [number_text(10.0**power) for power in powers]}
    return bar
