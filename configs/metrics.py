"""Names of the metrics that the shipped trainer reports; spaces may use these and no others."""

from __future__ import annotations

METRICS: dict[str, str] = {
    "train_loss": "mean loss of the epoch's training batches",
    "train_accuracy": "share of training images classified correctly while training",
    "val_loss": "mean loss of the validation images",
    "val_accuracy": "share of validation images classified correctly",
    "val_f1": "F1 score, macro average over the classes",
    "val_precision": "precision, macro average over the classes",
    "val_recall": "recall, macro average over the classes",
    "val_spike_density": "mean of the encoder's spikes",
    "val_binary_sparsity": "share of the encoder's spikes that are at most 0.5",
    "val_temporal_sparsity": "spikes above 0.5 per position, summed over time",
    "val_activation_sparsity": "1 - L1 / (L2 sqrt(n)) of the encoder's spikes",
    "val_firing_rate": "mean firing rate over the spiking layers; val_firing_rate.<layer> is the rate of one",
    "epoch_seconds": "wall time of the epoch, validation included",
    "peak_memory_mb": "largest device memory in use during the epoch",
}
PER_LAYER = "val_firing_rate"


def is_metric(name: str) -> bool:
    """Return whether the shipped trainer reports a metric of that name."""
    base, dot, layer = name.partition(".")
    return name in METRICS or (base == PER_LAYER and bool(dot and layer))
