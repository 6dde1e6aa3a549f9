"""What the models share: frozen encoders and the arguments that timm adds."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from torch import nn


class _HasEncoder(Protocol):
    freeze_encoder: bool
    encoder: Any


Model = TypeVar("Model", bound=_HasEncoder)
_TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def freeze(module: nn.Module) -> None:
    """Fix a module: no gradients, no updated statistics, no dropout."""
    module.requires_grad_(False).eval()


def keep_frozen_in_eval(model: Model) -> Model:
    """Put a frozen encoder back into evaluation mode after the model's mode was set."""
    if model.freeze_encoder:
        model.encoder.eval()
    return model


def no_pretrained_weights(name: str, pretrained: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take out what timm passes about pretrained weights.

    Args:
        name: the model, for the message.
        pretrained: whether weights are asked for.
        kwargs: what `timm.create_model` passed.

    Returns:
        The arguments of the model itself.

    Raises:
        ValueError: weights are asked for.
    """
    if pretrained:
        raise ValueError(f"there are no pretrained weights of '{name}'; load a checkpoint of your own")
    return {key: value for key, value in kwargs.items() if key not in _TIMM_ONLY}
