"""Spiking layers against spikingjelly and plain loops, and states that are carried from call to call."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import neuron, surrogate

from trainers.neurons import NEURON_KINDS, RecurrentLif, carried_state, make_lif, make_neuron, spiking_layers

SHAPES = {
    "sigmoid": surrogate.Sigmoid,
    "atan": surrogate.ATan,
    "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    "rect": surrogate.Rect,
}


def currents(dtype: torch.dtype = torch.float32, steps: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(steps, 3, 40, generator=generator, dtype=dtype) * 2 + 0.5


# --- LIF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v_reset", "decay_input", "detach_reset", "shape"),
    list(itertools.product([0.0, -0.25, None], [True, False], [True, False], SHAPES)),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lif_equals_spikingjelly(
    dtype: torch.dtype, v_reset: float | None, decay_input: bool, detach_reset: bool, shape: str
) -> None:
    options = {"v_reset": v_reset, "decay_input": decay_input, "detach_reset": detach_reset, "v_threshold": 0.8}
    ours = make_lif(tau=3.0, surrogate=shape, surrogate_alpha=2.5, backend="torch", **options)
    theirs = neuron.LIFNode(tau=3.0, surrogate_function=SHAPES[shape](alpha=2.5), step_mode="m", **options)
    x, y = currents(dtype).requires_grad_(), currents(dtype).requires_grad_()
    spikes, reference = ours(x), theirs(y)
    assert 0.05 < reference.mean() < 0.95
    assert torch.equal(spikes, reference)
    weights = torch.cos(torch.arange(x.numel(), dtype=dtype)).view(x.shape)
    (spikes * weights).sum().backward()
    (reference * weights).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


def test_a_membrane_at_the_threshold_fires() -> None:
    lif = make_lif(tau=2.0, v_threshold=1.0)
    assert lif(torch.tensor([[2.0, 1.9999]])).tolist() == [[1.0, 0.0]]


def test_lif_starts_from_rest_in_every_call() -> None:
    lif, x = make_lif(), currents()
    assert torch.equal(lif(x), lif(x))
    assert torch.equal(lif(x[:, :1]), lif(x)[:, :1])
    assert lif.v == 0.0
    assert not lif.state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_gets_a_float32_membrane(dtype: torch.dtype) -> None:
    lif, x = make_lif(), currents().to(dtype).requires_grad_()
    spikes = lif(x)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), lif(x.float()))
    spikes.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


def test_lif_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="tau must be greater than 1, got 1"):
        make_lif(tau=1.0)
    with pytest.raises(ValueError, match="unknown surrogate 'relu'; known: sigmoid, atan, piecewise_quadratic, rect"):
        make_lif(surrogate="relu")
    with pytest.raises(ValueError, match="unknown neuron backend 'cupy'; known: auto, torch"):
        make_lif(backend="cupy")


# --- the other kinds --------------------------------------------------------------------------------------------------


def loss_weights(x: Tensor) -> Tensor:
    return torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)


@pytest.mark.parametrize(
    ("v_reset", "decay_input", "detach_reset", "shape"),
    list(itertools.product([0.0, -0.25, None], [True, False], [True, False], ["sigmoid", "atan"])),
)
def test_plif_equals_a_plain_loop(v_reset: float | None, decay_input: bool, detach_reset: bool, shape: str) -> None:
    options = {"v_reset": v_reset, "decay_input": decay_input, "detach_reset": detach_reset, "v_threshold": 0.8}
    layer = make_neuron("plif", tau=3.0, surrogate=shape, surrogate_alpha=2.5, **options).double()
    assert {name: value.shape for name, value in layer.state_dict().items()} == {"w": ()}
    assert layer.w.item() == pytest.approx(-math.log(3.0 - 1.0))
    x, y = currents(torch.float64).requires_grad_(), currents(torch.float64).requires_grad_()
    w = layer.w.detach().clone().requires_grad_()
    rest = 0.0 if v_reset is None else v_reset
    v, reference = torch.full_like(y[0], rest), []
    for current in y:
        v = v + (current - (v - rest)) * w.sigmoid() if decay_input else v - (v - rest) * w.sigmoid() + current
        spike = SHAPES[shape](alpha=2.5)(v - 0.8)
        reset = spike.detach() if detach_reset else spike
        v = v - 0.8 * reset if v_reset is None else (1 - reset) * v + reset * v_reset
        reference.append(spike)
    spikes = layer(x)
    assert torch.equal(spikes, torch.stack(reference))
    (spikes * loss_weights(x)).sum().backward()
    (torch.stack(reference) * loss_weights(x)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.w.grad, w.grad, rtol=1e-10, atol=1e-12)


def test_plif_equals_spikingjelly() -> None:
    ours = make_neuron("plif", tau=2.0)
    theirs = neuron.ParametricLIFNode(init_tau=2.0, detach_reset=True, step_mode="m")
    x, y = currents().requires_grad_(), currents().requires_grad_()
    spikes, reference = ours(x), theirs(y)
    assert torch.equal(spikes, reference)
    (spikes * loss_weights(x)).sum().backward()
    (reference * loss_weights(y)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.w.grad, theirs.w.grad, rtol=1e-4, atol=1e-4)


def test_if_equals_spikingjelly() -> None:
    ours = make_neuron("if", v_threshold=1.5)
    theirs = neuron.IFNode(v_threshold=1.5, detach_reset=True, step_mode="m")
    x, y = currents().requires_grad_(), currents().requires_grad_()
    spikes, reference = ours(x), theirs(y)
    assert torch.equal(spikes, reference)
    (spikes * loss_weights(x)).sum().backward()
    (reference * loss_weights(y)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NEURON_KINDS)
def test_every_kind_starts_from_rest_and_is_listed(kind: str) -> None:
    torch.manual_seed(0)
    layer = make_neuron(kind, time_steps=6).double()
    x = currents(torch.float64).requires_grad_()
    spikes = layer(x)
    assert 0.02 < spikes.mean() < 3
    assert torch.equal(layer(x), spikes)
    assert torch.equal(layer(x[:, :1]), spikes[:, :1])
    spikes.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert not [name for name in layer.state_dict() if name not in dict(layer.named_parameters())]
    assert list(spiking_layers(torch.nn.Sequential(torch.nn.Identity(), layer))) == ["1"]


@pytest.mark.parametrize("kind", NEURON_KINDS)
def test_half_precision_leaves_membranes_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    layer, x = make_neuron(kind, time_steps=6), currents().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = layer(x)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), layer(x.float()))


@pytest.mark.parametrize("kind", ["lif", "if", "plif", "clif", "klif", "ilif"])
def test_a_carried_state_makes_steps_equal_to_one_call(kind: str) -> None:
    model = torch.nn.Sequential(make_neuron(kind), torch.nn.Linear(40, 40), make_neuron(kind, v_threshold=0.3)).double()
    x = currents(torch.float64)
    together = model(x)
    with carried_state(model):
        model(x[:2])
    with carried_state(model):
        steps = [model(step) for step in x.split(1)]
    assert torch.equal(torch.cat(steps), together)
    assert not torch.equal(torch.cat([model(step) for step in x.split(1)]), together)
    assert torch.equal(model(x), together)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": kind} | options
        for kind in ("lif", "if", "plif", "klif", "clif", "ilif")
        for options in ({}, {"v_reset": None}, {"detach_reset": False}, {"decay_input": False})
    ],
    ids=str,
)
def test_a_carried_state_carries_gradients(options: dict[str, Any]) -> None:
    model = make_neuron(**options).double()
    gradients = []
    for steps in (6, 1, 2):
        x = currents(torch.float64).requires_grad_()
        with carried_state(model):
            spikes = torch.cat([model(part) for part in x.split(steps)])
            (spikes * torch.cos(torch.arange(spikes.numel())).view_as(spikes)).sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
        model.zero_grad()
    for carried in gradients[1:]:
        torch.testing.assert_close(carried, gradients[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["lif", "if", "plif"])
def test_a_detached_membrane_lets_no_gradient_through_time(kind: str) -> None:
    options: dict[str, Any] = {"v_reset": None, "v_threshold": 0.8, "detach_membrane": True}
    layer, attached = make_neuron(kind, **options).double(), make_neuron(kind, **options | {"detach_membrane": False})
    x = currents(torch.float64).requires_grad_()
    spikes = layer(x)
    assert torch.equal(spikes, attached.double()(x))
    (gradient,) = torch.autograd.grad(spikes[3].sum(), x)
    assert gradient[3].abs().min() > 0
    assert gradient[[0, 1, 2, 4, 5]].count_nonzero() == 0
    with carried_state(layer):
        first, second = layer(x[:3]), layer(x[3:])
        (carried,) = torch.autograd.grad(second[0].sum(), x)
    assert torch.equal(torch.cat([first, second]), spikes)
    torch.testing.assert_close(carried, gradient, rtol=1e-12, atol=0)  # perhaps by another kernel


def test_spikingjellys_nodes_cannot_detach_their_membranes() -> None:
    with pytest.raises(ValueError, match="a 'clif' layer has no use for detach_membrane = True; leave it at False"):
        make_neuron("clif", detach_membrane=True)


@pytest.mark.parametrize("kind", ["glif", "psn"])
def test_kinds_that_need_all_steps_refuse_to_be_carried(kind: str) -> None:
    model = torch.nn.Sequential(make_lif(), make_neuron(kind, time_steps=6))
    with pytest.raises(RuntimeError, match=r"layer '1' \(.*\) works on all time steps at once"), carried_state(model):
        pass
    with pytest.raises(ValueError, match=f"a '{kind}' layer made for 6 time steps got 2"):
        model[1](currents()[:2])
    with pytest.raises(ValueError, match=f"a '{kind}' layer has parameters for each time step and needs time_steps"):
        make_neuron(kind)


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        ("if", "tau", 3.0),
        ("clif", "v_reset", -0.5),
        ("ilif", "surrogate", "atan"),
        ("ilif", "v_reset", 0.5),
        ("glif", "tau", 4.0),
        ("psn", "v_reset", None),
    ],
)
def test_a_kind_refuses_what_it_cannot_use(kind: str, argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"a '{kind}' layer has no use for {argument} = "):
        make_neuron(kind, time_steps=4, **{argument: value})


def test_thresholds_that_are_learned_start_where_they_are_told() -> None:
    assert make_neuron("psn", v_threshold=0.5, time_steps=4).bias.unique().item() == -0.5
    for given, threshold in ((0.3, 0.3), (1.0, 0.5)):
        layer = make_neuron("glif", v_threshold=given, time_steps=4)
        assert layer.v_threshold.sigmoid().item() == pytest.approx(threshold)
    with pytest.raises(ValueError, match=r"'glif' layer must be between 0 and 1, got 1\.5"):
        make_neuron("glif", v_threshold=1.5, time_steps=4)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of neuron 'liff'; known: lif, if, plif"):
        make_neuron("liff")


# --- recurrent LIF ----------------------------------------------------------------------------------------------------


class PlainSpike(torch.autograd.Function):
    """Strict step with the derivative 1 / (1 + (pi x)^2)."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * x) ** 2)


