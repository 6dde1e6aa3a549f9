"""Less memory in training: blocks that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import memopt

from trainers.models.backbone import SpikingTransformer
from trainers.protocol import TrainerError

MemorySaving = Literal["none", "checkpoint", "spikingjelly"]


def save_memory(model: nn.Module, how: MemorySaving) -> None:
    """Choose what a model keeps of its blocks for the backward pass.

    Gradients, running statistics and random numbers stay the same to the bit: neurons start every call from rest, and
    normalisation leaves its statistics alone the second time.

    Args:
        model: the model.
        how: `none` keeps everything, `checkpoint` the inputs of the blocks, `spikingjelly` these as bytes, with
            spikingjelly's compressor, which models have that add spikes, so that the inputs are small whole numbers.

    Raises:
        TrainerError: the model has no blocks that can be computed again, or its blocks add membranes, which are no
            whole numbers.
    """
    if how == "none":
        return
    if not isinstance(model, SpikingTransformer):
        raise TrainerError(
            f"training.memory '{how}' is for the spiking transformers; set it to none for {type(model).__name__}"
        )
    if how == "spikingjelly" and not model.adds_spikes:
        raise TrainerError(
            f"training.memory 'spikingjelly' keeps whole numbers, but the shortcuts of {type(model).__name__} add "
            "membranes; set it to checkpoint"
        )
    model.run_block = _run_again if how == "checkpoint" else _run_compressed


def _run_again(block: nn.Module, x: Tensor) -> Tensor:
    if not _can_run_again(block):
        plain: Tensor = block(x)
        return plain
    out: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=lambda: _contexts(block))
    return out


def _run_compressed(block: nn.Module, x: Tensor) -> Tensor:
    if not _can_run_again(block):
        plain: Tensor = block(x)
        return plain
    out: Tensor = memopt.checkpoint(
        block, x, compressor=memopt.Uint8SpikeCompressor(), context_fn=lambda: _contexts(block)
    )
    return out


def _can_run_again(block: nn.Module) -> bool:
    """Whether there will be a backward pass, and a second run would start from the same state as the first."""
    return is_grad_enabled() and not any(getattr(layer, "carries", False) for layer in block.modules())


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Let normalisation move copies of its running statistics, which are then dropped."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    # Other objects, not the old values put back: autograd keeps the ones that a normalisation was given.
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers(recurse=False)]
    try:
        for norm, name, value in kept:
            setattr(norm, name, value.clone())
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)
