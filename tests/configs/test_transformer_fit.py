"""Parts of a spiking transformer that do not go together."""

from __future__ import annotations

from typing import Any

import pytest

from configs.fit import misfits
from configs.keys import known_keys
from configs.problems import ConfigError
from configs.resolve import resolve


def of(model: str, neuron: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {"model": {"name": model, **settings}, "neuron": {"name": "lif", **(neuron or {})}}


def shown(side: int, model: str, **settings: Any) -> dict[str, Any]:
    return {**of(model, **settings), "data": {"name": "cifar10", "image_size": side}}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (of("spikformer_cifar", embed_dims=384, num_heads=12), []),
        (of("spikformer_cifar", embed_dims=384, num_heads=10), ["model.num_heads"]),
        (of("qkformer_cifar", embed_dims=384, num_heads=12), []),
        (of("qkformer_cifar", embed_dims=256, num_heads=128), ["model.num_heads"]),
        (of("qkformer_dvs", embed_dims=256, num_heads=128), []),
        (shown(32, "spikformer_cifar", patch_size=4), []),
        (shown(30, "spikformer_cifar", patch_size=4), ["data.image_size"]),
        (shown(32, "spikformer_cifar", patch_size=5), ["model.patch_size"]),
        (shown(30, "spikformer_cifar", patch_size=5, embedding="one_conv"), []),
        (shown(32, "spikformer_cifar", patch_size=2, embedding="two_conv"), ["model.patch_size"]),
        (shown(32, "spikformer_cifar", patch_size=32, embedding="two_conv"), []),
        (shown(32, "sdt", patch_size=32), ["model.patch_size"]),
        (shown(32, "qkformer_cifar", patch_size=2), ["model.patch_size"]),
        (shown(64, "qkformer_imagenet", patch_size=32), []),
        (of("qkformer_cifar", depth=2), ["model.depth"]),
        (of("qkformer_imagenet", depth=3), ["model.depth"]),
        (of("qkformer_imagenet", depth=3, stage_depths=[1, 1, 1]), []),
        (of("qkformer_cifar", stage_depths=[1, 1]), ["model.stage_depths"]),
        (of("qkformer_dvs", attention=["ssa"] * 3), ["model.attention"]),
        (of("qkformer_dvs", attention=[]), []),
        (of("sdt", event_pooling=True, attention="sdsa"), []),
        (of("sdt", event_pooling=True, attention="ssa"), ["model.event_pooling"]),
        (of("tim", {"name": "psn"}, detach_membrane=False), ["neuron.name"]),
        (of("tim", {"name": "clif"}, detach_membrane=True), ["model.detach_membrane"]),
        (of("tim", {"name": "clif"}, detach_membrane=False), []),
        (of("tim", {"name": "plif"}, detach_membrane=True), []),
        (of("sdt", {"name": "glif"}, step_by_step=True), ["model.step_by_step"]),
        (of("sdt", {"name": "clif"}, step_by_step=True), []),
        (of("qkformer_cifar", {"name": "psn"}, proj_state="batch_leak"), ["model.proj_state"]),
        (of("qkformer_cifar", {"name": "psn"}, proj_state="per_sample"), []),
        (of("sdt", {"name": "glif", "mlp_v_threshold": 1.5}), ["neuron.mlp_v_threshold"]),
        (of("sdt", {"name": "glif", "attn_v_threshold": 0.5}), []),
        (of("sdt", {"mlp_v_threshold": 1.5}), []),
        ({**of("sdt"), "training": {"memory": "spikingjelly"}}, ["training.memory"]),
        ({**of("sdt"), "training": {"memory": "checkpoint"}}, []),
        ({**of("tim"), "training": {"memory": "spikingjelly"}}, []),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], keys: list[str]) -> None:
    assert [misfit.key for misfit in misfits(values)] == keys
    assert set(keys) <= known_keys().keys()


@pytest.mark.parametrize(
    "values",
    [
        of("qkformer_cifar", embed_dims="wide", num_heads=0, depth=None, attention="ssa", stage_depths=3),
        of("spikformer_cifar", patch_size=[4], embedding=4),
        {"model": {"name": "sdt", "event_pooling": True}, "neuron": 3, "training": None},
        of("sdt", {"name": "glif", "mlp_v_threshold": "high"}),
        {"model": {"name": "tim"}, "neuron": {"name": ["glif"]}},
    ],
)
def test_values_that_are_wrong_by_themselves_are_passed_over(values: dict[str, Any]) -> None:
    assert misfits(values) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            of("qkformer_cifar", embed_dims=384, num_heads=10),
            "expected a divisor of the first stage's width, model.embed_dims / 4 (96), got 10",
        ),
        (
            shown(32, "spikformer_cifar", patch_size=3, embedding="sps"),
            "model 'spikformer_cifar' with embedding 'sps' takes patches of 1, 2, 4, 8, 16 pixels, got 3",
        ),
        (
            {**of("spikingformer_dvs"), "training": {"memory": "spikingjelly"}},
            "'spikingjelly' keeps whole numbers, the shortcuts of 'spikingformer_dvs' add membranes: "
            "expected checkpoint",
        ),
    ],
)
def test_the_message_says_what_is_expected(values: dict[str, Any], message: str) -> None:
    (misfit,) = misfits(values)
    assert misfit.message == message


def test_a_shipped_configuration_that_is_spoilt_is_refused_with_the_places() -> None:
    with pytest.raises(ConfigError) as refused:
        resolve("qkformer/cifar10", ["--model.num_heads", "9", "--data.image_size", "30"])
    assert [(problem.key, str(problem.where)) for problem in refused.value.problems] == [
        ("model.num_heads", "command line"),
        ("data.image_size", "command line"),
    ]
