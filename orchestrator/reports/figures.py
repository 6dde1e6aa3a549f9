"""What all figures share: one look, colours that colour-blind readers can tell apart, axes with names and units."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from orchestrator.reading.labels import metric_label, metric_text, number_text
from orchestrator.reading.views import Parameter, StudyView, TrialView

# Okabe and Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8a8f98", "#22272e"
GRID = "#e6e8eb"
# Plasma without its pale end, which is lost on white; for filled cells a scale from pale to dark.
SCALE = [[0.0, "#0d0887"], [0.25, "#6a00a8"], [0.5, "#b12a90"], [0.75, "#e16462"], [1.0, "#fca636"]]
HEAT_SCALE = "YlOrBr"
LOG_DECADES = 1.5  # values that span more are drawn on a logarithmic axis

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 64, "r": 20, "t": 16, "b": 52},
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 12, "color": INK}},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0},
        "xaxis": {"gridcolor": GRID, "linecolor": GREY, "ticks": "outside", "zeroline": False, "automargin": True},
        "yaxis": {"gridcolor": GRID, "linecolor": GREY, "ticks": "outside", "zeroline": False, "automargin": True},
        "height": 420,
    }
)


def figure(traces: Iterable[Any], **layout: Any) -> go.Figure:
    """Return a figure with the common look."""
    return go.Figure(data=list(traces), layout={"template": TEMPLATE, **layout})


def scaled(metric: str, values: Iterable[float]) -> list[float]:
    """Return a metric's values in the unit its label names: accuracies in percent."""
    factor = 100.0 if metric.partition(".")[0].endswith("accuracy") else 1.0
    return [factor * value for value in values]


def metric_axis(metric: str, values: Sequence[float]) -> dict[str, Any]:
    """Return an axis for a metric, logarithmic where its values span much."""
    axis = {"title": {"text": metric_label(metric, unit=True)}}
    return axis | (log_axis(values) if spans_decades(values) else {})


def parameter_axis(parameter: Parameter, title: str) -> dict[str, Any]:
    """Return an axis for a parameter: logarithmic where it is searched so, one place per choice of a category."""
    axis: dict[str, Any] = {"title": {"text": html.escape(title)}}
    if parameter.kind == "categorical":
        choices = [text_of(choice) for choice in parameter.choices]
        return axis | {"type": "category", "categoryorder": "array", "categoryarray": choices}
    if parameter.log:
        return axis | log_axis([parameter.low, parameter.high])
    return axis


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return the settings of a logarithmic axis whose ticks are readable over few decades and over many."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return {"type": "log"}
    low, high = min(positive), max(positive)
    if low < 1e-3 or math.log10(high / low) > 3:
        return {"type": "log", "dtick": 1, "exponentformat": "power"}
    return {"type": "log", "dtick": "D2", "tickformat": "~g"}


def spans_decades(values: Sequence[float]) -> bool:
    """Tell whether values are all positive and span so much that a linear axis would hide the small ones."""
    return len(values) > 1 and min(values) > 0 and math.log10(max(values) / min(values)) > LOG_DECADES


def hover(study: StudyView, trial: TrialView, names: dict[str, str]) -> str:
    """Return what the reader sees over a trial's point: number, objectives, parameters."""
    lines = [f"<b>trial {trial.number}</b>"]
    if study.constraints and not trial.violation <= 0:
        lines.append("does not keep the constraints")
    lines += [
        f"{metric_label(objective.metric)}: {metric_text(objective.metric, trial.metrics.get(objective.metric))}"
        for objective in study.objectives
    ]
    lines += [f"{html.escape(names.get(key, key))} = {text_of(value)}" for key, value in trial.params.items()]
    return "<br>".join(lines)


def text_of(value: object) -> str:
    """Return a parameter's value as safe text."""
    return html.escape(number_text(value))


def natural(name: str) -> list[object]:
    """Return a sort key by which block 2 comes before block 10."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]
