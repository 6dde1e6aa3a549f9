"""Training recipe: augmentation, optimiser, schedule and loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Count, Fraction, NonNegative, Positive, Section


class Augmentation(Section):
    """Image augmentation, all through timm; everything is off by default."""

    horizontal_flip: Fraction = Field(0.0, description="probability of a horizontal flip")
    crop_scale: tuple[float, float] | None = Field(None, description="area range of a random resized crop")
    rand_augment: str | None = Field(None, description="timm policy, e.g. rand-m9-n1-mstd0.4-inc1")
    random_erasing: Fraction = Field(0.0, description="probability of random erasing")
    mixup: NonNegative = Field(0.0, description="mixup alpha; 0 is off")
    cutmix: NonNegative = Field(0.0, description="cutmix alpha; 0 is off")
    mix_probability: Fraction = Field(1.0, description="probability of mixing a batch")
    mix_switch_probability: Fraction = Field(0.5, description="share of cutmix where both are on")
    mix_off_epoch: int = Field(0, ge=0, description="stop mixing from this epoch on; 0 never stops")


class Optimizer(Section):
    """Optimiser, created by timm."""

    name: str = Field("adamw", description="any optimiser name of timm (adamw, lamb, sgd, ...)")
    learning_rate: Positive = Field(1e-3, description="base learning rate, not scaled by anything")
    weight_decay: NonNegative = Field(0.01, description="weight decay")
    decay_bias_and_norm: bool = Field(True, description="apply weight decay to 1-D parameters too")
    momentum: Fraction = Field(0.9, description="momentum of SGD-like optimisers")
    betas: tuple[float, float] | None = Field(None, description="betas of Adam-like optimisers; null keeps their own")
    eps: Positive | None = Field(None, description="epsilon of Adam-like optimisers; null keeps their own")


class Schedule(Section):
    """Learning-rate schedule per epoch, created by timm."""

    name: Literal["constant", "step", "cosine"] = "step"
    step_epochs: Count = Field(4, description="epochs between two decays of `step`")
    gamma: Fraction = Field(0.2, description="factor of one decay of `step`")
    min_learning_rate: NonNegative = Field(0.0, description="floor of `cosine`")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    warmup_learning_rate: NonNegative = Field(0.0, description="learning rate the warm-up starts from")


class Training(Section):
    """The training loop."""

    epochs: Count = Field(10, description="epochs")
    batch_size: Count = Field(128, description="images per optimiser step before accumulation")
    eval_batch_size: Count | None = Field(None, description="images per evaluation batch; null uses batch_size")
    accumulation_steps: Count = Field(1, description="batches whose gradients are added up for one optimiser step")
    seed: int = Field(42, ge=0, description="seed of weights, data order, dropout and augmentation")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto takes a GPU if there is one")
    amp: Literal["off", "fp16", "bf16"] = Field("off", description="automatic mixed precision")
    clip_grad_norm: Positive | None = Field(None, description="largest gradient norm; null does not clip")
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0, description="decay of averaged weights, then validated")
    deterministic: bool = Field(True, description="refuse operations that are not reproducible")
    checkpoint_every: Count = Field(1, description="epochs between checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints kept per run")
