from __future__ import annotations

import struct

import numpy as np
import pytest

from orchestrator.reports.artifact_figures import confusion_figure, evenly, raster_figure, rates_figure


def size_of(image: bytes) -> tuple[int, int]:
    """Return width and height of a PNG image."""
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    return width, height


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_confusion_matrix_of_any_size(classes: int) -> None:
    counts = np.eye(classes) * 3
    counts[0] = 0  # a class that never occurs divides nothing by nothing
    width, height = size_of(confusion_figure(counts, [f"class {number}" for number in range(classes)], "t"))
    assert 500 < height <= width < 1700


def test_many_layers_make_a_tall_figure_and_few_a_short_one() -> None:
    few = size_of(rates_figure({"a": 0.1}, "t"))
    many = size_of(rates_figure({f"block.{number}": 0.0 for number in range(60)}, "t"))
    assert few[0] == many[0]
    assert few[1] < 300 < 2000 < many[1]


def test_a_raster_of_many_large_layers_stays_readable() -> None:
    raster = {f"layer {number}": np.zeros((4, 20_000)) for number in range(40)}
    width, height = size_of(raster_figure(raster, "t"))
    assert width < 1200
    assert height < 5000
    size_of(raster_figure({"one": np.ones((1, 1))}, "t"))
    size_of(raster_figure({"sums of spikes": np.full((3, 5), 2.0)}, "t"))


def test_a_choice_has_both_ends() -> None:
    assert evenly(range(101), 5) == [0, 25, 50, 75, 100]
    assert evenly([1, 2], 5) == [1, 2]
