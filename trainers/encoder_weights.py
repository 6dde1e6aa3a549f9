"""Put the weights of a pre-trained encoder into an encoder, or say exactly why they do not fit."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.protocol import CheckpointError

_PREFIXES = ("model.encoder.", "encoder.", "model.")  # a whole run, a whole model, a bare encoder that was wrapped
_SHOWN = 8  # names of each kind that a message lists


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load an encoder's weights from a file.

    Args:
        encoder: receives the weights.
        path: a checkpoint of a run of this project, a state dictionary of an encoder or of a model whose encoder is
            called `encoder`, or such a dictionary under the key `state_dict`.

    Raises:
        CheckpointError: the file is missing or holds no weights, or names or shapes differ from the encoder's.
    """
    weights = _read(path)
    wanted = encoder.state_dict()
    problems = _differences(weights, wanted)
    if problems:
        raise CheckpointError(
            f"the weights in {path} do not fit the encoder:\n  "
            + "\n  ".join(problems)
            + "\nGive the encoder the options it was trained with, or name another encoder.checkpoint"
        )
    encoder.load_state_dict(weights)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the encoder's part of whatever the file holds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no encoder checkpoint {path}; correct encoder.checkpoint") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read the encoder checkpoint {path}: {error}") from error
    for key in ("weights", "ema", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"there are no weights in {path}; its keys are {', '.join(map(str, content))}")
    for prefix in _PREFIXES:
        part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if part:
            return part
    return tensors


def _differences(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Say what is missing, left over or of another shape."""
    spare = [name for name in weights if name not in wanted]
    problems = []
    for name in wanted:
        if name not in weights:
            near = difflib.get_close_matches(name, spare, n=1)
            problems.append(f"{name} is missing" + (f"; the file has {near[0]}" if near else ""))
        elif weights[name].shape != wanted[name].shape:
            problems.append(f"{name} is {list(weights[name].shape)} there and {list(wanted[name].shape)} here")
    problems += [f"{name} is not a weight of the encoder" for name in spare]
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"and {len(problems) - _SHOWN} more"]
    return problems
