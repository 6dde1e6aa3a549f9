"""Measure a model on a split: during training, and later from nothing but a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.problems import ConfigError, Problem, Where
from configs.resolve import with_params
from configs.schema import RunConfig, Training
from trainers import checkpoint as checkpoints
from trainers.data import Samples, load_data
from trainers.data.batches import eval_batches
from trainers.data.bundle import SPLITS
from trainers.determinism import derive_seed, isolated_rng, reproducible
from trainers.energy import EnergyMeter, write_table
from trainers.factory import build_model
from trainers.guards import choose_device
from trainers.metrics import EvaluationMetrics, FiringRates
from trainers.protocol import CheckpointError
from trainers.tasks import Task, make_task


def measure(
    task: Task,
    model: nn.Module,
    split: Samples,
    *,
    epoch: int,
    batch_size: int,
    seed: int,
    num_classes: int,
    energy: EnergyMeter | None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Run a model over a whole split and return its metrics.

    The random numbers drawn here (rate coding) come from a stream of their own: the same weights give the same metrics
    whenever they are measured, and training draws what it would have drawn without the measurement.

    Args:
        task: runs a batch.
        model: the model; it is left in evaluation mode.
        split: the images or clips, whose batches come to the model's device.
        epoch: 0-based epoch, for the loss.
        batch_size: images per batch.
        seed: the run's seed.
        num_classes: classes of the data set.
        energy: a meter of the model, or None to leave its energy out.
        between: called after each batch; may raise to end the measurement.

    Returns:
        Metric name, without the split's name, to value.
    """
    model.eval()
    metrics = EvaluationMetrics(num_classes if task.classifies else None)
    with (
        isolated_rng(derive_seed(seed, "evaluate"), task.device),
        torch.inference_mode(),
        FiringRates(model) as rates,
        energy or nullcontext(),
    ):
        for images, labels in eval_batches(split, batch_size):
            output = task.step(model, images, labels, epoch)
            metrics.update(output.logits, labels, output.embeddings, output.loss)
            between()
    return {**metrics.compute(), **rates.compute(), **({} if energy is None else energy.compute())}


def evaluate(
    checkpoint: Path,
    split: str = "test",
    *,
    overrides: Mapping[str, object] | None = None,
    threads: int | None = None,
    energy_table: Path | None = None,
) -> dict[str, float]:
    """Rebuild the model of a checkpoint and measure it on a split.

    Averaged weights are measured where the run kept them, as in training.

    Args:
        checkpoint: file written by a run; the configuration is in it.
        split: `train`, `val` or `test`.
        overrides: dotted keys of the configuration to new values, for a data folder or a device of this machine.
        threads: CPU threads to use; None leaves them as they are.
        energy_table: CSV file to write what each layer did and cost to.

    Returns:
        Metrics named `<split>_*`; with the run's own seed, threads and device those of `val` equal what it reported.

    Raises:
        CheckpointError: the file is missing, damaged, of another schema version, or does not fit the model.
        DataNotFoundError: the data set is not there.
        ConfigError: there is no such split, or the table is asked for where no energy is measured.
        TrainerError: there is no such device.
    """
    if split not in SPLITS:
        raise ConfigError([Problem(Where(None), f"there is no split '{split}'", f"use one of {', '.join(SPLITS)}")])
    content = checkpoints.load(checkpoint)
    config = without_weights(with_params(checkpoints.config_of(content, checkpoint), overrides or {}))
    if energy_table is not None and not config.energy.measure:
        raise ConfigError([Problem(Where(None), "there is no energy to write a table of", "set energy.measure true")])
    device = choose_device(config.training.device)
    with reproducible(config.training.seed, device, deterministic=config.training.deterministic, threads=threads):
        data = load_data(config.data, config.augmentation)
        model = build_model(config, data.shape, data.num_classes, device)
        load_weights(model, content, checkpoint)
        energy = energy_meter(config, model, events=energy_table is not None)
        measured = measure(
            make_task(config, device),
            model,
            data.split(split).to(device),
            epoch=max(content["epoch"] - 1, 0),
            batch_size=eval_batch_size(config.training),
            seed=config.training.seed,
            num_classes=data.num_classes,
            energy=energy,
        )
    if energy is not None and energy_table is not None:
        write_table(energy.layers(), energy_table)
    return {f"{split}_{name}": value for name, value in measured.items()}


def eval_batch_size(training: Training) -> int:
    """Return the images per batch of a measurement; by default as many as fit while training."""
    return training.eval_batch_size or math.ceil(training.batch_size / training.processes)


def without_weights(config: RunConfig) -> RunConfig:
    """Return a configuration that loads no weights: those of a checkpoint are whole, and other files may be gone."""
    named = {"encoder.checkpoint": "checkpoint", "model.pretrained": "pretrained"}
    present = [key for key, name in named.items() if hasattr(getattr(config, key.partition(".")[0]), name)]
    return with_params(config, dict.fromkeys(present, None))


def energy_meter(config: RunConfig, model: nn.Module, *, events: bool = False) -> EnergyMeter | None:
    """Return a meter of a model's energy by the configuration's cost table, or None where it wants none."""
    return EnergyMeter(model, config.energy.cost_table, events=events) if config.energy.measure else None


def load_weights(model: nn.Module, content: dict[str, Any], checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint, the averaged ones where the run kept them.

    Args:
        model: as the checkpoint's configuration builds it.
        content: of the checkpoint.
        checkpoint: where it came from, for the message.

    Raises:
        CheckpointError: the weights are not those of such a model.
    """
    try:
        weights = content["weights"]
        model.load_state_dict(weights["model"] if weights["ema"] is None else weights["ema"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint} does not fit the model of its own configuration: {error}") from error
