"""Which parts of a configuration fit together: the checks that look at more than one key.

They work on plain data, so that they can be told beside other mistakes of a file: a check is left out where its keys
are missing or of a wrong type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.data_fit import data_misfits, image_shape
from configs.misfit import Misfit, kind_of, positive_integer
from configs.transformer_fit import SPIKING_TRANSFORMERS, transformer_misfits

DEFAULT_PAIRS = {
    "stal_srnn": ("rlif", "convstal"),
    "stal_spikformer": ("lif", "stalps"),
    "encoder_only": ("none", "convstal"),
    **dict.fromkeys(sorted(SPIKING_TRANSFORMERS), ("lif", "direct")),
}
STEP_ENCODERS = frozenset({"convstal", "stal", "ancestor", "rate", "latency"})
PATCH_ENCODERS = frozenset({"stalps", "convstal_ps", "sps"})
ENCODERS_OF_MODEL = {
    "stal_srnn": STEP_ENCODERS | PATCH_ENCODERS,
    "stal_spikformer": STEP_ENCODERS | PATCH_ENCODERS,
    "encoder_only": {"convstal", "stal", "ancestor"},
    **dict.fromkeys(SPIKING_TRANSFORMERS, frozenset({"direct"})),
}
NEURONS_OF_TRANSFORMERS = frozenset({"lif", "if", "plif", "clif", "klif", "glif", "psn", "ilif"})
ENCODER_ONLY = "encoder_only"
CLASSIFIER_LOSSES = ("cross_entropy", "ce_ss", "ce_l1")
STEP_LOSSES = ("tet",)  # those that take the logits of each step
ENCODER_LOSSES = {  # encoder -> the loss that trains it alone
    "stal": "encoder_loss",
    "ancestor": "encoder_loss",
    "convstal": "multi_channel_encoder_loss",
}
DEFAULT_KINDS = {"loss": "cross_entropy", "data": "digits"}


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
    for name in ("model", "neuron", "encoder", "loss", "data", "augmentation", "schedule", "training"):
        sections.setdefault(name, {})
    return [
        *_partners(sections["model"], sections["neuron"], sections["encoder"]),
        *_losses(sections["model"], sections["encoder"], sections["loss"]),
        *_alone(sections["model"], sections["encoder"], sections["data"]),
        *_widths(sections["model"], sections["encoder"]),
        *_images(sections["model"], sections["encoder"], sections["data"]),
        *transformer_misfits(sections),
        *data_misfits(sections),
    ]


def _partners(model: Mapping[str, Any], neuron: Mapping[str, Any], encoder: Mapping[str, Any]) -> Iterator[Misfit]:
    name = kind_of(model)
    if name not in DEFAULT_PAIRS:
        return
    wanted, _ = DEFAULT_PAIRS[name]
    neurons = NEURONS_OF_TRANSFORMERS if name in SPIKING_TRANSFORMERS else {wanted}
    given = kind_of(neuron)
    if given is not None and given not in neurons:
        allowed = ", ".join(f"'{kind}'" for kind in sorted(neurons))
        one_of = "one of the neurons " if len(neurons) > 1 else "neuron "
        yield Misfit("neuron.name", f"model '{name}' takes {one_of}{allowed}, got '{given}'")
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
            hint = f"; '{given}' trains an encoder alone, with model '{ENCODER_ONLY}'"
        elif given in STEP_LOSSES and name not in SPIKING_TRANSFORMERS:
            hint = f"; '{given}' needs the logits of each step, which '{name}' does not give"
        else:
            hint = ""
        if hint:
            allowed = ", ".join(f"'{kind}'" for kind in CLASSIFIER_LOSSES)
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
    width, heads = positive_integer(model, "embed_dims"), positive_integer(model, "num_heads")
    if width and heads and width % heads and kind_of(model) not in SPIKING_TRANSFORMERS:
        yield Misfit("model.num_heads", f"expected a divisor of model.embed_dims ({width}), got {heads}")
    kernel = positive_integer(encoder, "kernel_size")
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
    width = positive_integer(encoder, "hidden_channels")
    if width and width < channels and channels % width:
        message = f"expected a divisor of the {channels} channels of the image, or at least as many, got {width}"
        yield Misfit("encoder.hidden_channels", message)


def _stal_widths(encoder: Mapping[str, Any], inputs: int) -> Iterator[Misfit]:
    for key in ("l1_size", "l2_size"):
        width = positive_integer(encoder, key)
        if width and inputs % width and width % inputs:
            yield Misfit(f"encoder.{key}", f"expected a divisor or a multiple of the {inputs} inputs, got {width}")
            return
    width, steps = positive_integer(encoder, "l2_size"), positive_integer(encoder, "time_steps")
    if width and steps and (width >= inputs * steps or (inputs * steps) % width):
        yield Misfit(
            "encoder.l2_size",
            f"expected a divisor of inputs x time_steps ({inputs} x {steps}) smaller than it, got {width}",
        )


def _ancestor_widths(encoder: Mapping[str, Any], inputs: int) -> Iterator[Misfit]:
    steps = positive_integer(encoder, "time_steps")
    for key in ("l1_size", "l2_size"):
        width = positive_integer(encoder, key)
        if width and inputs % width and width % inputs:
            yield Misfit(f"encoder.{key}", f"expected 0, a divisor or a multiple of the {inputs} inputs, got {width}")
        elif width and steps and (inputs * steps) % width:
            message = f"expected 0 or a divisor of inputs x time_steps ({inputs} x {steps}), got {width}"
            yield Misfit(f"encoder.{key}", message)
    if encoder.get("l1_size") == 0 and positive_integer(encoder, "l2_size"):
        message = f"expected 0 where encoder.l1_size is 0, got {encoder['l2_size']}: a second layer needs a first"
        yield Misfit("encoder.l2_size", message)
