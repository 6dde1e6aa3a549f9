"""Which sizes, neurons and switches the published spiking transformers can have: checks that look at several keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from configs.data_fit import image_shape
from configs.misfit import Misfit, kind_of, positive_integer

SPIKING_TRANSFORMERS = frozenset(
    {
        "spikformer_cifar",
        "spikformer_imagenet",
        "spikformer_dvs",
        "sdt",
        "qkformer_cifar",
        "qkformer_imagenet",
        "qkformer_dvs",
        "tim",
        "spikingformer_cifar",
        "spikingformer_imagenet",
        "spikingformer_dvs",
    }
)


class _Stages(NamedTuple):
    """What the layout of a QKFormer fixes."""

    stages: int
    first_divisor: int  # of embed_dims, for the width of the first stage
    fewest_blocks: int
    patches: tuple[int, ...]


_QKFORMER = {
    "qkformer_cifar": _Stages(3, 4, 3, (4, 8, 16)),
    "qkformer_imagenet": _Stages(3, 4, 4, (4, 8, 16, 32)),
    "qkformer_dvs": _Stages(2, 2, 2, (2, 4, 8, 16, 32)),
}
_TOKENIZER_PATCHES = {"sps": (1, 2, 4, 8, 16), "two_conv": (4, 8, 16, 32)}  # one_conv takes any
_ADD_MEMBRANES = frozenset({"sdt", "spikingformer_cifar", "spikingformer_imagenet", "spikingformer_dvs"})
_ALL_STEPS_AT_ONCE = frozenset({"glif", "psn"})
_DETACHABLE = frozenset({"lif", "if", "plif"})
GROUP_THRESHOLDS = ("tokenizer_v_threshold", "attention_v_threshold", "mlp_v_threshold")

Section = Mapping[str, Any]


def transformer_misfits(sections: Mapping[str, Section]) -> Iterator[Misfit]:
    """Yield what does not go together in a spiking transformer, or is there for spiking transformers alone.

    Args:
        sections: at least model, neuron, data and training; keys that are missing or of a wrong type are passed over.
    """
    model, neuron, training = sections["model"], sections["neuron"], sections["training"]
    name = kind_of(model)
    if name in SPIKING_TRANSFORMERS:
        yield from _heads(name, model)
        yield from _patches(name, model, sections["data"])
        yield from _stages(name, model)
        yield from _neurons(name, model, neuron)
        if model.get("event_pooling") is True and model.get("attention") not in ("sdsa", None):
            yield Misfit("model.event_pooling", f"it is a part of attention 'sdsa', not of '{model['attention']}'")
    elif name is not None:
        for key in GROUP_THRESHOLDS:
            if neuron.get(key) is not None:
                message = f"model '{name}' has one threshold, neuron.v_threshold: expected null, got {neuron[key]}"
                yield Misfit(f"neuron.{key}", message)
    yield from _memory(name, training)


def _heads(name: str, model: Section) -> Iterator[Misfit]:
    width, heads = positive_integer(model, "embed_dims"), positive_integer(model, "num_heads")
    if not width or not heads:
        return
    divisor = _QKFORMER[name].first_divisor if name in _QKFORMER else 1
    if (width // divisor) % heads:
        first = f"the first stage's width, model.embed_dims / {divisor}" if divisor > 1 else "model.embed_dims"
        yield Misfit("model.num_heads", f"expected a divisor of {first} ({width // divisor}), got {heads}")


def _patches(name: str, model: Section, data: Section) -> Iterator[Misfit]:
    patch, shape = positive_integer(model, "patch_size"), image_shape(data)
    if patch is None:
        return
    embedding = model.get("embedding", "sps")
    allowed = _QKFORMER[name].patches if name in _QKFORMER else _TOKENIZER_PATCHES.get(str(embedding))
    if allowed and patch not in allowed:
        tokenizer = f" with embedding '{embedding}'" if "embedding" in model else ""
        message = f"model '{name}'{tokenizer} takes patches of {', '.join(map(str, allowed))} pixels, got {patch}"
        yield Misfit("model.patch_size", message)
    elif shape and shape[1] % patch:
        message = f"model '{name}' expects a multiple of model.patch_size ({patch}), got images of {shape[1]} pixels"
        yield Misfit("data.image_size", message)


def _stages(name: str, model: Section) -> Iterator[Misfit]:
    """Yield what the stages of QKFormer cannot have."""
    if name not in _QKFORMER:
        return
    stages, fewest = _QKFORMER[name].stages, _QKFORMER[name].fewest_blocks
    for key in ("attention", "stage_depths"):
        given = model.get(key)
        if isinstance(given, list | tuple) and given and len(given) != stages:
            yield Misfit(f"model.{key}", f"expected {stages} entries, one for each stage, or none, got {len(given)}")
    depth = positive_integer(model, "depth")
    if depth and depth < fewest and not model.get("stage_depths"):
        yield Misfit("model.depth", f"the {stages} stages of '{name}' have at least {fewest} blocks, got {depth}")


def _neurons(name: str, model: Section, neuron: Section) -> Iterator[Misfit]:
    kind = kind_of(neuron)
    if kind in _ALL_STEPS_AT_ONCE:
        message = f"neuron '{kind}' works on all time steps at once"
        if name == "tim":
            yield Misfit("neuron.name", f"{message}, but 'tim' interacts step by step: choose another kind")
        if model.get("step_by_step") is True:
            yield Misfit("model.step_by_step", f"{message}, expected false")
        if model.get("proj_state") == "batch_leak":
            yield Misfit("model.proj_state", f"{message} and cannot leak into the next image, expected per_sample")
    elif kind is not None and kind not in _DETACHABLE and model.get("detach_membrane") is True:
        message = f"neuron '{kind}' runs on spikingjelly's code, which has gradients through time: expected false"
        yield Misfit("model.detach_membrane", message)
    if kind == "glif":
        for key in ("attn_v_threshold", *GROUP_THRESHOLDS):
            value = neuron.get(key)
            if isinstance(value, int | float) and value >= 1:
                yield Misfit(f"neuron.{key}", f"neuron 'glif' learns a threshold between 0 and 1, got {value}")


def _memory(name: str | None, training: Section) -> Iterator[Misfit]:
    how = training.get("memory")
    if name is None or how not in ("checkpoint", "spikingjelly"):
        return
    if name not in SPIKING_TRANSFORMERS:
        yield Misfit("training.memory", f"'{how}' is for the spiking transformers: expected none with model '{name}'")
    elif how == "spikingjelly" and name in _ADD_MEMBRANES:
        message = f"'spikingjelly' keeps whole numbers, the shortcuts of '{name}' add membranes: expected checkpoint"
        yield Misfit("training.memory", message)
