"""Names of the metrics that the shipped trainer reports; spaces may use these and no others."""

from __future__ import annotations

from configs.fit import ENCODER_ONLY

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
    "val_energy_uj": "energy of one image in uJ, by energy.cost_table",
    "val_sop": "synaptic operations of one image: accumulations that spikes cause",
    "val_macs": "multiply-accumulations of one image, in layers whose input is no spikes",
    "epoch_seconds": "wall time of the epoch, validation included",
    "peak_memory_mb": "largest device memory in use during the epoch",
}
PER_LAYER = "val_firing_rate"
OF_CLASSIFIERS = frozenset({"train_accuracy", "val_accuracy", "val_f1", "val_precision", "val_recall", PER_LAYER})


def metrics_of(model: str | None) -> dict[str, str]:
    """Return the metrics that the shipped trainer reports for a kind of model, or for some where it is None."""
    return {name: what for name, what in METRICS.items() if model != ENCODER_ONLY or name not in OF_CLASSIFIERS}


def is_metric(name: str, model: str | None = None) -> bool:
    """Return whether the shipped trainer reports a metric of that name.

    Args:
        name: the metric.
        model: kind of model that is trained; None asks whether it is reported for any.
    """
    base, dot, layer = name.partition(".")
    known = metrics_of(model)
    return name in known or (base == PER_LAYER and base in known and bool(dot and layer))
