from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.reading.front import feasible_front, pareto_front

# Few different values, so that ties and copies are common.
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, math.nan, math.inf])


def by_definition(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the front by comparing everything with everything."""
    signs = [-1 if direction == "maximize" else 1 for direction in directions]
    losses = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in points]
    finite = [index for index, loss in enumerate(losses) if all(map(math.isfinite, loss))]

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [i for i in finite if not any(dominates(losses[j], losses[i]) for j in finite)]


@given(st.data())
def test_front_is_as_defined(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    directions = data.draw(st.lists(st.sampled_from(["maximize", "minimize"]), min_size=width, max_size=width))
    points = data.draw(st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=14))
    assert pareto_front(points, directions) == by_definition(points, directions)


def test_ties_and_copies() -> None:
    both = ["minimize", "minimize"]
    assert pareto_front([(0.0, 0.5), (0.5, 0.5), (0.0, 0.7)], both) == [0]
    assert pareto_front([(0.5, 0.5), (0.0, 0.5), (0.0, 0.5), (0.5, 0.0), (0.5, 0.0)], both) == [1, 2, 3, 4]
    assert pareto_front([(1.0,), (1.0,), (2.0,)], ["minimize"]) == [0, 1]


def test_two_objectives_scale_to_large_studies() -> None:
    points = np.random.default_rng(0).normal(size=(200_000, 2))
    started = time.perf_counter()
    front = pareto_front(points, ["minimize", "maximize"])
    assert time.perf_counter() - started < 2.0  # comparing all pairs would take hours
    assert front[:1]


def test_wrong_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="'up'"):
        pareto_front([[1.0]], ["up"])
    with pytest.raises(ValueError, match="2 values"):
        pareto_front([[1.0]], ["minimize", "minimize"])


def test_infeasible_points_do_not_enter_or_dominate() -> None:
    front = feasible_front([(0.9, 0.1), (0.8, 0.2), (0.99, 0.01)], ["maximize", "minimize"], [0.0, 0.0, 0.3])
    assert (front.indices, front.feasible) == ((0,), True)


def test_without_a_feasible_point_the_nearest_misses_are_named_as_such() -> None:
    violations = [0.5, 0.1, math.nan, 0.2, 0.3, 0.4, 0.6]
    front = feasible_front([(float(i),) for i in range(7)], ["minimize"], violations)
    assert (front.indices, front.feasible) == ((1, 3, 4, 5, 0), False)


def test_a_point_that_was_not_measured_is_no_near_miss() -> None:
    front = feasible_front([(math.nan,), (1.0,)], ["minimize"], [0.1, 0.2])
    assert (front.indices, front.feasible) == ((1,), False)
    assert feasible_front([], ["minimize"], []).feasible
