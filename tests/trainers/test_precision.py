"""Mixed precision: weights in half precision, membranes in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import trainers.models  # noqa: F401  # registers the models

# isort: split
from timm import create_model

from trainers.neurons import spiking_layers

SMALL: dict[str, Any] = {"img_size": 16, "embed_dims": 32, "num_heads": 4, "num_classes": 5}


@pytest.mark.parametrize("name", ["spikformer_cifar", "qkformer_cifar", "sdt", "spikingformer_cifar"])
def test_every_layer_of_a_model_fires_as_on_its_currents_in_float32(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, **SMALL).train()
    layers = spiking_layers(model)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for key, layer in layers.items():
        layer.register_forward_hook(
            lambda _layer, args, spikes, key=key: found.update({key: (args[0].detach(), spikes.detach())})
        )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.rand(2, 3, 16, 16)).float().square().mean()
    loss.backward()
    seen = dict(found)
    assert sum(currents.dtype == torch.bfloat16 for currents, _ in seen.values()) > len(seen) / 2
    for key, (currents, spikes) in seen.items():
        assert spikes.dtype == currents.dtype
        assert torch.equal(layers[key](currents.float()), spikes.float()), key
    assert all(
        w.grad is None or (w.grad.dtype == torch.float32 and w.grad.isfinite().all()) for w in model.parameters()
    )
