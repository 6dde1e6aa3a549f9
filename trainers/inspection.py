"""Look into the model of a checkpoint: where it errs, how often its layers spike, and the spikes of one sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.resolve import with_params
from configs.schema import RunConfig
from trainers import checkpoint as checkpoints
from trainers.data import Samples, load_data
from trainers.data.batches import eval_batches
from trainers.data.lazy import LazySplit
from trainers.determinism import derive_seed, isolated_rng, reproducible
from trainers.evaluation import load_weights, without_weights
from trainers.factory import build_model
from trainers.metrics import FiringRates
from trainers.neurons import spiking_layers
from trainers.tasks import make_task

CPU = torch.device("cpu")
BATCH_SIZE = 32  # small enough for the memory that is left beside trials


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the model of a checkpoint does on a split.

    Args:
        epoch: epochs it was trained.
        samples: how many were looked at.
        available: how many the split has.
        classes: names of the classes.
        confusion: counts [K, K], targets in rows, predictions in columns; None where nothing is classified.
        rates: spikes per neuron and time step of each layer, in the order of the layers.
        raster: spikes [T, N] for the split's first sample, of the encoder and of each layer.
        label: class number of that sample.
    """

    epoch: int
    samples: int
    available: int
    classes: tuple[str, ...]
    confusion: Tensor | None
    rates: dict[str, float]
    raster: dict[str, Tensor]
    label: int


def inspect(
    checkpoint: Path, split: str = "val", *, most: int = 2000, seconds: float = 60.0, threads: int | None = None
) -> Inspection:
    """Run the model of a checkpoint on the CPU over samples of a split, evenly chosen.

    Args:
        checkpoint: file written by a run; the configuration is in it.
        split: `train`, `val` or `test`.
        most: samples to look at.
        seconds: after which no further batch is begun: a large model takes a second for each image on a CPU.
        threads: CPU threads to use; None leaves them as they are.

    Raises:
        CheckpointError: the file is missing, damaged, of another schema version, or does not fit the model.
        DataNotFoundError: the data set is not there.
    """
    content = checkpoints.load(checkpoint)
    config = on_the_cpu(without_weights(checkpoints.config_of(content, checkpoint)))
    with reproducible(config.training.seed, CPU, deterministic=True, threads=threads):
        data = load_data(config.data, config.augmentation)
        model = build_model(config, data.shape, data.num_classes, CPU)
        load_weights(model, content, checkpoint)
        model.eval()
        whole = data.split(split)
        seen, confusion, rates = _run(config, model, evenly_chosen(whole, most), data.num_classes, seconds)
        image, label = next(iter(eval_batches(evenly_chosen(whole, 1), 1)))
        raster = _raster(config, model, image, label)
    return Inspection(int(content["epoch"]), seen, len(whole), data.classes, confusion, rates, raster, int(label[0]))


def on_the_cpu(config: RunConfig) -> RunConfig:
    """Return a configuration that leaves every GPU alone."""
    changes: dict[str, Any] = {"training.device": "cpu", "training.amp": "off"}
    if hasattr(config.neuron, "backend"):
        changes["neuron.backend"] = "auto"
    return with_params(config, changes)


def evenly_chosen(split: Samples, most: int) -> Samples:
    """Return at most so many samples of a split, evenly spread over it; their first part is so as well.

    Args:
        split: the samples.
        most: how many at the most.
    """
    index = torch.linspace(0, len(split) - 1, min(most, len(split)), dtype=torch.float64).long()
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]  # splits may be by class
    if isinstance(split, LazySplit):
        return replace(split, files=split.files.part(index), workers=0)
    return split.part(index, None)


def _run(
    config: RunConfig, model: nn.Module, split: Samples, num_classes: int, seconds: float
) -> tuple[int, Tensor | None, dict[str, float]]:
    task = make_task(config, CPU)
    seen, counts = 0, torch.zeros(num_classes * num_classes, dtype=torch.int64)
    deadline = time.monotonic() + seconds
    with (
        isolated_rng(derive_seed(config.training.seed, "evaluate"), CPU),
        torch.inference_mode(),
        FiringRates(model) as rates,
    ):
        for images, labels in eval_batches(split, BATCH_SIZE):
            seen += len(labels)
            logits = task.step(model, images, labels, config.training.epochs).logits
            if logits is not None:
                counts += torch.bincount(labels * num_classes + logits.argmax(1), minlength=len(counts))
            if time.monotonic() > deadline:
                break
    layers = {name.partition(".")[2]: rate for name, rate in rates.compute().items() if "." in name}
    return seen, counts.view(num_classes, num_classes) if task.classifies else None, layers


def _raster(config: RunConfig, model: nn.Module, image: Tensor, label: Tensor) -> dict[str, Tensor]:
    calls: dict[str, list[Tensor]] = {}
    handles = []
    for name, layer in spiking_layers(model).items():

        def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...], name: str = name) -> None:
            calls.setdefault(name, []).append(_over_time(output if isinstance(output, Tensor) else output[0]))

        handles.append(layer.register_forward_hook(keep))
    try:
        with isolated_rng(derive_seed(config.training.seed, "evaluate"), CPU), torch.inference_mode():
            output = make_task(config, CPU).step(model, image, label, config.training.epochs)
    finally:
        for handle in handles:
            handle.remove()
    return {"encoder": _over_time(output.embeddings), **{name: torch.cat(spikes) for name, spikes in calls.items()}}


def _over_time(spikes: Tensor) -> Tensor:
    """Return spikes [T, 1, ...] or [1, T, ...] of one sample as [T, N]."""
    spikes = spikes.movedim(1, 0) if len(spikes) == 1 and spikes.ndim > 1 else spikes
    return spikes.detach().flatten(1).float()
