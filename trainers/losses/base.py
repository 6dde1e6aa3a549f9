"""What the losses share: the registry and the uniform call."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainers.registry import Registry


class TaskLoss(nn.Module):
    """Base of the losses a classifier is trained with.

    Every one is called `loss(logits, targets, embeddings=None, epoch=0, images=None)` with logits [B, K], class indices
    [B] or soft targets [B, K], the encoder's spikes [T, B, ...] and the 0-based epoch, and returns a scalar.
    """

    needs_embeddings = False


LOSSES: Registry[nn.Module] = Registry("loss")


def register_loss(*names: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Return a decorator that registers a loss under its names.

    Args:
        names: the name and its synonyms.

    Returns:
        A decorator.

    Raises:
        ValueError: a name is taken already.
    """
    return LOSSES.register(*names)


def require(value: Tensor | None, what: str, loss: object) -> Tensor:
    """Return a tensor the loss cannot do without.

    Args:
        value: the tensor.
        what: its name.
        loss: who needs it.

    Returns:
        The tensor.

    Raises:
        ValueError: it is None.
    """
    if value is None:
        raise ValueError(f"{type(loss).__name__} needs {what}; pass what model(images, return_embeddings=True) gave")
    return value
