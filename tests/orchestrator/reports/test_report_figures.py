from __future__ import annotations

import math
from typing import Any

import pytest
from seeded import OBJECTIVES, PARAMETERS, seed_study
from sqlalchemy import select, update

from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reports.figures import log_axis, natural, spans_decades
from orchestrator.reports.report_figures import (
    curve_figure,
    firing_rate_figure,
    front_figures,
    history_figure,
    importance_figure,
    parallel_figure,
    slice_figure,
)
from orchestrator.reports.report_page import json_text
from orchestrator.storage.database import Database
from orchestrator.storage.tables import JobRow, MetricRow


def history_of(database: Database, **changes: Any) -> StudyHistory:
    seed_study(database, **changes)
    return read_history(database, changes.get("name", "stal_loss"))


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_front_tells_front_dominated_and_infeasible_apart(local: Database) -> None:
    history = history_of(local, trials=40, constraints=[{"metric": "val_spike_density", "max": 0.03}])
    found = traces(front_figures(history)[0])
    assert {name.split(" (")[0] for name in found if name} == {"Pareto front", "dominated", "breaks a constraint"}
    shown = sum(len(trace.x) for name, trace in found.items() if name)
    assert shown == len(history.finished)
    colours = [trace.marker.color for name, trace in found.items() if name]
    assert len(set(colours)) == 3


def test_front_has_percent_a_log_axis_and_hover(local: Database) -> None:
    history = history_of(local, trials=40)
    figure = front_figures(history)[0]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.yaxis.type is None
    front = next(trace for trace in figure.data if (trace.name or "").startswith("Pareto"))
    best = history.front.trials[0]
    assert max(front.y) == pytest.approx(100 * best.values[0])
    assert front.hovertext[0].startswith(f"<b>trial {best.number}</b>")
    assert "omega = " in front.hovertext[0]


@pytest.mark.parametrize(("direction", "shape"), [("minimize", "hv"), ("maximize", "vh")])
def test_the_front_line_bounds_what_is_attained(local: Database, direction: str, shape: str) -> None:
    second = {"metric": "val_spike_density", "direction": direction}
    history = history_of(local, trials=40, objectives=[OBJECTIVES[0], second])
    line = front_figures(history)[0].data[0]
    assert line.line.shape == shape
    assert list(line.x) == sorted(line.x)


def test_best_so_far_never_worsens_and_counts_feasible_trials_only(local: Database) -> None:
    history = history_of(local, trials=60, constraints=[{"metric": "val_spike_density", "max": 0.03}])
    found = traces(history_figure(history, 0))
    stairs = found["best so far that keeps the constraints"]
    assert list(stairs.y) == sorted(stairs.y)
    assert stairs.y[-1] == pytest.approx(100 * max(t.values[0] for t in history.finished if t.violation == 0))
    falling = list(traces(history_figure(history, 1))["best so far that keeps the constraints"].y)
    assert falling == sorted(falling, reverse=True)


def test_importances_are_bars_per_objective(local: Database) -> None:
    history = history_of(local, trials=5)
    shares = {"val_accuracy": {"loss.omega": 0.75, "loss.c": 0.25}, "val_spike_density": {"loss.omega": 1.0}}
    bars = importance_figure(history, shares).data
    assert [bar.name for bar in bars] == ["Validation accuracy", "Validation spike density"]
    assert bars[0].y[-1] == "omega"  # the most important one on top
    assert bars[0].x[-1] == 75


def test_slices_follow_the_space(local: Database) -> None:
    history = history_of(local, trials=30)
    by_key = {parameter.key: parameter for parameter in history.study.parameters}
    assert slice_figure(history, by_key["loss.omega"], 0).layout.xaxis.type == "log"
    assert slice_figure(history, by_key["neuron.v_threshold"], 0).layout.xaxis.type is None
    choices = slice_figure(history, by_key["optimizer.name"], 1).layout.xaxis
    assert (choices.type, list(choices.categoryarray)) == ("category", ["adamw", "lamb"])


