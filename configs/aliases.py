"""Other names of configuration keys, accepted in files, overrides and search spaces.

They are the key names of the STAL thesis code (DeniBademi/Thesis) and of common training scripts.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: dict[str, str] = {
    "data.batch_size": "training.batch_size",
    "data.dataset": "data.name",
    "data.num_workers": "data.workers",
    "encoder.T": "encoder.time_steps",
    "encoder.checkpoint_path": "encoder.checkpoint",
    "encoder.embed_dims": "model.embed_dims",
    "encoder.freeze_weights": "encoder.freeze",
    "encoder.l2_sz": "encoder.l2_size",
    "encoder.n_spikes_per_timestep": "encoder.time_steps",
    "loss.concentration_weight": "loss.c",
    "model.depths": "model.depth",
    "model.l1_sz": "model.hidden_size",
    "model.learning_rate": "optimizer.learning_rate",
    "model.lif_beta": "neuron.beta",
    "model.mlp_ratios": "model.mlp_ratio",
    "model.n_spikes_per_timestep": "encoder.time_steps",
    "neuron.lif_beta": "neuron.beta",
    "optimizer.lr": "optimizer.learning_rate",
    "training.learning_rate": "optimizer.learning_rate",
    "training.lr": "optimizer.learning_rate",
    "training.weight_decay": "optimizer.weight_decay",
}

ALIASES_BY_KIND: dict[str, dict[str, str]] = {
    "encoder.l1_sz": {
        "ancestor": "encoder.l1_size",
        "convstal": "encoder.hidden_channels",
        "stal": "encoder.l1_size",
    },
}


def canonical(key: str, kinds: Mapping[str, str | None]) -> str:
    """Return the key that an alias stands for, or the key itself.

    Args:
        key: dotted key as written.
        kinds: section -> its `name` (`{"encoder": "stal"}`), for aliases that depend on it.
    """
    if key in ALIASES_BY_KIND:
        return ALIASES_BY_KIND[key].get(kinds.get(key.partition(".")[0]) or "", key)
    return ALIASES.get(key, key)
