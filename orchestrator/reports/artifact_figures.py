"""Figures of one trial's model as images, which the dashboard shows beside the trial."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, INK, GREY = "#0072B2", "#22272e", "#8a8f98"  # as the report's figures have them
DOTS_PER_INCH = 130
MOST_WRITTEN = 20  # classes up to which every cell of a confusion matrix has its number
MOST_NAMED = 40  # classes up to which every row has its name
MOST_NEURONS = 96  # of a layer that are drawn
MOST_LAYERS = 14  # that are drawn

Array = NDArray[np.float64]
T = TypeVar("T")


def confusion_figure(counts: Array, classes: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix, coloured by the share of each true class, as a PNG image.

    Args:
        counts: [K, K], targets in rows, predictions in columns.
        classes: K names.
        title: what was measured.
    """
    size = len(classes)
    side = min(4.0 + 0.32 * size, 11.0)
    figure = Figure((side + 1.0, side), layout="constrained")
    axes = figure.add_subplot()
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if size <= MOST_NAMED:
        axes.set_xticks(range(size), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(size), classes)
    if size <= MOST_WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.5 else INK
                axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=10)
    return png(figure)


def rates_figure(rates: Mapping[str, float], title: str) -> bytes:
    """Draw how often the neurons of each layer spike as a PNG image, the first layer on top.

    Args:
        rates: layer to spikes per neuron and time step.
        title: what was measured.
    """
    names = list(rates)
    figure = Figure((8.0, 1.4 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names, list(rates.values()), color=BLUE, height=0.7)
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="spikes per neuron and time step")
    axes.set_title(title, fontsize=10)
    return png(figure)


def raster_figure(raster: Mapping[str, Array], title: str) -> bytes:
    """Draw the spikes of one sample as a PNG image: a panel for each layer, time to the right, neurons upwards.

    Args:
        raster: layer to spikes [T, N]; values between 0 and 1 are drawn paler.
        title: which sample.
    """
    shown = {name: raster[name] for name in evenly(list(raster), MOST_LAYERS)}
    drawn = {name: spikes[:, evenly(range(spikes.shape[1]), MOST_NEURONS)] for name, spikes in shown.items()}
    heights = [max(0.6, spikes.shape[1] / 60) for spikes in drawn.values()]
    figure = Figure((8.0, 1.2 + sum(heights) + 0.45 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, spikes) in zip(panels, drawn.items(), strict=True):
        most = max(1.0, float(spikes.max(initial=0.0)))
        place = (0.5, len(spikes) + 0.5, 0, spikes.shape[1])
        axes.imshow(
            spikes.T,
            aspect="auto",
            origin="lower",
            cmap="Greys",
            vmin=0.0,
            vmax=most,
            interpolation="nearest",
            extent=place,
        )
        of = shown[name].shape[1]
        part = "" if of == spikes.shape[1] else f", {spikes.shape[1]} of {of:,} neurons"
        axes.set_title(f"{name}: {shown[name].mean():.3g} per neuron and step{part}", fontsize=8, loc="left")
        axes.set_yticks([])
        axes.set_xticks(evenly(range(1, len(spikes) + 1), 16))
        axes.tick_params(labelsize=7, color=GREY)
    panels[-1].set_xlabel("time step")
    left_out = "" if len(shown) == len(raster) else f" ({len(shown)} of {len(raster)} layers)"
    figure.suptitle(title + left_out, fontsize=10)
    return png(figure)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DOTS_PER_INCH)
    return target.getvalue()
