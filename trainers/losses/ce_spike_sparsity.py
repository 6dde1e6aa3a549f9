"""Cross-entropy plus SpikeSparsity."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.losses.base import TaskLoss, register_loss, require
from trainers.losses.spike_sparsity import SpikeSparsity


@register_loss("ce_ss")
class CeSpikeSparsity(TaskLoss):
    """Mean cross-entropy of the logits plus SpikeSparsity of the encoder's spikes (DeniBademi/Thesis).

    Args:
        omega: weight of the sparsity term.
        n_epochs: epochs of the run.
        c: weight of the concentration.
        label_smoothing: label smoothing of the cross-entropy.
    """

    needs_embeddings = True

    def __init__(
        self,
        omega: float,
        n_epochs: int,
        c: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.sparsity = SpikeSparsity(omega, n_epochs, c)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor | None = None,
        epoch: int = 0,
        images: Tensor | None = None,  # noqa: ARG002  # the uniform call of all losses
    ) -> Tensor:
        """Return the sum of both terms.

        Args:
            logits: [B, K].
            targets: class indices [B] or probabilities [B, K].
            embeddings: [T, B, ...].
            epoch: 0-based epoch.
            images: unused.

        Returns:
            A scalar.

        Raises:
            ValueError: there are no embeddings.
        """
        entropy = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        sparsity: Tensor = self.sparsity(require(embeddings, "embeddings", self), epoch)
        return entropy + sparsity
