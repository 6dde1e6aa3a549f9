"""Which data, augmentation and schedule fit together: checks that look at more than one key, on plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.misfit import Misfit, kind_of, number_pair, positive_integer

IMAGE_SHAPES = {  # (channels, height, width) of each data set's images as they come to a model
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "mnist_files": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "image_folder": (3, 224, 224),
    "imagenet": (3, 224, 224),
    "tiny_imagenet": (3, 64, 64),
    "cifar10_dvs": (2, 128, 128),
    "dvs128_gesture": (2, 128, 128),
    "n_caltech101": (2, 128, 128),
}
EVENT_SETS = frozenset({"cifar10_dvs", "dvs128_gesture", "n_caltech101"})
CLIP_ENCODERS = frozenset({"direct"})  # those that take the frames of a clip as they are
UNIT_PIXEL_ENCODERS = frozenset({"rate", "latency"})  # those that take pixels for probabilities or times
UNIT_PIXEL_LOSSES = frozenset({"ce_l1", "encoder_loss", "multi_channel_encoder_loss"})  # those that sum up the pixels
MNIST_FILES_IMAGES = 10_000

_IMAGE_KEYS = {  # augmentation of single images and its value where it is off
    "normalize": "none",
    "crop_scale": None,
    "color_jitter": 0,
    "rand_augment": None,
    "random_erasing": 0,
}
_CLIP_KEYS = {"event_augment": "none", "event_cutout": 0}

Section = Mapping[str, Any]


def image_shape(data: Section) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) of a data section's images, or None for a data set that is not known."""
    shape = IMAGE_SHAPES.get(kind_of(data) or "")
    side = positive_integer(data, "image_size")
    return (shape[0], side, side) if shape and side else shape


def data_misfits(sections: Mapping[str, Section]) -> Iterator[Misfit]:
    """Yield what does not go together among data, encoder, loss, augmentation, schedule and training.

    Args:
        sections: all of these; keys that are missing or of a wrong type are passed over.
    """
    data, augmentation = sections["data"], sections["augmentation"]
    yield from _splits(data)
    yield from _clips(data, sections["encoder"], sections["loss"], augmentation)
    yield from _normalisation(data, sections["encoder"], sections["loss"], augmentation)
    yield from _crop(augmentation)
    if augmentation.get("rand_augment_ops") is not None and augmentation.get("rand_augment", "") is None:
        yield Misfit("augmentation.rand_augment_ops", "expected null where augmentation.rand_augment is null")
    yield from _schedule(sections["schedule"], sections["training"])
    yield from _processes(sections["training"])


def _splits(data: Section) -> Iterator[Misfit]:
    if kind_of(data) == "digits":
        val, test = data.get("val_fraction"), data.get("test_fraction")
        if isinstance(val, float) and isinstance(test, float) and val + test >= 1.0:
            message = f"val_fraction + test_fraction leave no training images ({val} + {test})"
            yield Misfit("data.test_fraction", message)
    if kind_of(data) == "mnist_files":
        sizes = [positive_integer(data, key) for key in ("train_size", "val_size", "test_size")]
        total = sum(size or 0 for size in sizes)
        if total > MNIST_FILES_IMAGES:
            message = f"the three sizes add up to {total} images, the files hold {MNIST_FILES_IMAGES}"
            yield Misfit("data.train_size", message)


def _clips(data: Section, encoder: Section, loss: Section, augmentation: Section) -> Iterator[Misfit]:
    """Yield what clips of an event camera cannot have, and what only they can have."""
    name, taker = kind_of(data), kind_of(encoder)
    if name is None:
        return
    clips = name in EVENT_SETS
    foreign, owner = (_IMAGE_KEYS, "images") if clips else (_CLIP_KEYS, "clips of an event camera")
    for key, off in foreign.items():
        if key in augmentation and augmentation[key] not in (off, None):
            yield Misfit(f"augmentation.{key}", f"it is for {owner}, data '{name}' has none: expected {_plain(off)}")
    if not clips:
        return
    if kind_of(loss) in UNIT_PIXEL_LOSSES:
        yield Misfit("loss.name", f"'{kind_of(loss)}' takes pixels in [0, 1], data '{name}' has counts of events")
    frames, steps = positive_integer(data, "frames"), positive_integer(encoder, "time_steps")
    if taker is not None and taker not in CLIP_ENCODERS:
        allowed = ", ".join(f"'{encoder}'" for encoder in sorted(CLIP_ENCODERS))
        yield Misfit("encoder.name", f"data '{name}' gives clips of frames, which {allowed} takes, got '{taker}'")
    elif frames and steps and frames != steps:
        yield Misfit("encoder.time_steps", f"expected data.frames ({frames}), one step for each frame, got {steps}")


