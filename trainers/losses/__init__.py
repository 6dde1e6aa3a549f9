"""Losses, found by name."""

from trainers.losses import ce_l1, ce_spike_sparsity, cross_entropy, encoder_loss, spike_sparsity, tet
from trainers.losses.base import LOSSES, TaskLoss, register_loss

__all__ = [
    "LOSSES",
    "TaskLoss",
    "ce_l1",
    "ce_spike_sparsity",
    "cross_entropy",
    "encoder_loss",
    "register_loss",
    "spike_sparsity",
    "tet",
]
