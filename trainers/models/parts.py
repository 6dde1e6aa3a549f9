"""What the models share: any encoder, built and run, frozen encoders and the arguments that timm adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from trainers.encoders import ENCODERS, StepEncoder, TokenEncoder


class _HasEncoder(Protocol):
    freeze_encoder: bool
    encoder: Any


Model = TypeVar("Model", bound=_HasEncoder)
_TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def build_encoder(name: str, token_options: Mapping[str, object], **kwargs: object) -> StepEncoder | TokenEncoder:
    """Build an encoder by name.

    Args:
        name: name of the encoder.
        token_options: further arguments of one that gives tokens: their width, which only a model knows.
        kwargs: arguments of the encoder.

    Returns:
        The encoder.

    Raises:
        ValueError: the encoder is unknown, or its sizes do not fit.
    """
    kind = ENCODERS.get(name)
    gives_tokens = isinstance(kind, type) and issubclass(kind, TokenEncoder)
    return ENCODERS.create(name, **(token_options if gives_tokens else {}), **kwargs)


def encode(encoder: StepEncoder | TokenEncoder, images: Tensor) -> Tensor:
    """Run an encoder.

    Args:
        encoder: any encoder.
        images: [B, C, H, W].

    Returns:
        Its tokens [T, B, N, D], or its spikes as steps [B, T, ...].
    """
    encoded = encoder(images)
    out: Tensor = encoder.steps(encoded.spikes) if isinstance(encoder, StepEncoder) else encoded
    return out


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
