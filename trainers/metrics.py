"""Metrics of a split: classification, sparsity of the encoder's spikes, and firing rates of the spiking layers."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainers.neurons import spiking_layers

SPIKE_LEVEL = 0.5  # a soft spike above it counts as one in the sparsities


def spike_density(embeddings: Tensor) -> Tensor:
    """Return the mean of all values: soft spikes count with their value.

    Args:
        embeddings: any shape.

    Returns:
        A scalar; above 1 where tokens are sums of spikes.
    """
    return embeddings.mean()


def binary_sparsity(embeddings: Tensor, level: float = SPIKE_LEVEL) -> Tensor:
    """Return the share of values that are at most `level`.

    Args:
        embeddings: any shape.
        level: what a value must exceed to count as a spike.

    Returns:
        A scalar in [0, 1].
    """
    return (embeddings <= level).to(embeddings.dtype).mean()


def temporal_sparsity(embeddings: Tensor, level: float = SPIKE_LEVEL) -> Tensor:
    """Return the number of values above `level` along dimension 0, averaged over the rest.

    Args:
        embeddings: [T, ...].
        level: what a value must exceed to count as a spike.

    Returns:
        A scalar in [0, T].
    """
    return (embeddings > level).to(embeddings.dtype).sum(0).mean()


def activation_sparsity(embeddings: Tensor) -> Tensor:
    """Return 1 - L1 / (L2 sqrt(n)): 0 where all values are equal, 1 for an all-zero tensor.

    Args:
        embeddings: any shape.

    Returns:
        A scalar in [0, 1].
    """
    l1, l2 = embeddings.abs().sum(), embeddings.norm()
    return torch.where(l2 > 0, 1 - l1 / (l2 * embeddings.numel() ** 0.5), torch.ones_like(l2))


SPARSITIES = {
    "spike_density": spike_density,
    "binary_sparsity": binary_sparsity,
    "temporal_sparsity": temporal_sparsity,
    "activation_sparsity": activation_sparsity,
}


class EvaluationMetrics:
    """Metrics of a split, gathered batch by batch on the device; nothing waits for it before `compute`.

    The loss and the sparsities are means over the batches, weighted by their samples. F1, precision and recall are
    macro averages over the classes that occur as target or prediction.

    Args:
        num_classes: classes K; None where nothing is classified.
    """

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes
        self._samples = 0
        self._sums: Tensor | None = None  # loss and sparsities times samples
        self._confusion: Tensor | None = None  # [target, prediction]

    def update(self, logits: Tensor | None, targets: Tensor, embeddings: Tensor, loss: Tensor) -> None:
        """Add a batch.

        Args:
            logits: [B, K]; None where nothing is classified.
            targets: class indices [B] or probabilities [B, K], of which the largest counts.
            embeddings: the encoder's spikes, [T, B, ...] where `temporal_sparsity` is to sum over time.
            loss: the batch's mean loss, a scalar.
        """
        samples = len(targets)
        values = torch.stack([loss.detach().to(embeddings.dtype), *(f(embeddings) for f in SPARSITIES.values())])
        wide = torch.float32 if values.device.type == "mps" else torch.float64
        values = values.detach().to(wide) * samples
        self._samples += samples
        self._sums = values if self._sums is None else self._sums + values
        if self.num_classes is not None and logits is not None:
            classes = targets.argmax(1) if targets.ndim == 2 else targets
            confusion = _one_hot(classes, self.num_classes).t() @ _one_hot(logits.argmax(1), self.num_classes)
            confusion = confusion.to(wide)
            self._confusion = confusion if self._confusion is None else self._confusion + confusion

    def compute(self) -> dict[str, float]:
        """Return the metrics of all batches so far.

        Returns:
            loss, the four of `SPARSITIES`, and where something is classified accuracy, f1, precision and recall.

        Raises:
            ValueError: there was no batch.
        """
        if self._sums is None:
            raise ValueError("no batch was added: the split is empty")
        means = (self._sums / self._samples).tolist()
        return {
            "loss": means[0],
            **({} if self._confusion is None else classification_metrics(self._confusion.cpu())),
            **dict(zip(SPARSITIES, means[1:], strict=True)),
        }


def _one_hot(classes: Tensor, num_classes: int) -> Tensor:
    # Counts below 2^24 are exact in float32; the product needs no operation that is unordered on a GPU.
    return F.one_hot(classes, num_classes).float()


def classification_metrics(confusion: Tensor) -> dict[str, float]:
    """Return accuracy and the macro averages of F1, precision and recall.

    Args:
        confusion: counts [K, K], targets in rows, predictions in columns.

    Returns:
        The four metrics; a class without predictions has precision 0, one that never occurs at all is left out.
    """
    hits, targets, predictions = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    seen = (targets + predictions) > 0
    per_class = {
        "f1": 2 * hits / (targets + predictions),
        "precision": hits / predictions,
        "recall": hits / targets,
    }
    macro = {name: float(values.nan_to_num(0.0)[seen].mean()) for name, values in per_class.items()}
    return {"accuracy": float(hits.sum() / confusion.sum()), **macro}


class FiringRates:
    """Mean output of every spiking layer over all batches that run inside the `with` block.

    Args:
        model: the model to watch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = spiking_layers(model)
        self._rates: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._values: dict[str, list[int]] = {name: [] for name in self._layers}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Start to watch."""
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch."""
        while self._handles:
            self._handles.pop().remove()

    def compute(self) -> dict[str, float]:
        """Return the rates.

        Returns:
            `firing_rate.<layer>` per layer that ran, spikes per neuron and time step, and their plain mean
            `firing_rate`; nothing where no spiking layer ran.
        """
        rates = {}
        for name, means in self._rates.items():
            if means:
                weights = torch.tensor(self._values[name], dtype=torch.float64)
                rates[f"firing_rate.{name}"] = float(torch.stack(means).cpu().double() @ weights / weights.sum())
        return {"firing_rate": sum(rates.values()) / len(rates), **rates} if rates else {}

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:  # noqa: ARG001
            spikes = (output if isinstance(output, Tensor) else output[0]).detach()
            self._rates[name].append(spikes.mean(dtype=torch.float32))
            self._values[name].append(spikes.numel())

        return count
