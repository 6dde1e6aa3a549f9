"""Turn a published checkpoint into one of ours, which can be evaluated and gone on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from configs.data_fit import image_shape
from configs.resolve import config_hash, to_dict, with_params
from configs.schema import SpikingTransformerModel
from trainers import checkpoint as checkpoints
from trainers.factory import build_model
from trainers.keymaps.pretrained import load_pretrained, read_weights
from trainers.protocol import CheckpointError, SavedCheckpoint, TrainerError

if TYPE_CHECKING:
    from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Converted:
    """A published checkpoint in our form.

    Args:
        saved: the file.
        source: code base whose key names the published file has.
        parameters: parameters of the model.
        classes: classes of its head.
    """

    saved: SavedCheckpoint
    source: str
    parameters: int
    classes: int


def convert_checkpoint(config: RunConfig, weights: Path, run_dir: Path) -> Converted:
    """Load a published checkpoint strictly into the model of a configuration and save it as a checkpoint of ours.

    Args:
        config: the configuration of the variant that was published; its data need not be there.
        weights: the published file.
        run_dir: folder for `ckpt-00000-0000000.pt`.

    Raises:
        CheckpointError: the file does not fit the model; the message names the keys. Or the folder has checkpoints.
        TrainerError: the configuration's model is none of the published families.
    """
    if not isinstance(config.model, SpikingTransformerModel):
        raise TrainerError(f"model '{config.model.name}' is none of the published families of spiking transformers")
    shape = image_shape(config.data.model_dump())
    if shape is None:
        raise TrainerError(
            f"the images of data set '{config.data.name}' have no size of their own: set data.image_size"
        )
    if any(run_dir.glob("ckpt-*")):
        raise CheckpointError(f"{run_dir} has checkpoints already: name another folder")
    config = with_params(config, {"model.pretrained": None})
    head = read_weights(weights).get("head.weight")
    if head is None:
        raise CheckpointError(f"{weights} has no 'head.weight', so the number of its classes is not known")
    model = build_model(config, shape, len(head), torch.device("cpu"))
    source = load_pretrained(model, weights)
    content = {
        "config": to_dict(config),
        "config_hash": config_hash(config),
        "epoch": 0,
        "step": 0,
        "weights": {"model": model.state_dict(), "ema": None},
    }
    saved = checkpoints.save(run_dir, content, epoch=0, step=0, keep=1)
    return Converted(saved, source, sum(parameter.numel() for parameter in model.parameters()), len(head))
