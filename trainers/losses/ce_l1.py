"""Cross-entropy plus the distance of the spike count from the image's area."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.losses.base import TaskLoss, register_loss, require


@register_loss("ce_l1")
class CeL1(TaskLoss):
    """CE + w mean_b |n_b - A_b (T N D) / (C H W)| (DeniBademi/Thesis, CE_L1Loss).

    A_b is the sum of the pixels of sample b, n_b the sum of its spikes; where alpha > 10 spikes are counted as E > 0.5,
    which passes no gradient.

    Args:
        alpha: slope of the encoder's threshold sigmoid.
        sparsity_weight: weight w.
    """

    needs_embeddings = True

    def __init__(self, alpha: float = 25.0, sparsity_weight: float = 0.1) -> None:
        super().__init__()
        self.binarise = alpha > 10
        self.sparsity_weight = sparsity_weight

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor | None = None,
        epoch: int = 0,  # noqa: ARG002  # the uniform call of all losses
        images: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of both terms.

        Args:
            logits: [B, K].
            targets: class indices [B] or probabilities [B, K].
            embeddings: [T, B, ...].
            epoch: unused.
            images: [B, C, H, W].

        Returns:
            A scalar.

        Raises:
            ValueError: there are no embeddings or no images.
        """
        spikes = require(embeddings, "embeddings", self)
        pixels = require(images, "images", self)
        if self.binarise:
            spikes = (spikes > 0.5).to(logits.dtype)
        counts = spikes.movedim(1, 0).flatten(1).sum(1)  # [B]
        areas = pixels.flatten(1).sum(1)
        values_per_pixel = (spikes.numel() // len(counts)) / pixels[0].numel()
        distance = (counts - areas * values_per_pixel).abs().mean()
        return F.cross_entropy(logits, targets) + self.sparsity_weight * distance
