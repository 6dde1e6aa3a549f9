"""Normalisation, pool and neurons in C against the plain-torch ones."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.native.pooled import can_pool, pooled_lif
from trainers.neuron_kernels import SURROGATES, LifDynamics, lif
from trainers.neurons import make_neuron
from trainers.normalisation import fire, halve, normalise

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the C kernels need a C compiler")
STEPS = 3
TOLERANCES = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-3, "atol": 2e-4}}
LAYERS = [
    LifDynamics(tau, 0.8, v_reset, tau > 2, True, shape, alpha=2.5)
    for tau, v_reset, shape in itertools.product([2.0, 3.0], [0.0, None], SURROGATES)
]


def maps(channels: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return [T, B, C, H, W] with channels last."""
    shape = (STEPS, 2, height, width, channels)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2 * x + 0.5).to(dtype).permute(0, 1, 4, 2, 3)


def drawn_norm(channels: int, dtype: torch.dtype, training: bool) -> nn.BatchNorm2d:
    """Return a normalisation half of whose scales are negative, and one is zero."""
    norm = nn.BatchNorm2d(channels).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for values in (norm.weight, norm.running_mean):
        nn.init.normal_(values, generator=generator)
    nn.init.uniform_(norm.bias, 0.0, 1.0, generator=generator)
    with torch.no_grad():
        norm.weight[0] = 0
    return norm.train(training)


def results(layer: Any, x: Tensor, norm: nn.BatchNorm2d) -> list[Any]:
    """Return spikes, the gradients, and the state of the normalisation."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = layer(x, norm)
    (spikes * torch.cos(torch.arange(spikes.numel())).view(spikes.shape).to(x.dtype)).sum().backward()
    return [spikes.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.state_dict()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", [(8, 6, 8), (5, 7, 5), (300, 3, 4), (4, 1, 1)], ids=str)
def test_pooled_layers_are_those_of_torch(size: tuple[int, int, int], dtype: torch.dtype, training: bool) -> None:
    x, rates = maps(*size, dtype), []
    for dynamics in LAYERS:
        found, expected = (
            results(layer, x, drawn_norm(size[0], dtype, training))
            for layer in (
                lambda x, norm, d=dynamics: pooled_lif(x, norm, d),
                lambda x, norm, d=dynamics: lif(halve(normalise(norm, x)), d),
            )
        )
        torch.testing.assert_close(found, expected, **TOLERANCES[dtype])
        rates.append(float(found[0].mean()))
    assert 0.02 < sum(rates) / len(rates) < 0.98


def test_of_equal_values_the_first_is_taken() -> None:
    x = maps(4, 6, 6).round()
    found, expected = (
        results(layer, x, drawn_norm(4, torch.float64, training=True))
        for layer in (lambda x, n: pooled_lif(x, n, LAYERS[0]), lambda x, n: lif(halve(normalise(n, x)), LAYERS[0]))
    )
    torch.testing.assert_close(found, expected, **TOLERANCES[torch.float64])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            norm = drawn_norm(24, torch.float64, training=True)
            found.append(results(lambda x, n: pooled_lif(x, n, LAYERS[0]), maps(24, 33, 31), norm))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_other_memory_orders_run_in_torch() -> None:
    x = maps(4, 6, 6)
    assert can_pool(x)
    others = {
        "channels first": x.contiguous(),
        "one image": x[0].expand(x.shape),
        "gaps": maps(8, 6, 6)[:, :, ::2],
        "batch first": x.transpose(0, 1),
    }
    neuron = make_neuron("lif", v_threshold=0.4)
    for order, currents in others.items():
        assert not can_pool(currents), order
        norm, plain = (drawn_norm(4, torch.float64, training=True) for _ in range(2))
        torch.testing.assert_close(fire(neuron, norm, currents, pools=True), neuron(halve(normalise(plain, currents))))
