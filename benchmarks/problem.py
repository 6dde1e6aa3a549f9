"""The trivial search that every system of `benchmarks.overhead` runs; it imports nothing heavy, to be fair to all."""

from __future__ import annotations

import math

EPOCHS = 10
OPTIMUM = {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 1e-2, "loss.omega": 1e-4, "loss.c": 1.0}
RANGES = {name: (best / 30, best * 30) for name, best in OPTIMUM.items()}


def score(point: dict[str, float], epoch: int, epochs: int = EPOCHS) -> float:
    """Return a smooth curve that rises with the epoch towards a peak at `OPTIMUM`."""
    distance = sum(math.log10(point[name] / best) ** 2 for name, best in OPTIMUM.items())
    return math.exp(-distance) * epoch / epochs


def trainable(point: dict[str, float]) -> None:
    """Report the curve to Ray Tune."""
    from ray import tune  # noqa: PLC0415 - part of the ray extra

    for epoch in range(1, EPOCHS + 1):
        tune.report({"value": score(point, epoch)})
