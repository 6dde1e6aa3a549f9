"""One batch of a classification, or of an encoder alone: forward pass, loss, a network that remembers nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  (spikingjelly imports torchvision)
from spikingjelly.activation_based import functional

from configs.schema import EncoderOnlyModel
from trainers.factory import build_loss

if TYPE_CHECKING:
    from configs.schema import RunConfig
    from trainers.encoders import StepEncoder

Precision = Literal["off", "fp16", "bf16"]

_DTYPES = {"off": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class StepOutput(NamedTuple):
    """What one batch gave.

    Args:
        loss: scalar.
        logits: `[B, K]`, float32; None where nothing is classified.
        embeddings: the encoder's spikes, float32, `[T, B, ...]`; in the model's own layout with `as_is`.
    """

    loss: Tensor
    logits: Tensor | None
    embeddings: Tensor


class Task(Protocol):
    """What a model does with a batch, as the training loop and the measurement see it."""

    classifies: ClassVar[bool]

    @property
    def device(self) -> torch.device:
        """Where model and batches are."""

    def step(self, model: nn.Module, images: Tensor, targets: Tensor, epoch: int) -> StepOutput:
        """Run one batch."""


@dataclass(frozen=True, slots=True)
class ClassificationTask:
    """Run a spiking classifier and its loss on a batch.

    Args:
        loss: called as `loss(logits, targets, embeddings=, epoch=, images=)`.
        device: where model and batches are.
        precision: `fp16` or `bf16` run the forward pass under autocast.
        as_is: give the embeddings to the loss in the model's own layout, without turning time to the front.
    """

    loss: nn.Module
    device: torch.device
    precision: Precision = "off"
    as_is: bool = False

    classifies: ClassVar[bool] = True

    def step(self, model: nn.Module, images: Tensor, targets: Tensor, epoch: int) -> StepOutput:
        """Run one batch; the neurons' state is zero before and after it.

        Args:
            model: returns `(logits, embeddings)` and says with `embeddings_time_dim` where its time axis is.
            images: `[B, C, H, W]`, or event clips `[B, T, C, H, W]`, float32.
            targets: `[B]` class numbers, or `[B, K]` class probabilities.
            epoch: 0-based epoch, which the sparsity terms ramp up with.
        """
        with _precision(self.device, self.precision):
            logits, embeddings = model(images, return_embeddings=True)
        functional.reset_net(model)  # the graph keeps what backward needs; the modules keep nothing
        logits, embeddings = (
            logits.float(),
            embeddings.float(),
        )  # logits [B, K], or [T, B, K] for a loss that weighs steps
        if not self.as_is:
            embeddings = embeddings.movedim(model.embeddings_time_dim, 0)
        loss = self.loss(logits, targets, embeddings=embeddings, epoch=epoch, images=images)
        return StepOutput(loss, logits.mean(0) if logits.ndim == 3 else logits, embeddings)


@dataclass(frozen=True, slots=True)
class EncodingTask:
    """Run an encoder alone and its loss on a batch; labels are not looked at.

    Args:
        loss: called as `loss(spikes, images, z1, z2)`.
        device: where model and batches are.
        precision: `fp16` or `bf16` run the forward pass under autocast.
    """

    loss: nn.Module
    device: torch.device
    precision: Precision = "off"

    classifies: ClassVar[bool] = False

    def step(self, model: nn.Module, images: Tensor, targets: Tensor, epoch: int) -> StepOutput:  # noqa: ARG002
        """Run one batch.

        Args:
            model: returns an `Encoded` and has the encoder that made it as `encoder`.
            images: `[B, C, H, W]`, float32 in [0, 1].
            targets: unused.
            epoch: unused.
        """
        with _precision(self.device, self.precision):
            encoded = model(images)
        spikes = encoded.spikes.float()
        z1, z2 = (None if z is None else z.float() for z in (encoded.z1, encoded.z2))
        embeddings = cast("StepEncoder", model.encoder).steps(spikes).movedim(1, 0)
        return StepOutput(self.loss(spikes, images, z1, z2), None, embeddings)


class TrainingStep(nn.Module):
    """A model and what is done with a batch as one module, whose backward pass torch can watch.

    Args:
        task: runs the batch.
        model: the model.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, images: Tensor, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Run one batch.

        Args:
            images: `[B, C, H, W]`, or clips `[B, T, C, H, W]`.
            targets: `[B]` class numbers, or `[B, K]` class probabilities.
            epoch: 0-based.

        Returns:
            The loss, and logits `[B, K]` without a gradient or None where nothing is classified.
        """
        output = self._task.step(self.model, images, targets, epoch)
        return output.loss, None if output.logits is None else output.logits.detach()


def _precision(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, dtype=_DTYPES[precision], enabled=precision != "off")


def make_task(config: RunConfig, device: torch.device) -> Task:
    """Build the task of a configuration.

    Args:
        config: the whole configuration; its model, loss, layout and precision are used.
        device: where the model is.
    """
    loss, precision = build_loss(config).to(device), config.training.amp
    if isinstance(config.model, EncoderOnlyModel):
        return EncodingTask(loss, device, precision)
    layout = getattr(config.loss, "embedding_layout", "time_first")
    return ClassificationTask(loss, device, precision, as_is=layout == "as_is")
