"""Which parts of a configuration fit together: the checks that look at more than one key.

They work on plain data, so that they can be told beside other mistakes of a file: a check is left out where its keys
are missing or of a wrong type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_PAIRS = {
    "stal_srnn": ("rlif", "convstal"),
    "stal_spikformer": ("lif", "stalps"),
    "encoder_only": ("none", "convstal"),
}
STEP_ENCODERS = frozenset({"convstal", "stal", "ancestor", "rate", "latency"})
PATCH_ENCODERS = frozenset({"stalps", "convstal_ps", "sps"})
ENCODERS_OF_MODEL = {
    "stal_srnn": STEP_ENCODERS | PATCH_ENCODERS,
    "stal_spikformer": STEP_ENCODERS | PATCH_ENCODERS,
    "encoder_only": {"convstal", "stal", "ancestor"},
}
ENCODER_ONLY = "encoder_only"
CLASSIFIER_LOSSES = ("cross_entropy", "ce_ss", "ce_l1")
ENCODER_LOSSES = {  # encoder -> the loss that trains it alone
    "stal": "encoder_loss",
    "ancestor": "encoder_loss",
    "convstal": "multi_channel_encoder_loss",
}
DEFAULT_KINDS = {"loss": "cross_entropy", "data": "digits"}
IMAGE_SHAPES = {  # (channels, height, width) of each data set's own images
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "mnist_files": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
}
MNIST_FILES_IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class Misfit:
    """Keys that do not go together: the one to change first, and why."""

    key: str
    message: str


def kind_of(section: object) -> str | None:
    """Return the `name` of a section given as plain data or as a model, or None where it has none."""
    name = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    return name if isinstance(name, str) else None


def image_shape(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) of a data section's images, or None for a data set that is not known."""
    shape = IMAGE_SHAPES.get(kind_of(data) or "")
    side = _integer(data, "image_size")
    return (shape[0], side, side) if shape and side else shape


def default_kinds(model: str | None, encoder: str | None = None) -> dict[str, str]:
    """Return the kind that each section has where a file names none.

    Args:
        model: neuron and encoder follow from it.
        encoder: the kind that a file names; the loss of an encoder that is trained alone follows from it.
    """
    partners = dict(zip(("neuron", "encoder"), DEFAULT_PAIRS.get(model or "", ()), strict=False))
    if model == ENCODER_ONLY:
        partners["loss"] = ENCODER_LOSSES.get(encoder or partners["encoder"], "encoder_loss")
    return {**DEFAULT_KINDS, **partners}