def plain_recurrent_lif(layer: RecurrentLif, current: Tensor, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
    spikes, membranes = [], []
    m = s = torch.zeros_like(current[0])
    for i in current:
        reset = (m > threshold).to(m.dtype).detach()
        m = beta * m + i + layer.recurrent(s) - reset * threshold
        s = PlainSpike.apply(m - threshold)
        spikes.append(s)
        membranes.append(m)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("threshold", [1.0, 0.6])
def test_recurrent_lif_equals_a_plain_loop(threshold: float) -> None:
    torch.manual_seed(0)
    layer = RecurrentLif(40, beta=0.7, v_threshold=threshold).double()
    gradients = []
    for run in (layer, lambda x: plain_recurrent_lif(layer, x, 0.7, threshold)):
        x = currents(torch.float64).requires_grad_()
        spikes, membranes = run(x)
        weights = torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)
        objective = (weights * spikes).sum() + (weights.cos() * membranes).sum()
        gradients.append([spikes, *torch.autograd.grad(objective, [x, *layer.parameters()])])
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output", [0, 1])
def test_recurrent_lif_has_gradients_of_one_output_alone(output: int) -> None:
    torch.manual_seed(0)
    layer, x = RecurrentLif(40).double(), currents(torch.float64)
    ours = torch.autograd.grad(layer(x)[output].sum(), layer.recurrent.weight)[0]
    plain = torch.autograd.grad(plain_recurrent_lif(layer, x, 0.9, 1.0)[output].sum(), layer.recurrent.weight)[0]
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_recurrent_lif_does_not_fire_at_the_threshold() -> None:
    layer = RecurrentLif(1)
    torch.nn.init.zeros_(layer.recurrent.bias)
    assert [layer(torch.tensor([[[x]]]))[0].item() for x in (1.0, 1.0001)] == [0.0, 1.0]


def test_recurrent_lif_stays_in_float32_under_autocast() -> None:
    layer, x = RecurrentLif(40), currents()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes, membranes = layer(x.bfloat16())
    assert membranes.dtype == torch.float32
    assert torch.equal(spikes, layer(x.bfloat16().float())[0])


def test_recurrent_lif_clamps_beta() -> None:
    assert RecurrentLif(1, beta=1.2).dynamics.beta == 1.0
    assert RecurrentLif(1, beta=-0.2).dynamics.beta == 0.0


def test_spiking_layers_are_found_by_name() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), make_lif(), RecurrentLif(2))
    assert list(spiking_layers(model)) == ["1", "2"]