def test_parallel_axes_show_numbers_and_where_a_parameter_is_off(local: Database) -> None:
    seed_study(local, trials=20, accidents=False)
    with local.begin() as connection:
        query = select(JobRow.id, JobRow.params).order_by(JobRow.id).limit(5)
        for job_id, params in connection.execute(query).all():
            kept = {"loss.omega": params["loss.omega"]}
            connection.execute(update(JobRow).where(JobRow.id == job_id).values(params=kept))
    history = read_history(local, "stal_loss")
    axes = {axis.label: axis for axis in parallel_figure(history).data[0].dimensions}
    omega = axes["omega"]
    assert list(omega.ticktext) == ["1e-06", "1e-05", "0.0001"]
    assert min(omega.values) >= math.log10(1e-6)
    for name in ("loss.c", "v_threshold", "time_steps", "optimizer.name"):
        assert axes[name].ticktext[0] == "off"
        assert sum(value == axes[name].tickvals[0] for value in axes[name].values) == 5
        assert axes[name].range[0] <= axes[name].tickvals[0]


def test_large_studies_are_thinned_but_the_front_is_whole(local: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    import orchestrator.reports.report_figures as figures

    monkeypatch.setattr(figures, "MOST_DOTS", 10)
    history = history_of(local, trials=60)
    found = traces(front_figures(history)[0])
    dominated = next(name for name in found if name and name.startswith("dominated"))
    assert dominated.startswith("dominated (10 of ")
    assert len(found[dominated].x) == 10


def test_curves_name_front_trials_and_thin_the_others(local: Database) -> None:
    history = history_of(local, trials=40)
    figure = curve_figure(history, "val_accuracy")
    assert figure is not None
    names = [trace.name for trace in figure.data]
    assert names[0] == "other trials"
    assert names[1] == f"trial {history.front.trials[0].number}"
    assert len(names) == 9
    assert list(figure.data[0].y).count(None) == 40 - 8
    assert curve_figure(history, "nothing") is None


def test_firing_rates_show_layers_in_order(local: Database) -> None:
    layers = [f"blocks.{block}.lif" for block in (10, 2, 0)]
    history = history_of(local, trials=20, layers=layers)
    figure = firing_rate_figure(history)
    assert figure is not None
    table = figure.data[0]
    assert list(table.y) == ["blocks.10.lif", "blocks.2.lif", "blocks.0.lif"]  # drawn from the bottom up
    rates = history.layer_rates(history.front.trials)
    first = history.front.trials[0].number
    assert float(table.text[2][0]) == pytest.approx(rates[first]["blocks.0.lif"], rel=0.06)


def test_a_silent_layer_has_an_empty_cell_that_says_zero(local: Database) -> None:
    seed_study(local, trials=20)
    with local.begin() as connection:
        silent = MetricRow.name == "val_firing_rate.blocks.0.attn.q_lif"
        connection.execute(update(MetricRow).where(silent).values(value=0.0))
    figure = firing_rate_figure(read_history(local, "stal_loss"))
    assert figure is not None
    assert set(figure.data[0].text[3]) == {"0"}
    assert history_of(local, name="plain", trials=5, layers=()) is not None
    assert firing_rate_figure(read_history(local, "plain")) is None


def test_text_inside_figures_is_safe(local: Database) -> None:
    """Plotly reads a little HTML in its labels, and the page keeps figures inside script elements."""
    evil = "<i>x</i></script>"
    parameters = {**PARAMETERS, "optimizer.name": {"type": "categorical", "choices": [evil]}}
    history = history_of(local, trials=20, parameters=parameters, layers=[evil])
    front = front_figures(history)[0]
    assert "&lt;i&gt;x" in front.data[-1].hovertext[0]
    rates = firing_rate_figure(history)
    assert rates is not None
    assert rates.data[0].y == ("&lt;i&gt;x&lt;/i&gt;&lt;/script&gt;",)
    assert "<" not in json_text(front)
    assert "<b>" in front.data[-1].hovertext[0]


def test_log_axes_only_where_they_help() -> None:
    assert spans_decades([0.01, 0.9])
    assert not spans_decades([0.1, 0.9])
    assert not spans_decades([0.0, 0.9])
    assert not spans_decades([0.5])
    assert log_axis([0.004, 0.2])["tickformat"] == "~g"
    assert log_axis([1e-6, 5e-4])["dtick"] == 1


def test_layers_sort_as_people_count() -> None:
    names = ["blocks.10", "blocks.2", "encoder", "blocks.2.b"]
    assert sorted(names, key=natural) == ["blocks.2", "blocks.2.b", "blocks.10", "encoder"]


def test_all_parameters_of_the_builder_are_drawn(local: Database) -> None:
    history = history_of(local, trials=8)
    assert len(parallel_figure(history).data[0].dimensions) == len(PARAMETERS) + len(OBJECTIVES)
