"""An encoder by itself: what is trained before a classifier takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before timm

# isort: split
from timm.models import register_model

from trainers.encoders import ENCODERS, Encoded, StepEncoder
from trainers.models.parts import no_pretrained_weights


class EncoderOnly(nn.Module):
    """Encoder of the STAL family without a classifier (arXiv 2407.08362; DeniBademi/Thesis).

    Its weights are called as those of a classifier's encoder, so that a classifier can load them.

    Args:
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
        encoder: name of an encoder that gives steps and has weights (`convstal`, `stal`, `ancestor`).
        encoder_kwargs: its further arguments.

    Raises:
        ValueError: the encoder is unknown, gives tokens or has no weights, or its sizes do not fit.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        img_size: int = 28,
        time_steps: int = 5,
        encoder: str = "convstal",
        encoder_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        built = ENCODERS.create(
            encoder, in_channels=in_channels, img_size=img_size, time_steps=time_steps, **(encoder_kwargs or {})
        )
        if not isinstance(built, StepEncoder) or not any(True for _ in built.parameters()):
            raise ValueError(f"encoder_only trains convstal, stal or ancestor by an encoder loss, not '{encoder}'")
        self.encoder = built

    def forward(self, images: Tensor) -> Encoded:
        """Encode images.

        Args:
            images: [B, C, H, W].

        Returns:
            Spikes, Z1 and Z2 in the encoder's own shapes.
        """
        encoded: Encoded = self.encoder(images)
        return encoded


@register_model  # type: ignore[untyped-decorator]  # timm is untyped
def encoder_only(pretrained: bool = False, **kwargs: Any) -> EncoderOnly:
    """Build `EncoderOnly` for `timm.create_model("encoder_only", ...)`.

    Args:
        pretrained: must be False.
        kwargs: arguments of `EncoderOnly`.

    Returns:
        The model.

    Raises:
        ValueError: pretrained weights are asked for.
    """
    return EncoderOnly(**no_pretrained_weights("encoder_only", pretrained, kwargs))
