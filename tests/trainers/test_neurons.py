"""LIF layers against spikingjelly and a plain recurrent loop, and the choice of their kernel."""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import neuron, surrogate

from trainers import neuron_kernels, neurons
from trainers.neurons import RecurrentLif, choose_backend, make_lif, spiking_layers

CUDA = torch.device("cuda", 0)
SHAPES = {"sigmoid": surrogate.Sigmoid, "atan": surrogate.ATan}


def currents(dtype: torch.dtype = torch.float32, steps: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(steps, 3, 40, generator=generator, dtype=dtype) * 2 + 0.5


# --- LIF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v_reset", "decay_input", "detach_reset", "shape"),
    list(itertools.product([0.0, -0.25, None], [True, False], [True, False], ["sigmoid", "atan"])),
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
    with pytest.raises(ValueError, match="unknown surrogate 'relu'; known: sigmoid, atan"):
        make_lif(surrogate="relu")
    with pytest.raises(ValueError, match="unknown neuron backend 'cupy'; known: auto, torch"):
        make_lif(backend="cupy")


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


# --- kernel -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[None]:
    neurons._choose_backend.cache_clear()
    yield
    neurons._choose_backend.cache_clear()


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, implementation: str, *, agrees: bool = True, **unavailable: str) -> None:
    """Pretend that spikingjelly found an implementation on a GPU."""
    found = {"implementation": implementation, "unavailable": unavailable}
    monkeypatch.setattr(neurons.functional, "neuron_implementation", lambda *args: found)
    monkeypatch.setattr(neurons, "_agrees_with_torch", lambda device: agrees)


def test_a_cpu_runs_torch() -> None:
    assert choose_backend("auto", torch.device("cpu")) == "torch"
    assert choose_backend("torch", torch.device("cpu")) == "torch"


def test_a_kernel_that_cannot_run_is_replaced_with_one_warning() -> None:
    with pytest.warns(
        RuntimeWarning, match="'triton' is not used on cpu: it needs an NVIDIA GPU; 'torch' runs instead"
    ):
        assert choose_backend("triton", torch.device("cpu")) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend("triton", torch.device("cpu")) == "torch"


def test_auto_takes_what_spikingjelly_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", cuda="not built")
    assert choose_backend("auto", CUDA) == "triton"


def test_torch_is_honoured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "cuda")
    assert choose_backend("torch", CUDA) == "torch"


def test_the_kernel_that_really_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", cuda="not built")
    with pytest.warns(RuntimeWarning, match="'cuda' is not used on cuda:0: not built; 'triton' runs instead"):
        assert choose_backend("cuda", CUDA) == "triton"


def test_a_kernel_that_disagrees_with_torch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton", agrees=False)
    with pytest.warns(RuntimeWarning, match="differ from those of torch"):
        assert choose_backend("auto", CUDA) == "torch"


def test_a_kernel_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> object:
        raise RuntimeError("no implementation available")

    monkeypatch.setattr(neurons.functional, "neuron_implementation", fail)
    with pytest.warns(RuntimeWarning, match="no implementation available; 'torch' runs instead"):
        assert choose_backend("triton", CUDA) == "torch"


def test_an_explicit_choice_is_told_to_spikingjelly_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "triton")
    monkeypatch.setenv("SJ_LIF_CUDA_IMPLEMENTATION", "auto")
    monkeypatch.delitem(sys.modules, "spikingjelly._ops.lif", raising=False)
    choose_backend("triton", CUDA)
    assert os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] == "triton"


def test_the_self_check_knows_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    cpu = torch.device("cpu")
    assert neurons._agrees_with_torch(cpu)  # spikingjelly's own operator, which also runs on a CPU
    fused = neurons._fused_lif
    monkeypatch.setattr(neurons, "_fused_lif", lambda x, d, s: fused(x * 1.05, d, s))
    assert not neurons._agrees_with_torch(cpu)
    monkeypatch.setattr(neurons, "_fused_lif", lambda x, d, s: fused(x, d, surrogate.Sigmoid(alpha=3.0)))
    assert not neurons._agrees_with_torch(cpu)
    assert torch.equal(torch.get_rng_state(), state)


def test_lif_runs_the_kernel_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls = currents(), []
    fused = neurons._fused_lif
    monkeypatch.setattr(neurons, "choose_backend", lambda requested, device: "triton")
    monkeypatch.setattr(neurons, "_fused_lif", lambda x, d, s: calls.append(x.dtype) or fused(x, d, s))
    lif = make_lif(backend="triton")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):  # double precision has no fused kernel
        torch.testing.assert_close(lif(x.to(dtype)), neuron_kernels.lif(x.to(dtype), lif.dynamics))
    assert torch.float32 in calls
    assert torch.bfloat16 in calls
    assert torch.float64 not in calls