def with_partners(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose sections that name no kind have their usual one."""
    filled = dict(values)
    usual = default_kinds(kind_of(values.get("model")), kind_of(values.get("encoder")))
    for section, kind in usual.items():
        given = filled.get(section, {})
        if isinstance(given, Mapping) and "name" not in given:
            filled[section] = {"name": kind, **given}
    return filled


def misfits(values: Mapping[str, Any]) -> list[Misfit]:
    """Return everything in a configuration that does not go together.

    Args:
        values: the configuration as plain data; keys that are missing or of a wrong type are passed over.
    """
    sections = {key: value if isinstance(value, Mapping) else {} for key, value in values.items()}
    for name in ("model", "neuron", "encoder", "loss", "data", "augmentation"):
        sections.setdefault(name, {})
    return [
        *_partners(sections["model"], sections["neuron"], sections["encoder"]),
        *_losses(sections["model"], sections["encoder"], sections["loss"]),
        *_alone(sections["model"], sections["encoder"], sections["data"]),
        *_widths(sections["model"], sections["encoder"]),
        *_images(sections["model"], sections["encoder"], sections["data"]),
        *_splits(sections["data"]),
        *_crop(sections["augmentation"]),
    ]


def _partners(model: Mapping[str, Any], neuron: Mapping[str, Any], encoder: Mapping[str, Any]) -> Iterator[Misfit]:
    name = kind_of(model)
    if name not in DEFAULT_PAIRS:
        return
    wanted, _ = DEFAULT_PAIRS[name]
    given = kind_of(neuron)
    if given is not None and given != wanted:
        yield Misfit("neuron.name", f"model '{name}' takes neuron '{wanted}', got '{given}'")
    given = kind_of(encoder)
    if given is not None and given not in ENCODERS_OF_MODEL[name]:
        allowed = ", ".join(f"'{encoder}'" for encoder in sorted(ENCODERS_OF_MODEL[name]))
        yield Misfit("encoder.name", f"model '{name}' takes one of the encoders {allowed}, got '{given}'")


def _losses(model: Mapping[str, Any], encoder: Mapping[str, Any], loss: Mapping[str, Any]) -> Iterator[Misfit]:
    name, given = kind_of(model), kind_of(loss)
    if name not in DEFAULT_PAIRS or given is None:
        return
    if name != ENCODER_ONLY:
        if given in ENCODER_LOSSES.values():
            allowed = ", ".join(f"'{kind}'" for kind in CLASSIFIER_LOSSES)
            hint = f"; '{given}' trains an encoder alone, with model '{ENCODER_ONLY}'"
            yield Misfit("loss.name", f"model '{name}' takes one of the losses {allowed}, got '{given}'{hint}")
        return
    wanted = ENCODER_LOSSES.get(kind_of(encoder) or "")
    if wanted is not None and given != wanted:
        message = f"model '{ENCODER_ONLY}' with encoder '{kind_of(encoder)}' takes loss '{wanted}', got '{given}'"
        yield Misfit("loss.name", message)


def _alone(model: Mapping[str, Any], encoder: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Misfit]:
    """Yield what an encoder that is trained alone cannot have."""
    if kind_of(model) != ENCODER_ONLY:
        return
    if encoder.get("freeze") is True:
        yield Misfit("encoder.freeze", f"model '{ENCODER_ONLY}' trains nothing but the encoder, expected false")
    shape = image_shape(data)
    if encoder.get("mix_channels") is True and shape and shape[0] > 1:
        message = f"the encoder loss compares the spikes with all {shape[0]} channels of the image, expected false"
        yield Misfit("encoder.mix_channels", message)


def _widths(model: Mapping[str, Any], encoder: Mapping[str, Any]) -> Iterator[Misfit]:
    width, heads = _integer(model, "embed_dims"), _integer(model, "num_heads")
    if width and heads and width % heads:
        yield Misfit("model.num_heads", f"expected a divisor of model.embed_dims ({width}), got {heads}")
    kernel = _integer(encoder, "kernel_size")
    if kernel and kernel % 2 == 0:
        yield Misfit("encoder.kernel_size", f"expected an odd number, got {kernel}")


def _images(model: Mapping[str, Any], encoder: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Misfit]:
    shape = image_shape(data)
    if shape is None:
        return
    channels, side, _ = shape
    if kind_of(encoder) in PATCH_ENCODERS and side % 4:
        yield Misfit("data.image_size", f"encoder '{kind_of(encoder)}' expects a multiple of 4, got {side}")
    elif kind_of(model) == "stal_spikformer" and side % 4:
        yield Misfit("data.image_size", f"model 'stal_spikformer' expects a multiple of 4, got {side}")
    if kind_of(encoder) == "stal":
        yield from _stal_widths(encoder, inputs=channels * side * side)
    if kind_of(encoder) == "ancestor":
        mixed = encoder.get("mix_channels") is True
        yield from _ancestor_widths(encoder, inputs=(1 if mixed else channels) * side * side)
    width = _integer(encoder, "hidden_channels")
    if width and width < channels and channels % width:
        message = f"expected a divisor of the {channels} channels of the image, or at least as many, got {width}"
        yield Misfit("encoder.hidden_channels", message)


def _stal_widths(encoder: Mapping[str, Any], inputs: int) -> Iterator[Misfit]:
    for key in ("l1_size", "l2_size"):
        width = _integer(encoder, key)
        if width and inputs % width and width % inputs:
            yield Misfit(f"encoder.{key}", f"expected a divisor or a multiple of the {inputs} inputs, got {width}")
            return
    width, steps = _integer(encoder, "l2_size"), _integer(encoder, "time_steps")
    if width and steps and (width >= inputs * steps or (inputs * steps) % width):
        yield Misfit(
            "encoder.l2_size",
            f"expected a divisor of inputs x time_steps ({inputs} x {steps}) smaller than it, got {width}",
        )


def _ancestor_widths(encoder: Mapping[str, Any], inputs: int) -> Iterator[Misfit]:
    steps = _integer(encoder, "time_steps")
    for key in ("l1_size", "l2_size"):
        width = _integer(encoder, key)
        if width and inputs % width and width % inputs:
            yield Misfit(f"encoder.{key}", f"expected 0, a divisor or a multiple of the {inputs} inputs, got {width}")
        elif width and steps and (inputs * steps) % width:
            message = f"expected 0 or a divisor of inputs x time_steps ({inputs} x {steps}), got {width}"
            yield Misfit(f"encoder.{key}", message)
    if encoder.get("l1_size") == 0 and _integer(encoder, "l2_size"):
        message = f"expected 0 where encoder.l1_size is 0, got {encoder['l2_size']}: a second layer needs a first"
        yield Misfit("encoder.l2_size", message)


def _splits(data: Mapping[str, Any]) -> Iterator[Misfit]:
    if kind_of(data) == "digits":
        val, test = data.get("val_fraction"), data.get("test_fraction")
        if isinstance(val, float) and isinstance(test, float) and val + test >= 1.0:
            message = f"val_fraction + test_fraction leave no training images ({val} + {test})"
            yield Misfit("data.test_fraction", message)
    if kind_of(data) == "mnist_files":
        sizes = [_integer(data, key) for key in ("train_size", "val_size", "test_size")]
        total = sum(size or 0 for size in sizes)
        if total > MNIST_FILES_IMAGES:
            message = f"the three sizes add up to {total} images, the files hold {MNIST_FILES_IMAGES}"
            yield Misfit("data.train_size", message)


def _crop(augmentation: Mapping[str, Any]) -> Iterator[Misfit]:
    scale = augmentation.get("crop_scale")
    if not isinstance(scale, list | tuple) or len(scale) != 2 or not all(isinstance(end, int | float) for end in scale):
        return
    low, high = scale
    if not 0.0 < low <= high <= 1.0:
        yield Misfit("augmentation.crop_scale", f"expected 0 < low <= high <= 1, got {low} and {high}")


def _integer(section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
