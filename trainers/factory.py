"""Build the model and the loss that a configuration describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm import create_model

from configs.schema import EncoderOnlyModel, LifNeuron, NoNeuron, RunConfig
from trainers.encoder_weights import load_encoder
from trainers.losses import LOSSES
from trainers.neuron_backends import choose_backend
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from torch import nn

    from trainers.models import EncoderOnly, StalSpikformer, StalSrnn

_ENCODER_BASE_KEYS = {"name", "time_steps", "checkpoint", "freeze"}  # not arguments of one kind of encoder


def build_model(
    config: RunConfig, image_shape: tuple[int, int, int], num_classes: int, device: torch.device
) -> StalSrnn | StalSpikformer | EncoderOnly:
    """Build the model of a configuration, with pre-trained encoder weights where it names some.

    Args:
        config: the whole configuration; its model, neuron and encoder are used.
        image_shape: (C, H, W) of the images.
        num_classes: classes of the data set.
        device: where the model goes. Weights are drawn on the CPU, so they are the same everywhere.

    Returns:
        The model; `model.neuron_backend` names the kernel that runs its LIF layers, `torch` where it has none.

    Raises:
        TrainerError: a size does not fit the images, or the images are not square.
        CheckpointError: the encoder's weights are missing or do not fit.
    """
    channels, height, width = image_shape
    if height != width:
        raise TrainerError(f"the models take square images, got {height} x {width}; set data.image_size")
    try:
        model = create_model(
            config.model.name,
            in_channels=channels,
            img_size=height,
            time_steps=config.encoder.time_steps,
            encoder=config.encoder.name,
            encoder_kwargs=config.encoder.model_dump(exclude=_ENCODER_BASE_KEYS),
            **_classifier_arguments(config, num_classes),
        )
    except ValueError as error:
        raise TrainerError(
            f"model '{config.model.name}' with encoder '{config.encoder.name}' cannot be built for images of "
            f"{channels} x {height} x {width}: {error}"
        ) from error
    if config.encoder.checkpoint is not None:
        load_encoder(model.encoder, Path(config.encoder.checkpoint))
    if isinstance(config.neuron, LifNeuron):
        requested = config.neuron.backend
    else:
        requested = "auto" if config.encoder.name == "sps" else "torch"  # SPS has LIF layers of its own
    model.neuron_backend = choose_backend(requested, device)
    return cast("StalSrnn | StalSpikformer | EncoderOnly", model.to(device))


def build_loss(config: RunConfig) -> nn.Module:
    """Build the loss of a configuration.

    Args:
        config: the whole configuration; its loss and number of epochs are used.

    Returns:
        The loss, a `TaskLoss` where a classifier is trained.
    """
    arguments = config.loss.model_dump(exclude={"name", "embedding_layout"})
    if config.loss.name == "ce_ss":
        arguments["n_epochs"] = config.training.epochs
    return LOSSES.create(config.loss.name, **arguments)


def _classifier_arguments(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """Return what only a model that classifies is told."""
    if isinstance(config.model, EncoderOnlyModel):
        return {}
    return {
        "num_classes": num_classes,
        "freeze_encoder": config.encoder.freeze,
        **config.model.model_dump(exclude={"name"}),
        **_neuron_arguments(config),
    }


def _neuron_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the neuron section as plain arguments of a model."""
    if isinstance(config.neuron, NoNeuron):
        return {}
    arguments = config.neuron.model_dump(exclude={"name", "surrogate"})
    surrogate = config.neuron.surrogate
    if "v_reset" in arguments and arguments["v_reset"] is None:
        del arguments["v_reset"]
        arguments["soft_reset"] = True
    return {**arguments, "surrogate": surrogate.name, "surrogate_alpha": surrogate.alpha}
