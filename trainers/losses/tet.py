"""Temporal efficient training: every time step classifies."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.losses.base import TaskLoss, register_loss


@register_loss("tet")
class TemporalEfficientTraining(TaskLoss):
    """(1 - lambda) mean_t CE(z_t, y) + lambda mean((z - m)^2) over the logits z of all steps (TET, arXiv 2202.11946).

    Args:
        lamb: weight lambda of the second term, [0, 1].
        mean: value m that the logits are drawn to.
        label_smoothing: share of the target spread over all classes, [0, 1).
    """

    def __init__(self, lamb: float = 1e-3, mean: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.lamb = lamb
        self.mean = mean
        self.label_smoothing = label_smoothing

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor | None = None,  # noqa: ARG002  # the uniform call of all losses
        epoch: int = 0,  # noqa: ARG002
        images: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the sum of both terms.

        Args:
            logits: [T, B, K].
            targets: class indices [B] or probabilities [B, K].
            embeddings: unused.
            epoch: unused.
            images: unused.

        Returns:
            A scalar.

        Raises:
            ValueError: the logits are not those of each step.
        """
        if logits.ndim != 3:
            raise ValueError(f"expected the logits of each step [T, B, K], got {tuple(logits.shape)}")
        each_step = targets.expand(logits.shape[0], *targets.shape).flatten(0, 1)  # [T*B] or [T*B, K]
        entropy = F.cross_entropy(logits.flatten(0, 1), each_step, label_smoothing=self.label_smoothing)
        return (1.0 - self.lamb) * entropy + self.lamb * (logits - self.mean).square().mean()
