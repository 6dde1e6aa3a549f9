"""One batch of a classification: forward pass, loss, and a network that remembers nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  (spikingjelly imports torchvision)
from spikingjelly.activation_based import functional

from trainers.factory import build_loss

if TYPE_CHECKING:
    from configs.schema import RunConfig

Precision = Literal["off", "fp16", "bf16"]

_DTYPES = {"off": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class StepOutput(NamedTuple):
    """What one batch gave.

    Args:
        loss: scalar.
        logits: `[B, K]`, float32.
        embeddings: the encoder's spikes, float32, `[T, B, ...]`; in the model's own layout with `as_is`.
    """

    loss: Tensor
    logits: Tensor
    embeddings: Tensor


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

    def step(self, model: nn.Module, images: Tensor, targets: Tensor, epoch: int) -> StepOutput:
        """Run one batch; the neurons' state is zero before and after it.

        Args:
            model: returns `(logits, embeddings)` and says with `embeddings_time_dim` where its time axis is.
            images: `[B, C, H, W]`, float32 in [0, 1].
            targets: `[B]` class numbers, or `[B, K]` class probabilities.
            epoch: 0-based epoch, which the sparsity terms ramp up with.
        """
        with torch.autocast(self.device.type, dtype=_DTYPES[self.precision], enabled=self.precision != "off"):
            logits, embeddings = model(images, return_embeddings=True)
        functional.reset_net(model)  # the graph keeps what backward needs; the modules keep nothing
        logits, embeddings = logits.float(), embeddings.float()
        if not self.as_is:
            embeddings = embeddings.movedim(model.embeddings_time_dim, 0)
        loss = self.loss(logits, targets, embeddings=embeddings, epoch=epoch, images=images)
        return StepOutput(loss, logits, embeddings)


def make_task(config: RunConfig, device: torch.device) -> ClassificationTask:
    """Build the task of a configuration.

    Args:
        config: the whole configuration; its loss, layout and precision are used.
        device: where the model is.
    """
    layout = getattr(config.loss, "embedding_layout", "time_first")
    return ClassificationTask(build_loss(config).to(device), device, config.training.amp, as_is=layout == "as_is")
