"""Whether two checkpoints hold the same, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainers import checkpoint


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a checkpoint with its path, but for what tells the time."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key not in ("seconds", "epoch_seconds"):
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, tree


def assert_same_bits(one: Path, other: Path) -> None:
    ours, theirs = (dict(leaves(checkpoint.load(path))) for path in (one, other))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        same = torch.equal(value, theirs[path]) if isinstance(value, torch.Tensor) else value == theirs[path]
        assert same, path
