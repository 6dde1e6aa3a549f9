"""TIM: its recurrence written out, published sizes, time, gradients and every switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spiking_models import check_embeddings, check_features, check_steps, clips, differs, lively, total
from torch import Tensor, nn

from timm import create_model

from trainers.models.tim import TemporalInteraction, Tim
from trainers.neurons import carried_state, make_neuron, spiking_layers

SMALL: dict[str, Any] = {"embed_dims": 32, "depth": 1, "num_heads": 4, "img_size": 32, "time_steps": 4}
LIVELY: dict[str, Any] = SMALL | {"gain": 3.0, "shift": 0.8}


def interaction(tokens: int = 4, alpha: float = 0.5, **options: Any) -> TemporalInteraction:
    torch.manual_seed(0)
    module = TemporalInteraction(
        tokens, alpha, make_neuron("lif", v_threshold=0.3, **options), make_neuron("lif", v_threshold=0.5, **options)
    )
    nn.init.normal_(module.interactor.weight, std=0.5)
    return module.double()


def queries(steps: int = 5, tokens: int = 4) -> Tensor:
    """Return spikes [T, B, heads, d, N]."""
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(steps, 2, 3, 8, tokens, generator=generator) < 0.5).double()


def fire(distance: Tensor) -> Tensor:
    """Spike at or above the threshold, with the derivative of a sigmoid of slope 4."""
    smooth = torch.sigmoid(4 * distance)
    return (distance >= 0).double() + (smooth - smooth.detach())


def written_out(module: TemporalInteraction, q: Tensor, detach: bool) -> Tensor:
    """Return equation 9 step by step, [T, B, heads, d, N]."""
    v_in, v_out = torch.zeros(()), torch.zeros(())
    outputs = [q[0]]
    for step in q[1:]:
        past = outputs[-1].transpose(-2, -1).flatten(0, 1)  # [B * heads, N, d]
        current = module.interactor(past).view_as(step.transpose(-2, -1)).transpose(-2, -1)
        if detach:
            v_in, v_out = v_in.detach(), v_out.detach()
        u = v_in + (current - v_in) / 2
        spikes = fire(u - 0.3)
        v_in = u * (1 - spikes.detach())
        u = v_out + (spikes * module.alpha + step * (1 - module.alpha) - v_out) / 2
        out = fire(u - 0.5)
        v_out = u * (1 - out.detach())
        outputs.append(out)
    return torch.stack(outputs)


@pytest.mark.parametrize("alpha", [0.5, 0.75])
@pytest.mark.parametrize("detach", [False, True])
def test_the_interaction_is_the_written_out_recurrence(detach: bool, alpha: float) -> None:
    module, q = interaction(alpha=alpha, detach_membrane=detach), queries().requires_grad_()
    weights = torch.cos(torch.arange(q.numel(), dtype=torch.float64)).view(q.shape)
    gradients = []
    for outputs in (module(q), written_out(module, q, detach)):
        assert 0.05 < outputs[1:].mean() < 0.95
        gradients.append(
            (outputs, *torch.autograd.grad((outputs * weights).sum(), [q, *module.interactor.parameters()]))
        )
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_detaching_changes_gradients_alone() -> None:
    q = queries()
    detached, attached = interaction(detach_membrane=True), interaction()
    outputs = [module(q) for module in (detached, attached)]
    assert torch.equal(*outputs)
    for one in outputs:
        one.sum().backward()
    assert not torch.allclose(detached.interactor.weight.grad, attached.interactor.weight.grad)


def test_every_call_starts_anew_unless_the_state_is_carried() -> None:
    module, q = interaction(), queries()
    together = module(q)
    assert torch.equal(module(q), together)
    assert not torch.equal(torch.cat([module(q[:2]), module(q[2:])]), together)
    with carried_state(module):
        assert torch.equal(torch.cat([module(q[:2]), module(q[2:])]), together)
    assert torch.equal(module(q), together)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 2_570_794),
        ({"num_classes": 101}, 2_570_794 + 91 * 257),
        ({"keep_dead_parameters": False}, 2_570_794 - 2_048),
    ],
)
def test_parameter_totals_are_the_published_ones(arguments: dict[str, Any], expected: int) -> None:
    assert total("tim", **arguments) == expected


@pytest.mark.parametrize(("side", "patch", "steps"), [(24, 8, 6), (16, 4, 2), (48, 16, 1)])
def test_any_image_side_and_number_of_steps(side: int, patch: int, steps: int) -> None:
    model = lively("tim", **LIVELY | {"img_size": side, "patch_size": patch}, step_logits=True)
    assert model(clips(side, steps=steps)).shape == (steps, 2, 10)


def test_frames_of_another_size_are_refused() -> None:
    model = create_model("tim", **SMALL)
    with pytest.raises(ValueError, match="this model interacts 4 tokens, but the image has 6: build it with"):
        model(torch.zeros(1, 2, 2, 32, 48))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"thresholds": "published"}, "thresholds must be 'intended' or 'as_released', got 'published'"),
        ({"img_size": 40}, "the image side must be a multiple of patch_size"),
        ({"neuron": "psn", "detach_membrane": False}, "TIM runs its neurons step by step, which 'psn' cannot do"),
        ({"neuron": "clif"}, "a 'clif' layer has no use for detach_membrane = True"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("tim", **SMALL | arguments)


@pytest.mark.parametrize("attention", ["ssa", "sdsa", "qk_token", "qk_channel"])
def test_step_by_step_equals_layer_by_layer(attention: str) -> None:
    check_steps(lively("tim", **LIVELY, attention=attention), clips(32, steps=5))


@pytest.mark.parametrize("neuron", ["if", "plif", "klif", "clif", "ilif"])
def test_step_by_step_with_other_neurons(neuron: str) -> None:
    model = lively("tim", **LIVELY, neuron=neuron, detach_membrane=neuron in ("if", "plif"))
    check_steps(model, clips(32, steps=3))


def test_features_and_embeddings() -> None:
    check_features("tim", clips(32), [4, 8, 16, 32], [2, 4, 8, 16], **LIVELY)
    check_embeddings(lively("tim", **LIVELY), clips(32), (3, 2, 32, 2, 2))


def test_released_thresholds_silence_the_queries_after_the_first_step() -> None:
    fired = {}
    for thresholds in ("intended", "as_released"):
        model = lively("tim", **LIVELY, thresholds=thresholds)
        spikes: list[Tensor] = []
        out_neuron = model.block[0].attn.interaction.out_neuron
        out_neuron.register_forward_hook(lambda _layer, _args, out, spikes=spikes: spikes.append(out.detach()))
        model(clips(32, steps=5))
        assert len(spikes) == 4
        fired[thresholds] = float(torch.stack(spikes).mean())
    assert fired["intended"] > 0.05
    assert fired["as_released"] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (0.3, 0.5, 0.5)),
        ({"attn_v_threshold": 0.7}, (0.3, 0.5, 0.7)),
        ({"thresholds": "as_released"}, (1.0, 1.0, 1.0)),
        ({"thresholds": "as_released", "v_threshold": 0.9, "attn_v_threshold": 0.5}, (0.9, 0.9, 0.9)),
    ],
)
def test_thresholds(arguments: dict[str, Any], expected: tuple[float, ...]) -> None:
    attention = create_model("tim", **SMALL, **arguments).block[0].attn
    layers = attention.interaction.in_neuron, attention.interaction.out_neuron, attention.product.neuron
    assert tuple(layer.v_threshold for layer in layers) == expected


@pytest.mark.parametrize(
    "switch",
    [
        {"thresholds": "as_released"},
        {"alpha": 0.25},
        {"attn_scale": 0.125},
        {"attention": "sdsa"},
        {"attn_v_threshold": 1.0},
        {"v_threshold": 0.9},
        {"tau": 1.5},
    ],
    ids=str,
)
def test_every_switch_changes_the_logits(switch: dict[str, Any]) -> None:
    assert differs(lively("tim", **LIVELY), lively("tim", **LIVELY | switch), clips(32, steps=4))


@pytest.mark.parametrize("detach", [False, True])
def test_detach_membrane_holds_for_all_neurons(detach: bool) -> None:
    model = create_model("tim", **SMALL, detach_membrane=detach)
    assert {layer.dynamics.detach_membrane for layer in spiking_layers(model).values()} == {detach}
    assert isinstance(model, Tim)


@pytest.mark.parametrize("embedding", ["sps", "one_conv", "two_conv"])
@pytest.mark.parametrize("detach", [False, True])
def test_a_step_of_training_reaches_every_parameter(detach: bool, embedding: str) -> None:
    options = {"embedding": embedding, "detach_membrane": detach, "keep_dead_parameters": False, "attn_scale": 1.0}
    model = lively("tim", **LIVELY, **options).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    nn.functional.cross_entropy(model(clips(32, steps=4)), torch.tensor([0, 1])).backward()
    assert all(
        parameter.grad is not None and parameter.grad.any() for parameter in model.parameters() if parameter.ndim > 1
    )
    optimiser.step()
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
