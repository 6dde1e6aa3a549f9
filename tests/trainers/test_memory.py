"""Blocks that are computed again: the same numbers with less kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trainers.models  # noqa: F401  # registers the models

# isort: split
from timm import create_model

from trainers.memory import MemorySaving, save_memory
from trainers.protocol import TrainerError

SMALL = {"img_size": 16, "embed_dims": 32, "num_heads": 4, "num_classes": 5}


def model(name: str, how: MemorySaving, **options: object) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = create_model(name, **SMALL, **options).double().train()
    save_memory(built, how)
    return built


def trained(net: nn.Module) -> dict[str, Tensor]:
    """Return gradients and buffers after two steps, and how much is kept for the backward pass."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss = net(images).square().sum()
        loss.backward()
    found = {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}
    return found | dict(net.named_buffers()) | {"kept": torch.tensor(sum(kept.values()))}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spikformer_cifar", {"depth": 2}),
        ("spikformer_cifar", {"depth": 2, "neuron": "plif"}),
        ("spikformer_cifar", {"depth": 2, "backend": "torch"}),
        ("qkformer_cifar", {"depth": 4}),
        ("sdt", {"depth": 2}),
        ("spikingformer_cifar", {"depth": 2, "neuron": "klif"}),
    ],
)
@pytest.mark.parametrize("how", ["checkpoint", "spikingjelly"])
def test_gradients_and_statistics_stay_the_same_to_the_bit(
    name: str, options: dict[str, object], how: MemorySaving
) -> None:
    if how == "spikingjelly" and not model(name, "none", **options).adds_spikes:
        pytest.skip("its blocks add membranes")
    everything, less = trained(model(name, "none", **options)), trained(model(name, how, **options))
    assert less.pop("kept") < 0.8 * everything.pop("kept")
    assert everything.keys() == less.keys()
    assert all(torch.equal(value, less[key]) for key, value in everything.items())
    assert {value.item() for key, value in less.items() if key.endswith("num_batches_tracked")} == {2}


def test_random_numbers_in_a_block_are_drawn_once() -> None:
    results = []
    for how in ("none", "checkpoint"):
        net = model("spikformer_cifar", how, depth=1)
        net.block[0].mlp = nn.Sequential(net.block[0].mlp, nn.Dropout(0.5))
        torch.manual_seed(3)
        results.append(trained(net) | {"next": torch.rand(1)})
        results[-1].pop("kept")
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


def test_evaluation_and_steps_in_turn_are_not_touched() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = [
        model("spikformer_cifar", how, depth=1, step_by_step=steps).eval()(images)
        for how, steps in (("none", False), ("checkpoint", False), ("checkpoint", True))
    ]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    torch.testing.assert_close(logits[2], logits[0])
    logits[2].sum().backward()


def test_what_cannot_save_memory_says_so() -> None:
    with pytest.raises(
        TrainerError, match="'spikingjelly' keeps whole numbers, but the shortcuts of Sdt add membranes"
    ):
        model("sdt", "spikingjelly")
    with pytest.raises(TrainerError, match="'checkpoint' is for the spiking transformers; set it to none for Linear"):
        save_memory(nn.Linear(2, 2), "checkpoint")
