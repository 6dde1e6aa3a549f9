"""The Pareto front: which trials no other trial beats in every objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_VIOLATING = 5  # how many trials are named when none keeps the constraints


@dataclass(frozen=True, slots=True)
class Front:
    """A front and whether its members keep the constraints.

    Args:
        indices: positions in the points given, ascending; when `feasible` is false, from the least violating on.
        feasible: false when no point keeps every constraint, so that the members are only the nearest misses.
    """

    indices: tuple[int, ...]
    feasible: bool


def pareto_front(points: Sequence[Sequence[float]] | NDArray[np.float64], directions: Sequence[str]) -> list[int]:
    """Return the points that no other point dominates.

    A point dominates another when it is nowhere worse and somewhere better; equal points do not dominate each other.

    Args:
        points: `[N, M]` objective values; a point with NaN or infinity never enters.
        directions: M times "maximize" or "minimize".

    Returns:
        Indices into `points`, ascending. Takes O(N log N) for one and two objectives, O(N F M) for more (F: size of
        the front).

    Raises:
        ValueError: a direction has another name, or a point does not have M values.
    """
    if unknown := sorted(set(directions) - {"maximize", "minimize"}):
        raise ValueError(f"a direction is 'maximize' or 'minimize', not {unknown[0]!r}")
    if not len(points):
        return []
    losses = np.asarray(points, dtype=np.float64)
    if losses.ndim != 2 or losses.shape[1] != len(directions):
        raise ValueError(f"expected points of {len(directions)} values, got shape {losses.shape}")
    losses = losses * np.where(np.asarray(directions) == "maximize", -1.0, 1.0)
    kept = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if not kept.size:
        return []
    finite = losses[kept]
    order = np.lexsort(finite.T[::-1])  # by the first objective, ties by the second, and so on
    member = _sweep(finite[order]) if finite.shape[1] <= 2 else _filter(finite[order])
    return sorted(int(index) for index in kept[order[member]])


def _sweep(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the front of sorted `[N, 1]` or `[N, 2]` losses in one pass."""
    last = losses[:, -1]
    best_so_far = np.minimum.accumulate(last)
    improves = np.concatenate([[True], last[1:] < best_so_far[:-1]])
    # A copy of a front point stands right behind it and shares its place.
    copy = np.concatenate([[False], (losses[1:] == losses[:-1]).all(axis=1)])
    leader = np.maximum.accumulate(np.where(copy, 0, np.arange(len(losses))))
    return np.asarray(improves[leader], dtype=np.bool_)


def _filter(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the front of lexicographically sorted `[N, M]` losses: the first one left over is always a member."""
    member = np.zeros(len(losses), dtype=np.bool_)
    left = np.arange(len(losses))
    while left.size:
        head = losses[left[0]]
        equal = (losses[left] == head).all(axis=1)
        member[left[equal]] = True
        left = left[(losses[left] < head).any(axis=1) & ~equal]
    return member


def feasible_front(points: Sequence[Sequence[float]], directions: Sequence[str], violations: Sequence[float]) -> Front:
    """Return the front among the points that keep every constraint, or the nearest misses when none does.

    Args:
        points: `[N, M]` objective values.
        directions: M times "maximize" or "minimize".
        violations: N amounts by which the constraints are missed; 0 keeps them all, NaN (not measured) does not.

    Returns:
        The feasible front; with no feasible point, up to five finite points of the smallest violation.
    """
    kept = [index for index, violation in enumerate(violations) if violation <= 0]
    front = pareto_front([points[index] for index in kept], directions)
    if front:
        return Front(tuple(kept[index] for index in front), feasible=True)
    misses = [
        index
        for index, violation in enumerate(violations)
        if math.isfinite(violation) and all(math.isfinite(value) for value in points[index])
    ]
    misses.sort(key=lambda index: (violations[index], index))
    return Front(tuple(misses[:LEAST_VIOLATING]), feasible=not misses)
