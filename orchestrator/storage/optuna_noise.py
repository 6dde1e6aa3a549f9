"""Keep Optuna's remarks that a user can do nothing about off the screen."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # every study and trial is shown by our own view


@contextlib.contextmanager
def experimental_allowed() -> Iterator[None]:
    """Use what Optuna calls experimental without its warning; the version range of the dependency guards us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
