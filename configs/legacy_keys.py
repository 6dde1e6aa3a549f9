"""What each key of the STAL thesis' configuration files (DeniBademi/Thesis) is here; docs/legacy.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from configs.keys import known_keys
from configs.problems import did_you_mean, shown

ALL_TRAINING_DATA = "the thesis validated on nothing then; here data.val_fraction stays as it is, 0.2 by default"
FIRST_IMAGE = "the thesis' latency code shows the first image for every image (Q8); --encoder.variant linear mends it"

MODELS: Mapping[str, Mapping[str, object]] = {
    "spikformer": {"model.name": "stal_spikformer"},
    "srnn": {"model.name": "stal_srnn"},
    "conv_stal": {"model.name": "encoder_only", "encoder.name": "convstal"},
    "stal": {"model.name": "encoder_only", "encoder.name": "stal"},
}

RECIPE: Mapping[str, object] = {  # what the thesis' code had fixed; a file has those of its kinds of model and encoder
    "compat": "thesis",
    "model.attn_scale": 0.125,
    "neuron.v_threshold": 1.0,
    "neuron.tau": 2.0,
    "neuron.attn_v_threshold": 0.5,
    "encoder.time_steps": 5,
    "encoder.alpha": 25.0,
    "data.split_seed": 42,
    "data.val_fraction": 0.2,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.01,
    "optimizer.decay_bias_and_norm": True,
    "schedule.name": "step",
    "schedule.step_epochs": 4,
    "schedule.gamma": 0.2,
    "schedule.warmup_epochs": 0,
    "training.seed": 42,
}

RENAMED: Mapping[str, str] = {
    "model.num_heads": "model.num_heads",
    "model.mlp_ratios": "model.mlp_ratio",
    "model.depths": "model.depth",
    "model.l1_sz": "model.hidden_size",
    "model.lif_beta": "neuron.beta",
    "model.n_spikes_per_timestep": "encoder.time_steps",
    "model.learning_rate": "optimizer.learning_rate",
    "model.encoder.embed_dims": "model.embed_dims",
    "model.encoder.patch_size": "encoder.patch_size",
    "model.encoder.T": "encoder.time_steps",
    "model.encoder.n_spikes_per_timestep": "encoder.time_steps",
    "model.encoder.kernel_size": "encoder.kernel_size",
    "model.encoder.drop_p": "encoder.drop_p",
    "model.encoder.l1_sz": "encoder.l1_sz",  # an alias that depends on the encoder
    "model.encoder.l2_sz": "encoder.l2_size",
    "model.encoder.freeze_weights": "encoder.freeze",
    "model.encoder.checkpoint_path": "encoder.checkpoint",
    "data.dataset": "data.name",
    "data.data_dir": "data.data_dir",
    "data.batch_size": "training.batch_size",
    "data.num_workers": "data.workers",
    "data.seed": "data.split_seed",
    "training.epochs": "training.epochs",
    "training.batch_size": "training.batch_size",
    "training.learning_rate": "optimizer.learning_rate",
    "training.loss.name": "loss.name",
    "training.loss.omega": "loss.omega",
    "training.loss.c": "loss.c",
    "training.loss.concentration_weight": "loss.c",
    "training.logger.offline": "tracking.wandb_offline",
}
RENAMED_ALONE: Mapping[str, str] = {  # an encoder trained alone has its keys in the section model
    "model.l1_sz": "encoder.l1_sz",
    "model.kernel_size": "encoder.kernel_size",
    "model.drop_p": "encoder.drop_p",
}

WITHOUT_EFFECT: Mapping[str, str] = {
    "model.num_steps": "the SRNN takes as many steps as the encoder gives, in the thesis too",
    "model.sr_ratios": "nothing in the thesis' Spikformer uses it",
    "model.n_channels": "it follows from the data set, in the thesis too",
    "model.n_classes": "it follows from the data set, in the thesis too",
    "data.module": "nothing in the thesis reads it",
    "data.k": "one split is made, as in the thesis' runs",
    "data.num_splits": "one split is made, as in the thesis' runs",
    "training.k_fold.k": "one split is made, as in the thesis' runs",
    "training.k_fold.num_splits": "one split is made, as in the thesis' runs",
    "training.n_trials": "the number of trials stands in a search space, as budget.trials",
    "training.save_weights": "checkpoints are always kept",
    "training.save_dir": "--run-dir says where checkpoints go",
    "training.run_name": "a run is called as its folder, see --run-dir",
    "training.logger.save_dir": "the loggers' files go where spikebench keeps its runs",
    "training.logger.run_name": "a run is called as its folder, see --run-dir",
}
ONE_SIZE = "the second block is as wide as the image has channels, in the thesis too"
L2_WITHOUT_EFFECT: Mapping[tuple[str, str, bool], str] = {  # (old key, encoder, trained alone)
    ("model.encoder.l2_sz", "convstal", False): ONE_SIZE,
    ("model.l2_sz", "convstal", True): ONE_SIZE,
    ("model.l2_sz", "stal", True): "the thesis' script for STAL alone ignored it (Q5); --encoder.l2_size sets it",
}


class RefusedError(ValueError):
    """Say what was expected of a value and what came.

    Args:
        message: expected and given.
        hint: what to write instead.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


Converted = tuple[Mapping[str, object], str]  # new key -> value, and a remark or ""


def _model(value: object) -> Converted:
    if isinstance(value, str) and value in MODELS:
        return MODELS[value], ""
    if value in known_keys()["model.name"].values:
        return {"model.name": value}, ""
    raise _not_among(value, list(MODELS))


def _encoder(value: object) -> Converted:
    name = value.lower() if isinstance(value, str) else value  # the thesis took either case
    return {"encoder.name": name}, FIRST_IMAGE if name == "latency" else ""


def _train_share(value: object) -> Converted:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise RefusedError(f"expected the training images' share, a number > 0 and <= 1, got {shown(value)}")
    if value == 1:
        return {}, ALL_TRAINING_DATA
    return {"data.val_fraction": round(1.0 - value, 12)}, ""  # 1 - 0.8 is 0.19999999999999996


def _logger(value: object) -> Converted:
    name = value.lower() if isinstance(value, str) else value
    if name not in ("wandb", "mlflow"):
        raise _not_among(value, ["wandb", "mlflow"])
    return {"tracking.wandb": name == "wandb", "tracking.mlflow": name == "mlflow"}, ""


def _project(value: object) -> Converted:
    return {"tracking.wandb_project": value, "tracking.mlflow_experiment": value}, ""  # of whichever logger is on


def _not_among(value: object, known: list[str]) -> RefusedError:
    names = ", ".join(f"'{name}'" for name in known)
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    return RefusedError(f"expected one of {names}, got {shown(value)}", hint if hint.startswith("did") else "")


CONVERTED: Mapping[str, Callable[[object], Converted]] = {
    "model.name": _model,
    "model.encoder.name": _encoder,
    "data.train_split": _train_share,
    "data.train_val_split_ratio": _train_share,
    "training.train_val_split_ratio": _train_share,
    "training.logger.name": _logger,
    "training.logger.project": _project,
    "logger.name": _logger,
}
OLD_KEYS = frozenset({*RENAMED, *RENAMED_ALONE, *WITHOUT_EFFECT, *CONVERTED, "model.l2_sz"})
SECTIONS = frozenset({key.rpartition(".")[0] for key in OLD_KEYS})
