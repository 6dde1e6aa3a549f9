"""Build the model and the loss that a configuration describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm import create_model

from configs.schema import (
    DirectEncoder,
    EncoderOnlyModel,
    NoNeuron,
    RunConfig,
    SpikingNeuron,
    SpikingTransformerModel,
)
from trainers.encoder_weights import load_encoder
from trainers.keymaps.pretrained import load_pretrained
from trainers.losses import LOSSES
from trainers.memory import save_memory
from trainers.neuron_backends import choose_backend
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from torch import nn

    from trainers.models import EncoderOnly, SpikingTransformer, StalSpikformer, StalSrnn

_ENCODER_BASE_KEYS = {"name", "time_steps", "checkpoint", "freeze"}  # not arguments of one kind of encoder
_TRANSFORMER_THRESHOLDS = {"tokenizer_v_threshold", "attention_v_threshold", "mlp_v_threshold"}


def build_model(
    config: RunConfig, image_shape: tuple[int, int, int], num_classes: int, device: torch.device
) -> StalSrnn | StalSpikformer | EncoderOnly | SpikingTransformer:
    """Build the model of a configuration, with pre-trained weights where it names some.

    Args:
        config: the whole configuration; its model, neuron, encoder and loss are used, and `training.memory`.
        image_shape: (C, H, W) of the images or of the frames of a clip.
        num_classes: classes of the data set.
        device: where the model goes. Weights are drawn on the CPU, so they are the same everywhere.

    Returns:
        The model; `model.neuron_backend` names the kernel that runs its LIF layers, `torch` where it has none.

    Raises:
        TrainerError: a size does not fit the images, the images are not square, or the model cannot save memory as
            asked.
        CheckpointError: pre-trained weights are missing or do not fit.
    """
    channels, height, width = image_shape
    if height != width:
        raise TrainerError(f"the models take square images, got {height} x {width}; set data.image_size")
    arguments = _transformer_arguments if isinstance(config.model, SpikingTransformerModel) else _stal_arguments
    try:
        model = create_model(
            config.model.name,
            in_channels=channels,
            img_size=height,
            time_steps=config.encoder.time_steps,
            **arguments(config, num_classes),
        )
    except ValueError as error:
        raise TrainerError(
            f"model '{config.model.name}' with encoder '{config.encoder.name}' cannot be built for images of "
            f"{channels} x {height} x {width}: {error}"
        ) from error
    _load_weights(model, config)
    if isinstance(config.neuron, SpikingNeuron):
        requested = config.neuron.backend
    else:
        requested = "auto" if config.encoder.name == "sps" else "torch"  # SPS has LIF layers of its own
    model.neuron_backend = choose_backend(requested, device)
    save_memory(model, config.training.memory)
    if device.type == "cpu" and isinstance(config.model, SpikingTransformerModel):
        model.to(memory_format=torch.channels_last)  # convolutions are a tenth faster; see docs/performance.md
    return cast("StalSrnn | StalSpikformer | EncoderOnly | SpikingTransformer", model.to(device))


def _load_weights(model: nn.Module, config: RunConfig) -> None:
    if not isinstance(config.encoder, DirectEncoder) and config.encoder.checkpoint is not None:
        load_encoder(cast("nn.Module", model.encoder), Path(config.encoder.checkpoint))
    if isinstance(config.model, SpikingTransformerModel) and config.model.pretrained is not None:
        load_pretrained(model, Path(config.model.pretrained), new_head=config.model.new_head)


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


def _transformer_arguments(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """Return what a spiking transformer is told."""
    return {
        "num_classes": num_classes,
        "step_logits": config.loss.name == "tet",
        **config.model.model_dump(exclude={"name", "pretrained", "new_head"}),
        "neuron": config.neuron.name,
        **_neuron_arguments(config),
    }


def _stal_arguments(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """Return what the models with a swappable encoder are told; only those that classify know classes and neurons."""
    encoder = config.encoder
    arguments: dict[str, Any] = {
        "encoder": encoder.name,
        "encoder_kwargs": encoder.model_dump(exclude=_ENCODER_BASE_KEYS),
    }
    if isinstance(config.model, EncoderOnlyModel) or isinstance(encoder, DirectEncoder):
        return arguments
    neuron = _neuron_arguments(config)
    return {
        **arguments,
        "num_classes": num_classes,
        "freeze_encoder": encoder.freeze,
        **config.model.model_dump(exclude={"name"}),
        **{key: value for key, value in neuron.items() if key not in _TRANSFORMER_THRESHOLDS},
    }


def _neuron_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the neuron section as plain arguments of a model; those it leaves open are left out."""
    if isinstance(config.neuron, NoNeuron):
        return {}
    arguments = config.neuron.model_dump(exclude={"name", "surrogate"})
    if "v_reset" in arguments and arguments["v_reset"] is None:
        arguments["soft_reset"] = True
    surrogate = getattr(config.neuron, "surrogate", None)
    if surrogate is not None:
        arguments |= {"surrogate": surrogate.name, "surrogate_alpha": surrogate.alpha}
    return {key: value for key, value in arguments.items() if value is not None}
