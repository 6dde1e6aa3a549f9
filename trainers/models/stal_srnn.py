"""SRNN: an encoder of the STAL family and two recurrent LIF layers; the logits are summed spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before timm

# isort: split
from timm.models import register_model

from trainers.encoders import TokenEncoder
from trainers.models.parts import build_encoder, encode, freeze, keep_frozen_in_eval, no_pretrained_weights
from trainers.neurons import RecurrentLif


class RecurrentClassifier(nn.Module):
    """Linear layer, recurrent LIF, linear layer, recurrent LIF over T steps (DeniBademi/Thesis; arXiv 2407.08362).

    Args:
        in_size: values per step.
        hidden_size: width of the hidden layer.
        num_classes: classes K.
        beta: membrane decay per step.
        v_threshold: firing threshold.
        surrogate: shape of the surrogate derivative.
        surrogate_alpha: its slope.
    """

    def __init__(
        self,
        in_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        beta: float = 0.9,
        v_threshold: float = 1.0,
        surrogate: str = "atan",
        surrogate_alpha: float = 2.0,
    ) -> None:
        super().__init__()
        neuron: dict[str, Any] = {
            "beta": beta,
            "v_threshold": v_threshold,
            "surrogate": surrogate,
            "surrogate_alpha": surrogate_alpha,
        }
        self.fc1 = nn.Linear(in_size, hidden_size)
        self.rlif1 = RecurrentLif(hidden_size, **neuron)
        self.fc2 = nn.Linear(hidden_size, num_classes)
        self.rlif2 = RecurrentLif(num_classes, **neuron)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            steps: input [B, T, ...].

        Returns:
            Spikes and membranes of the last layer, both [T, B, K].
        """
        x = steps.flatten(2).transpose(0, 1)  # [T, B, n]; both linear layers run on all steps at once
        hidden, _ = self.rlif1(self.fc1(x))
        spikes, membranes = self.rlif2(self.fc2(hidden))
        return spikes, membranes


class StalSrnn(nn.Module):
    """Encoder and recurrent classifier; logits are the spikes of the last layer summed over time, whole numbers 0 to T.

    Of an encoder that gives tokens [T, B, N, D] the classifier reads all N D values of a time step at once.
    `embeddings_time_dim` says where the time axis of the embeddings is: 1, and 0 in tokens.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
        encoder: name of an encoder.
        encoder_kwargs: its further arguments.
        freeze_encoder: keep the encoder fixed: no gradients, no updated statistics, no dropout.
        hidden_size: width of the hidden layer.
        embed_dims: token width D of an encoder that gives tokens.
        beta: membrane decay per step.
        v_threshold: firing threshold.
        surrogate: shape of the surrogate derivative.
        surrogate_alpha: its slope.

    Raises:
        ValueError: the encoder is unknown, or its sizes do not fit.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        img_size: int = 28,
        time_steps: int = 5,
        encoder: str = "convstal",
        encoder_kwargs: Mapping[str, object] | None = None,
        freeze_encoder: bool = False,
        hidden_size: int = 56,
        embed_dims: int = 128,
        beta: float = 0.9,
        v_threshold: float = 1.0,
        surrogate: str = "atan",
        surrogate_alpha: float = 2.0,
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(
            encoder,
            {"embed_dims": embed_dims},
            in_channels=in_channels,
            img_size=img_size,
            time_steps=time_steps,
            **(encoder_kwargs or {}),
        )
        if isinstance(self.encoder, TokenEncoder):
            self.embeddings_time_dim, in_size = 0, self.encoder.num_tokens * self.encoder.embed_dims
        else:
            self.embeddings_time_dim, in_size = 1, self.encoder.step_size
        self.classifier = RecurrentClassifier(
            in_size,
            hidden_size,
            num_classes,
            beta=beta,
            v_threshold=v_threshold,
            surrogate=surrogate,
            surrogate_alpha=surrogate_alpha,
        )
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            freeze(self.encoder)

    def train(self, mode: bool = True) -> StalSrnn:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        return keep_frozen_in_eval(self)

    def forward(self, images: Tensor, return_embeddings: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            images: [B, C, H, W].
            return_embeddings: return the encoder's spikes too.

        Returns:
            Logits [B, K], and with `return_embeddings` the spikes [B, T, ...] or tokens [T, B, N, D].
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            embeddings = encode(self.encoder, images)
        spikes, _ = self.classifier(embeddings.movedim(self.embeddings_time_dim, 1))
        logits: Tensor = spikes.sum(0)
        return (logits, embeddings) if return_embeddings else logits


@register_model  # type: ignore[untyped-decorator]  # timm is untyped
def stal_srnn(pretrained: bool = False, **kwargs: Any) -> StalSrnn:
    """Build `StalSrnn` for `timm.create_model("stal_srnn", ...)`.

    Args:
        pretrained: must be False.
        kwargs: arguments of `StalSrnn`.

    Returns:
        The model.

    Raises:
        ValueError: pretrained weights are asked for.
    """
    return StalSrnn(**no_pretrained_weights("stal_srnn", pretrained, kwargs))
