"""Mean cross-entropy of logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.losses.base import TaskLoss, register_loss


@register_loss("cross_entropy")
class CrossEntropy(TaskLoss):
    """Mean cross-entropy.

    Args:
        label_smoothing: share of the target spread over all classes, [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor | None = None,  # noqa: ARG002  # the uniform call of all losses
        epoch: int = 0,  # noqa: ARG002
        images: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the mean over the batch.

        Args:
            logits: [B, K].
            targets: class indices [B] or probabilities [B, K].
            embeddings: unused.
            epoch: unused.
            images: unused.

        Returns:
            A scalar.
        """
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
