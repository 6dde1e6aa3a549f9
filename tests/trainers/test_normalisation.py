"""Convolution and batch normalisation over time: of one image once, and together with the neurons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainers.neurons import make_neuron
from trainers.normalisation import convolve, fire, normalise

COPIES = 5


def image() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_normalisation_serves_all_copies_of_the_image() -> None:
    once, plain = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    x, y = (image().requires_grad_() for _ in range(2))
    for _ in range(2):
        out = normalise(once, x.expand(COPIES, *x.shape))
        reference = plain(y.repeat(COPIES, 1, 1, 1)).view(out.shape)
        assert out.stride(0) == 0
        torch.testing.assert_close(out, reference)
        weights = torch.cos(torch.arange(reference.numel(), dtype=torch.float64)).view(out.shape)
        (out * weights).sum().backward()
        (reference * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(once.state_dict(), plain.state_dict())
    once.eval()
    torch.testing.assert_close(normalise(once, x.expand(COPIES, *x.shape)), once(x).expand(COPIES, *x.shape))


def test_one_convolution_serves_all_copies_of_the_image() -> None:
    conv, x = nn.Conv2d(3, 4, 3, padding=1).double(), image()
    calls: list[int] = []
    conv.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    once = convolve(conv, x.expand(COPIES, *x.shape))
    assert conv.repeats == COPIES
    torch.testing.assert_close(convolve(conv, x.repeat(COPIES, 1, 1, 1, 1)), once)
    assert conv.repeats == 1
    assert calls == [2, 2 * COPIES]


@pytest.mark.parametrize("kind", ["lif", "if", "plif"])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_normalisation_and_neurons_in_one_pass_equal_both_in_turn(kind: str, copies: bool, training: bool) -> None:
    results = []
    x = image() if copies else torch.stack([image() * step for step in range(1, COPIES + 1)])
    for together in (True, False):
        norm, neuron = nn.BatchNorm2d(3), make_neuron(kind, v_threshold=0.3, backend="auto" if together else "torch")
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
        norm.double().train(training)
        neuron.double()
        given = x.clone().requires_grad_()
        currents = given.expand(COPIES, *x.shape) if copies else given
        spikes = fire(neuron, norm, currents) if together else neuron(normalise(norm, currents))
        (spikes * torch.cos(torch.arange(spikes.numel())).view(spikes.shape)).sum().backward()
        results.append((spikes, given.grad, norm.weight.grad, norm.bias.grad, norm.state_dict()))
    assert 0.02 < results[0][0].mean() < 0.9
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_a_hook_on_the_normalisation_sees_it_run() -> None:
    norm, neuron, seen = nn.BatchNorm2d(3).double(), make_neuron("lif"), []
    norm.register_forward_hook(lambda module, args, output: seen.append(output))
    fire(neuron, norm, image().repeat(2, 1, 1, 1, 1))
    assert len(seen) == 1