def _normalisation(data: Section, encoder: Section, loss: Section, augmentation: Section) -> Iterator[Misfit]:
    kind = augmentation.get("normalize")
    if kind not in ("none", "dataset", "explicit"):
        return
    shape = image_shape(data)
    for key in ("mean", "std"):
        value = augmentation.get(key)
        if kind != "explicit" and value is not None:
            yield Misfit(f"augmentation.{key}", f"expected null where augmentation.normalize is '{kind}', got {value}")
        elif kind == "explicit" and value is None:
            yield Misfit(f"augmentation.{key}", "normalize: explicit expects a number for each channel, got null")
        elif kind == "explicit" and shape and isinstance(value, list | tuple) and len(value) != shape[0]:
            yield Misfit(
                f"augmentation.{key}", f"expected a number for each of {shape[0]} channel(s), got {len(value)}"
            )
    if kind != "none":
        for section, kinds in ((encoder, UNIT_PIXEL_ENCODERS), (loss, UNIT_PIXEL_LOSSES)):
            if kind_of(section) in kinds:
                message = f"'{kind_of(section)}' takes pixels in [0, 1] for what they are, expected none"
                yield Misfit("augmentation.normalize", message)


def _crop(augmentation: Section) -> Iterator[Misfit]:
    scale, ratio = number_pair(augmentation, "crop_scale"), number_pair(augmentation, "crop_ratio")
    if scale and not 0.0 < scale[0] <= scale[1] <= 1.0:
        yield Misfit("augmentation.crop_scale", f"expected 0 < low <= high <= 1, got {scale[0]} and {scale[1]}")
    if ratio and not 0.0 < ratio[0] <= ratio[1]:
        yield Misfit("augmentation.crop_ratio", f"expected 0 < low <= high, got {ratio[0]} and {ratio[1]}")
    elif ratio and augmentation.get("crop_scale", ()) is None:
        yield Misfit("augmentation.crop_ratio", "expected null where augmentation.crop_scale is null")


def _schedule(schedule: Section, training: Section) -> Iterator[Misfit]:
    epochs = positive_integer(training, "epochs")
    if schedule.get("name") != "cosine" or epochs is None:
        return
    cooldown = positive_integer(schedule, "cooldown_epochs") or 0
    warmup = positive_integer(schedule, "warmup_epochs") or 0
    prefix = warmup if schedule.get("warmup_prefix") is True else 0
    only_warm_up = not prefix and epochs <= warmup  # the first epochs of a long recipe, as a try
    if cooldown and cooldown + prefix >= epochs and not only_warm_up:
        spent = f"with a warm-up of {prefix} " if prefix else ""
        message = f"{spent}it leaves nothing of training.epochs ({epochs}) to decay in, got {cooldown}"
        yield Misfit("schedule.cooldown_epochs", message)
    elif prefix >= epochs:
        message = f"warmup_prefix leaves nothing of training.epochs ({epochs}) to decay in, got {prefix}"
        yield Misfit("schedule.warmup_epochs", message)


def _processes(training: Section) -> Iterator[Misfit]:
    """Yield what several processes cannot share."""
    processes, batch = positive_integer(training, "processes") or 1, positive_integer(training, "batch_size")
    device = training.get("device")
    if isinstance(device, str):
        named = len(device.split(",")) if ":" in device else processes
        if device == "mps" and processes > 1:
            yield Misfit("training.processes", f"training.device 'mps' is one GPU, expected 1, got {processes}")
        elif named != processes:
            yield Misfit("training.device", f"expected {processes} GPU(s), one per training.processes, got '{device}'")
    if batch and processes > 1 and batch < 2 * processes:
        message = f"expected at least {2 * processes}, two images for each of training.processes, got {batch}"
        yield Misfit("training.batch_size", message)


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
