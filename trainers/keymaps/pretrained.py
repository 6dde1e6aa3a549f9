"""Load the weights of a file into a spiking transformer: our own, the official repositories', or STEP's."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.keymaps import qkformer, sdt, spikformer, spikingformer, tim
from trainers.keymaps.keymap import KeyMap
from trainers.protocol import CheckpointError

OURS = KeyMap(source="spikebench", rules=((r".*", r"\g<0>"),))
KEYMAPS: dict[str, tuple[KeyMap, ...]] = {
    "Spikformer": spikformer.KEYMAPS,
    "Tim": tim.KEYMAPS,
    "Sdt": sdt.KEYMAPS,
    "QkFormer": qkformer.KEYMAPS,
    "Spikingformer": spikingformer.KEYMAPS,
}
NEW_HEAD_STD = 2e-5  # QKFormer's fine-tuning draws the head's weights this small
_NESTED = ("weights", "state_dict", "model")  # where training scripts keep the weights in their files


def load_pretrained(model: nn.Module, path: Path, *, new_head: bool = False) -> str:
    """Load all weights of a file, strictly.

    Args:
        model: a spiking transformer.
        path: a checkpoint of a run of this project, of an official repository or of STEP: a state dict, or one under
            the key `state_dict` or `model`; averaged weights of our own checkpoints are preferred.
        new_head: keep the model's own head, drawn anew with a standard deviation of 2e-5, for other classes.

    Returns:
        The code base whose key names the file has.

    Raises:
        CheckpointError: the file is missing or holds no weights, or they do not fit; the message names the keys.
    """
    weights = read_weights(path)
    keymap = keymap_of(model, weights)
    head = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    if new_head:
        weights = {key: value for key, value in weights.items() if not (keymap.rename(key) or "").startswith("head.")}
        weights.update(head)
    try:
        converted = keymap.convert(weights, model)
    except CheckpointError as error:
        hint = "; for other classes than the checkpoint's set model.new_head" if "head.weight:" in str(error) else ""
        raise CheckpointError(f"{path}: {error}{hint}") from error
    model.load_state_dict(converted)
    if new_head:
        _draw_head(model)
    return keymap.source


def keymap_of(model: nn.Module, weights: Mapping[str, Tensor]) -> KeyMap:
    """Return the key map that knows most of a file's keys; our own where all keys are the model's."""
    if weights.keys() <= model.state_dict().keys():
        return OURS
    return max((*KEYMAPS.get(type(model).__name__, ()), OURS), key=lambda keymap: _fit(keymap, model, weights))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU; nothing but plain values and tensors is ever unpickled.

    Raises:
        CheckpointError: the file is missing, damaged or holds no weights.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts store their options like this
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged, no file of torch.save, or holds more than plain values and tensors: fetch it again"
        ) from error
    for key in _NESTED:
        inner = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping):
            content = inner["ema"] if isinstance(inner.get("ema"), Mapping) else inner
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    weights = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(f"there are no weights in {path}; its keys are {', '.join(map(str, content))}")
    return weights


def _fit(keymap: KeyMap, model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Return how many of a model's entries a map finds, less the keys of the file that it does not know."""
    wanted = model.state_dict().keys()
    found = {name for key in weights if (name := keymap.rename(key)) in wanted}
    return len(found) / max(len(wanted), 1) + keymap.known(weights, wanted)


def _draw_head(model: nn.Module) -> None:
    head = model.get_submodule("head")
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=NEW_HEAD_STD)
        nn.init.zeros_(head.bias)
