"""How one trial is trained: data, encoder, model, loss, metrics, checkpoints; knows nothing of studies or databases."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.evaluation import evaluate as evaluate
    from trainers.training import train as train

_HOMES = {"train": "trainers.training", "evaluate": "trainers.evaluation"}

__all__ = ["evaluate", "train"]


def __getattr__(name: str) -> object:
    """Import `train` and `evaluate` on first use (PEP 562): torch and its friends take seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainers' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
