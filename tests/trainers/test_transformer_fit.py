"""What the configuration refuses is what the models refuse, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import trainers.models  # noqa: F401  # registers the models with timm, which it makes importable

# isort: split
from timm import create_model

from configs.fit import misfits
from configs.transformer_fit import SPIKING_TRANSFORMERS

SIZES = {"embed_dims": 64, "num_heads": 4, "depth": 4}
QKFORMERS = {"qkformer_cifar", "qkformer_imagenet", "qkformer_dvs"}
ASKED: list[dict[str, Any]] = [
    *({"patch_size": patch} for patch in (1, 2, 3, 4, 8, 16, 32, 64)),
    {"patch_size": 16, "img_size": 72},
    *({"num_heads": heads} for heads in (3, 8, 16, 32, 64)),
]
OF_SOME: list[tuple[set[str], dict[str, Any]]] = [
    *(
        (
            {"spikformer_cifar", "spikformer_imagenet", "spikformer_dvs", "tim"},
            {"embedding": kind, "patch_size": patch, "img_size": 64 if patch != 3 else 66},
        )
        for kind in ("one_conv", "two_conv")
        for patch in (2, 3, 4, 32)
    ),
    *((QKFORMERS, {"depth": depth}) for depth in (1, 2, 3)),
    *((QKFORMERS, {"stage_depths": [1] * stages}) for stages in (1, 2, 3)),
    *((QKFORMERS, {"attention": ["ssa"] * stages}) for stages in (2, 3)),
    *((QKFORMERS, {"neuron": kind, "proj_state": "batch_leak"}) for kind in ("lif", "clif", "glif", "psn")),
    *(({"tim"}, {"neuron": kind, "detach_membrane": on}) for kind in ("if", "klif", "psn") for on in (True, False)),
    *(({"sdt"}, {"event_pooling": True, "attention": kind}) for kind in ("sdsa", "ssa")),
]
CASES = [(name, asked) for asked in ASKED for name in sorted(SPIKING_TRANSFORMERS)]
CASES += [(name, asked) for names, asked in OF_SOME for name in sorted(names)]


def builds(name: str, asked: dict[str, Any]) -> bool:
    """Say whether timm can build a model."""
    try:
        with torch.device("meta"):
            create_model(name, **{"img_size": 64, "time_steps": 2, **SIZES, **asked})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("name", "asked"), CASES, ids=str)
def test_a_misfit_is_what_a_model_cannot_be(name: str, asked: dict[str, Any]) -> None:
    patch = 4 if name.endswith("cifar") or name == "sdt" else 16
    settings = {"patch_size": patch, **SIZES, **asked}
    values = {
        "model": {"name": name} | {key: value for key, value in settings.items() if key not in {"neuron", "img_size"}},
        "neuron": {"name": asked.get("neuron", "lif")},
        "data": {"name": "cifar10", "image_size": asked.get("img_size", 64)},
    }
    found = misfits(values)
    assert (not found) == builds(name, asked), found
