"""Small spiking transformers whose every layer fires, and what must hold for each family."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm import create_model

from trainers.neurons import spiking_layers

STEPS_EQUAL = 1e-12


def total(name: str, **arguments: Any) -> int:
    """Return the number of trainable parameters, without memory for them."""
    with torch.device("meta"):
        model = create_model(name, **arguments)
    return sum(parameter.numel() for parameter in model.parameters())


def lively(name: str, *, gain: float = 2.5, shift: float = 0.4, **arguments: Any) -> nn.Module:
    """Return a float64 model in evaluation with drawn weights that let all its layers fire."""
    model: nn.Module = create_model(name, **arguments).double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(gain * drawn / math.sqrt(parameter[0].numel()))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias.fill_(shift)
    return model


def pictures(side: int, *, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def clips(side: int, *, batch: int = 2, steps: int = 3) -> Tensor:
    """Return event counts [B, T, 2, side, side]."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, steps, 2, side, side, dtype=torch.float64, generator=generator).abs().floor()


def differs(one: nn.Module, other: nn.Module, images: Tensor) -> bool:
    """Return whether two models with the same weights give other logits."""
    other.load_state_dict(one.state_dict(), strict=False)
    with torch.no_grad():
        return not torch.allclose(one(images), other(images), atol=1e-6)


@torch.no_grad()
def check_steps(model: nn.Module, images: Tensor) -> None:
    """Fail unless running one step after the other gives what running all at once gives."""
    at_once, maps = model(images), model.forward_intermediates(images, intermediates_only=True)
    assert_alive(model, images)
    model.step_by_step = True
    torch.testing.assert_close(model(images), at_once, rtol=0, atol=STEPS_EQUAL)
    for one, other in zip(model.forward_intermediates(images, intermediates_only=True), maps, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=STEPS_EQUAL)


@torch.no_grad()
def assert_alive(model: nn.Module, images: Tensor) -> None:
    """Fail if a spiking layer is silent, which would make comparisons empty."""
    rates: dict[str, float] = {}
    handles = [
        layer.register_forward_hook(
            lambda _layer, _args, out, name=name: rates.__setitem__(name, rates.get(name, 0.0) + float(out.mean()))
        )
        for name, layer in spiking_layers(model).items()
    ]
    model(images)
    for handle in handles:
        handle.remove()
    silent = [name for name in spiking_layers(model) if not rates.get(name)]
    assert silent == []


@torch.no_grad()
def check_features(name: str, images: Tensor, channels: list[int], strides: list[int], **arguments: Any) -> None:
    """Fail unless `features_only` gives maps of these channels and strides, also where only some are asked for."""
    whole = lively(name, **arguments)
    features = lively(name, features_only=True, **arguments)
    features.model.load_state_dict({key: v for key, v in whole.state_dict().items() if not key.startswith("head.")})
    maps = features(images)
    assert features.feature_info.channels() == channels
    assert features.feature_info.reduction() == strides
    side = images.shape[-1]
    assert [list(one.shape[1:]) for one in maps] == [
        [width, side // stride, side // stride] for width, stride in zip(channels, strides, strict=True)
    ]
    torch.testing.assert_close(maps[-1], whole.forward_features(images))
    (first,) = lively(name, features_only=True, out_indices=(0,), **arguments)(images)
    assert first.shape == maps[0].shape


@torch.no_grad()
def check_embeddings(model: nn.Module, images: Tensor, shape: tuple[int, ...]) -> None:
    """Fail unless the embeddings are spikes of this shape, the same for both ways of running."""
    logits, spikes = model(images, return_embeddings=True)
    assert torch.equal(logits, model(images))
    assert tuple(spikes.shape) == shape
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    model.step_by_step = True
    assert torch.equal(model(images, return_embeddings=True)[1], spikes)
