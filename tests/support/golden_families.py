"""Which of our models a reference run of a published spiking transformer is, and the map of its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm import create_model

from trainers.keymaps import qkformer, sdt, spikformer, spikingformer, tim
from trainers.keymaps.keymap import KeyMap

Case = dict[str, Any]
Described = tuple[str, dict[str, Any], KeyMap]  # registered name, arguments, key map
OFFICIAL = 0  # place of the authors' own keys in a family's KEYMAPS
AFTER_PRODUCT = ("attn_lif", "talking_heads_lif")  # names of the neurons that attn_v_threshold is for


def build_case(case: Case, variant: str, **changes: Any) -> tuple[nn.Module, KeyMap]:
    """Return our model of a case, float64, and the map of its keys; fail on whatever is not understood.

    Args:
        case: a recorded run.
        variant: one of its variants.
        changes: arguments of the model that replace those of the case.
    """
    family = FAMILIES.get(case["model"])
    assert family is not None, f"{case['id']}: none of our models is '{case['model']}'"
    name, arguments, keymap = family(dict(case["constructor_kwargs"]), variant)
    arguments |= {"time_steps": case["T"], **neuron_arguments(case), **changes}
    return create_model(name, **arguments).double(), keymap


def neuron_arguments(case: Case) -> dict[str, Any]:
    """Return the overrides of a case as arguments of our models.

    Thresholds in force, which the list of neurons has, are what was run; the overrides are what was asked for.
    """
    overrides = dict(case["overrides"])
    if "v_threshold" in overrides or "attn_v_threshold" in overrides:
        layers = next(iter(case["variants"].values()))["lif"]
        after_product = [threshold for name, _, threshold in layers if name.endswith(AFTER_PRODUCT)]
        overrides |= {"v_threshold": layers[0][2], "attn_v_threshold": after_product[0]}
    surrogate = overrides.pop("surrogate", None)
    unknown = overrides.keys() - {"tau", "v_threshold", "attn_v_threshold", "soft_reset", "detach_reset"}
    assert not unknown, f"{case['id']}: unknown overrides {sorted(unknown)}"
    if surrogate is not None:
        overrides |= {"surrogate": surrogate["name"], "surrogate_alpha": surrogate["alpha"]}
    return overrides


def common_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take what all families have from the published arguments, and return it as ours."""
    side = kwargs.pop("img_size_h")
    assert side == kwargs.pop("img_size_w"), "our models take square images"
    kwargs.pop("sr_ratios", None)  # read by none of the published models
    kwargs.pop("T", None)  # told beside the arguments, too
    ours = {"depths": "depth", "mlp_ratios": "mlp_ratio"}
    plain = ("in_channels", "num_classes", "embed_dims", "num_heads", "patch_size")
    return {"img_size": side} | {ours.get(key, key): kwargs.pop(key) for key in (*plain, *ours)}


def _nothing_left(kwargs: dict[str, Any]) -> None:
    assert not kwargs, f"nobody reads the arguments {kwargs}"


def _as_released(variant: str) -> None:
    assert variant == "as_released", f"unknown variant '{variant}'"


def _sdt(kwargs: dict[str, Any], variant: str) -> Described:
    _as_released(variant)
    arguments = common_arguments(kwargs)
    pooling = kwargs.pop("pooling_stat")
    assert pooling in ("0011", "0111", "1111"), f"unknown pooling {pooling}"
    arguments |= {
        "patch_size": 2 ** pooling.count("1"),  # the published argument is read by nothing
        "event_pooling": kwargs.pop("dvs_mode", False),
        "step_logits": kwargs.pop("TET", False),
        "neuron": kwargs.pop("spike_mode", "lif"),
    }
    _nothing_left(kwargs)
    return "sdt", arguments, sdt.KEYMAPS[OFFICIAL]


def _plain(name: str, keymap: KeyMap) -> Callable[[dict[str, Any], str], Described]:
    def described(kwargs: dict[str, Any], variant: str) -> Described:
        _as_released(variant)
        arguments = common_arguments(kwargs)
        _nothing_left(kwargs)
        return name, arguments, keymap

    return described


def _tim(kwargs: dict[str, Any], variant: str) -> Described:
    thresholds = {"as_released": "as_released", "thresholds_honoured": "intended"}[variant]
    arguments = common_arguments(kwargs) | {"thresholds": thresholds, "alpha": kwargs.pop("TIM_alpha")}
    kwargs.pop("step")  # told beside the arguments, too
    _nothing_left(kwargs)
    return "tim", arguments, tim.KEYMAPS[OFFICIAL]


def _qkformer(name: str, keymap: KeyMap) -> Callable[[dict[str, Any], str], Described]:
    def described(kwargs: dict[str, Any], variant: str) -> Described:
        arguments = common_arguments(kwargs)
        _nothing_left(kwargs)
        if name == "qkformer_dvs":
            del arguments["depth"]  # the published argument is read by nothing
        arguments["proj_state"] = {"as_released": "batch_leak", "per_sample": "per_sample"}[variant]
        return name, arguments, keymap

    return described


FAMILIES: dict[str, Callable[[dict[str, Any], str], Described]] = {
    "qkformer_cifar": _qkformer("qkformer_cifar", qkformer.CIFAR),
    "qkformer_cifar10dvs": _qkformer("qkformer_dvs", qkformer.DVS),
    "qkformer_imagenet": _qkformer("qkformer_imagenet", qkformer.IMAGENET),
    "sdt": _sdt,
    "spikformer_cifar": _plain("spikformer_cifar", spikformer.KEYMAPS[OFFICIAL]),
    "spikformer_imagenet": _plain("spikformer_imagenet", spikformer.KEYMAPS[OFFICIAL]),
    "spikformer_dvs": _plain("spikformer_dvs", spikformer.KEYMAPS[OFFICIAL]),
    "spikingformer_cifar": _plain("spikingformer_cifar", spikingformer.CIFAR),
    "spikingformer_dvs": _plain("spikingformer_dvs", spikingformer.IMAGENET_AND_EVENTS),
    "spikingformer_imagenet": _plain("spikingformer_imagenet", spikingformer.IMAGENET_AND_EVENTS),
    "tim": _tim,
}
