"""SpikeSparsity: spikes cost, spikes that come in a few places cost less."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.losses.base import register_loss

EPS = 1e-6


@register_loss("spike_sparsity")
class SpikeSparsity(nn.Module):
    """SS = omega (epoch / n_epochs) (L1 - c K) (DeniBademi/Thesis).

    With q the mean over the batch of the sum over time of E: L1 = sum q and K = sum q^2 / (sum q + 1e-6), the
    concentration. SS is negative where c K > L1.

    Args:
        omega: weight.
        n_epochs: epochs of the run; the weight grows linearly from 0 to (n - 1) / n.
        c: weight of the concentration.
    """

    def __init__(self, omega: float, n_epochs: int, c: float = 1.0) -> None:
        super().__init__()
        self.omega = omega
        self.n_epochs = n_epochs
        self.c = c

    def forward(self, embeddings: Tensor, epoch: int) -> Tensor:
        """Return the penalty.

        Args:
            embeddings: [T, B, ...]: dimension 0 is summed, dimension 1 averaged.
            epoch: 0-based epoch.

        Returns:
            A scalar.
        """
        count, concentration = spike_count_and_concentration(embeddings)
        return self.omega * (epoch / self.n_epochs) * (count - self.c * concentration)


def spike_count_and_concentration(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return L1 and K of embeddings.

    Args:
        embeddings: [T, B, ...].

    Returns:
        Two scalars: sum q and sum q^2 / (sum q + 1e-6).
    """
    q = embeddings.sum((0, 1)) / embeddings.shape[1]
    count = q.sum()
    return count, q.square().sum() / (count + EPS)
