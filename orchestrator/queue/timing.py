"""How long a lease lasts, and what follows from it."""

from __future__ import annotations

import math
import os
from functools import cache

from orchestrator.errors import OrchestratorError

LEASE_VARIABLE = "SPIKEBENCH_LEASE_SECONDS"
DEFAULT_LEASE_SECONDS = 60.0
WORKER_SILENT_SECONDS = 60.0  # a worker beats every 10 s


@cache
def lease_seconds() -> float:
    """Return how long a worker or a controller may be silent before another takes its place.

    Hosts may differ in it: each writes into the database how long its own hold lasts.

    Raises:
        OrchestratorError: `SPIKEBENCH_LEASE_SECONDS` is set to something else than a positive number.
    """
    given = os.environ.get(LEASE_VARIABLE)
    if not given:
        return DEFAULT_LEASE_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise OrchestratorError(f"{LEASE_VARIABLE} is '{given}': expected a positive number of seconds, such as 60")
    return seconds


def beat_seconds() -> float:
    """Return the time between two signs of life: several of them may be lost within one lease."""
    return lease_seconds() / 6


def reap_seconds() -> float:
    """Return the time between two looks for workers that have died."""
    return lease_seconds() / 12
