"""Training recipe: augmentation, optimiser, schedule and loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Count, Fraction, NonNegative, Positive, Section


class Augmentation(Section):
    """Normalisation of the pixels, and augmentation of the training samples; everything is off by default."""

    normalize: Literal["none", "dataset", "explicit"] = Field(
        "none", description="subtract a mean and divide by a deviation per channel: the data set's own, or those below"
    )
    mean: tuple[float, ...] | None = Field(None, description="mean of each channel for `normalize: explicit`")
    std: tuple[Positive, ...] | None = Field(None, description="deviation of each channel for `normalize: explicit`")
    horizontal_flip: Fraction = Field(0.0, description="probability of a horizontal flip")
    crop_scale: tuple[float, float] | None = Field(None, description="area range of a random resized crop")
    crop_ratio: tuple[float, float] | None = Field(None, description="its range of width / height; null is 3/4 to 4/3")
    interpolation: Literal["bilinear", "bicubic", "nearest", "random"] = Field(
        "bilinear", description="of crops, rotations and resizing on access; random draws bilinear or bicubic"
    )
    color_jitter: NonNegative = Field(
        0.0, description="strength of random brightness, contrast and saturation; timm skips it beside rand_augment"
    )
    rand_augment: str | None = Field(None, description="timm policy, e.g. rand-m9-n1-mstd0.4-inc1")
    rand_augment_ops: tuple[str, ...] | None = Field(
        None, description="the operations that rand_augment draws from, by their timm names; null takes timm's set"
    )
    random_erasing: Fraction = Field(0.0, description="probability of random erasing")
    random_erasing_mode: Literal["const", "pixel"] = Field(
        "const", description="erase to 0, or to normal noise per pixel; both after normalising"
    )
    event_augment: Literal["none", "spikformer_dvs"] = Field(
        "none", description="one random operation on each clip: identity, shear, shift, rotation or cutout"
    )
    event_cutout: int = Field(0, ge=0, description="side in pixels of a square that is cut out of each clip; 0 is off")
    mixup: NonNegative = Field(0.0, description="mixup alpha; 0 is off")
    cutmix: NonNegative = Field(0.0, description="cutmix alpha; 0 is off")
    mix_probability: Fraction = Field(1.0, description="probability of mixing a batch")
    mix_switch_probability: Fraction = Field(0.5, description="share of cutmix where both are on")
    mix_off_epoch: int = Field(0, ge=0, description="stop mixing from this epoch on; 0 never stops")


class Optimizer(Section):
    """Optimiser, created by timm."""

    name: str = Field("adamw", description="any optimiser name of timm (adamw, lamb, sgd, ...)")
    learning_rate: Positive = Field(1e-3, description="learning rate; see scale_lr_by_batch")
    scale_lr_by_batch: Count | None = Field(
        None, description="images per step that learning_rate is meant for; it grows with the real number. null is off"
    )
    weight_decay: NonNegative = Field(0.01, description="weight decay")
    decay_bias_and_norm: bool = Field(True, description="apply weight decay to 1-D parameters too")
    momentum: Fraction = Field(0.9, description="momentum of SGD-like optimisers")
    betas: tuple[float, float] | None = Field(None, description="betas of Adam-like optimisers; null keeps their own")
    eps: Positive | None = Field(None, description="epsilon of Adam-like optimisers; null keeps their own")


class Schedule(Section):
    """Learning-rate schedule, created by timm."""

    name: Literal["constant", "step", "cosine"] = "step"
    step_epochs: Count = Field(4, description="epochs between two decays of `step`")
    gamma: Fraction = Field(0.2, description="factor of one decay of `step`")
    min_learning_rate: NonNegative = Field(0.0, description="floor of `cosine`")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    warmup_learning_rate: NonNegative = Field(0.0, description="learning rate the warm-up starts from")
    warmup_prefix: bool = Field(False, description="begin the decay after the warm-up, not beneath it")
    cooldown_epochs: int = Field(0, ge=0, description="last epochs of the run that `cosine` spends at its floor")
    per: Literal["epoch", "step"] = Field("epoch", description="set the rate once an epoch, or before every update")


class Training(Section):
    """The training loop."""

    epochs: Count = Field(10, description="epochs")
    batch_size: Count = Field(128, description="images per optimiser step before accumulation")
    eval_batch_size: Count | None = Field(
        None, description="images per evaluation batch; null uses batch_size / processes"
    )
    accumulation_steps: Count = Field(1, description="batches whose gradients are added up for one optimiser step")
    seed: int = Field(42, ge=0, description="seed of weights, data order, dropout and augmentation")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+(,\d+)*)?|mps)$",
        description="auto takes a GPU for each process if there are any; cuda:0,2 names two",
    )
    processes: Count = Field(
        1, description="processes that train the run together, one per GPU; each takes its slice of every batch"
    )
    amp: Literal["off", "fp16", "bf16"] = Field("off", description="automatic mixed precision")
    memory: Literal["none", "checkpoint", "spikingjelly"] = Field(
        "none", description="what is computed again to save memory: blocks; spikingjelly keeps their inputs as bytes"
    )
    clip_grad_norm: Positive | None = Field(None, description="largest gradient norm; null does not clip")
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0, description="decay of averaged weights, then validated")
    deterministic: bool = Field(True, description="refuse operations that are not reproducible")
    checkpoint_every: Count = Field(1, description="epochs between checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints kept per run")
    spike_guard_epochs: Count | None = Field(
        None, description="end a run whose layers are all silent, or all saturated, for so many epochs; null never"
    )
    spike_guard_grace: int = Field(1, ge=0, description="first epochs that spike_guard_epochs does not count")
    hang_seconds: Positive | None = Field(
        1800.0, description="a trial without a step for so long is ended and tried again; null waits for ever"
    )
