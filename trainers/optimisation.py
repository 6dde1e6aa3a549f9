"""Optimiser, schedule, averaged weights and batch mixing, all by timm, and the update that brings them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  (timm imports torchvision)
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3

from configs.problems import did_you_mean
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

    from configs.schema import Augmentation, Optimizer, Schedule, Training


def effective_learning_rate(section: Optimizer, training: Training) -> float:
    """Return the peak learning rate of a run: as given, or in proportion to the images of one update.

    Args:
        section: `optimizer` of the configuration; with `scale_lr_by_batch` its rate is meant for so many images.
        training: `training` of the configuration, for the images of one update.
    """
    if section.scale_lr_by_batch is None:
        return section.learning_rate
    return section.learning_rate * training.batch_size * training.accumulation_steps / section.scale_lr_by_batch


def make_optimizer(model: nn.Module, section: Optimizer, learning_rate: float | None = None) -> torch.optim.Optimizer:
    """Create the optimiser by its timm name, at exactly the learning rate given.

    Args:
        model: whose trainable parameters are optimised.
        section: `optimizer` of the configuration.
        learning_rate: the rate; None takes the section's.

    Raises:
        TrainerError: timm knows no optimiser of that name, or it does not take one of the settings.
    """
    known = list_optimizers()
    if section.name.lower() not in known:
        hint = did_you_mean(section.name, known) or f"timm knows {len(known)}, among them adamw, lamb and sgd"
        raise TrainerError(f"optimizer.name: '{section.name}' is no optimiser of timm; {hint}")
    given = {key: value for key in ("betas", "eps") if (value := getattr(section, key)) is not None}
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            opt=section.name.lower(),
            lr=section.learning_rate if learning_rate is None else learning_rate,
            weight_decay=section.weight_decay,
            momentum=section.momentum,
            filter_bias_and_bn=not section.decay_bias_and_norm,
            **given,
        )
    except (TypeError, ValueError) as error:
        raise TrainerError(f"optimizer '{section.name}' refuses one of its settings: {error}") from error
    for key in given:
        if key not in optimizer.defaults:  # timm drops in silence what an optimiser does not take
            raise TrainerError(f"optimizer '{section.name}' has no {key}: leave optimizer.{key} out")
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer, section: Schedule, epochs: int, updates_per_epoch: int = 1
) -> Scheduler:
    """Create the learning-rate schedule.

    `step(epoch)` with the 0-based epoch sets the rate of a schedule per epoch, `step_update(update)` with the 0-based
    number of the update since the run's start that of a schedule per step; each does nothing for the other kind.

    Args:
        optimizer: whose learning rate is set.
        section: `schedule` of the configuration.
        epochs: epochs of the whole run, warm-up and cool-down included.
        updates_per_epoch: optimiser steps of an epoch.
    """
    decaying = epochs
    if section.name == "cosine":
        decaying -= section.cooldown_epochs + (section.warmup_epochs if section.warmup_prefix else 0)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=section.name,
        num_epochs=max(decaying, 1),  # a run shorter than its warm-up never decays
        decay_epochs=section.step_epochs,
        decay_rate=section.gamma,
        min_lr=section.min_learning_rate,
        warmup_lr=section.warmup_learning_rate,
        warmup_epochs=section.warmup_epochs,
        warmup_prefix=section.warmup_prefix,
        cooldown_epochs=section.cooldown_epochs,
        step_on_epochs=section.per == "epoch",
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler


class BatchMixup(Mixup):  # type: ignore[misc]  # timm has no types
    """Timm's mixing for batches of images and of clips, whose frames are mixed as if they were channels."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch in place with itself turned round.

        Args:
            images: `[B, C, H, W]`, or clips `[B, T, C, H, W]`; B even.
            labels: `[B]`, class numbers.

        Returns:
            The same images and `[B, K]` class probabilities.
        """
        mixed, targets = super().__call__(images.flatten(1, -3), labels)
        return mixed.view_as(images), targets


def make_mixup(section: Augmentation, num_classes: int) -> BatchMixup | None:
    """Create the mixing of whole batches (mixup, CutMix or both), or None when both are off.

    Label smoothing is the loss's affair: it treats the mixed targets as it treats plain ones.
    """
    if not section.mixup and not section.cutmix:
        return None
    return BatchMixup(
        mixup_alpha=section.mixup,
        cutmix_alpha=section.cutmix,
        prob=section.mix_probability,
        switch_prob=section.mix_switch_probability,
        label_smoothing=0.0,
        num_classes=num_classes,
    )


class Updater:
    """Turn losses into better weights: scaled backward pass, accumulation, clipping, optimiser step, averaged weights.

    Args:
        model: the model that is trained, already on its device.
        optimizer: over the model's parameters.
        section: `training` of the configuration (amp, clip_grad_norm, ema_decay).
        device: where the model is.
        averaged: keep the averaged weights that the configuration asks for; only one process of a run needs them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        section: Training,
        device: torch.device,
        *,
        averaged: bool = True,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self._clip = section.clip_grad_norm
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._scaler = torch.amp.GradScaler(device.type, enabled=section.amp == "fp16")
        decay = section.ema_decay if averaged else None
        self.ema = None if decay is None else ModelEmaV3(model, decay=decay)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model whose accuracy counts: the averaged one where averaging is on."""
        return self.model if self.ema is None else self.ema.module

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def backward(self, loss: Tensor, share: float) -> None:
        """Add the gradients of one batch.

        Args:
            loss: scalar.
            share: weight of this batch in the update, 1 / (batches accumulated).
        """
        torch.autograd.backward(self._scaler.scale(loss * share if share != 1.0 else loss))

    def update(self) -> None:
        """Take one optimiser step with the gradients added up so far, and forget them."""
        if self._clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return everything an update depends on, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of `state_dict`; the models load strictly."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
