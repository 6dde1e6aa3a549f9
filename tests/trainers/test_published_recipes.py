"""The configurations of published variants: their size, a step without numbers, and the figures of their recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from configs.catalog import ROOT, shipped_configs
from configs.data_fit import EVENT_SETS, image_shape
from configs.resolve import resolve
from configs.schema import RunConfig
from trainers.factory import build_model
from trainers.optimisation import Updater, effective_learning_rate, make_optimizer
from trainers.tasks import make_task

META, CPU = torch.device("meta"), torch.device("cpu")
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000} | {
    "cifar10_dvs": 10,
    "dvs128_gesture": 11,
    "n_caltech101": 101,
}
CLIPS = 2
FAMILIES = {"spikformer": 14, "sdt": 13, "qkformer": 8, "tim": 3, "spikingformer": 12}
SHIPPED = [path for path in shipped_configs() if path.parent.name in FAMILIES]
# (epochs with cooldown, samples per update, peak learning rate, weight decay) as published
RECIPES = {
    "spikformer/cifar10": (310, 128, 5e-4, 0.06),
    "spikformer/cifar100": (310, 128, 5e-4, 0.06),
    "spikformer/imagenet_8_512": (310, 24 * 8, 5e-4, 0.05),
    "spikformer/imagenet_8_768": (310, 24 * 8, 5e-4, 0.05),
    "spikformer/cifar10_dvs": (106, 16, 1e-3, 0.06),
    "sdt/cifar10": (310, 64, 3e-4, 0.06),
    "sdt/imagenet_8_384": (310, 48 * 8, 1.5e-3, 0.01),
    "sdt/imagenet_8_768": (310, 36 * 8, 1e-3, 0.01),
    "sdt/cifar10_dvs": (210, 32, 7.5e-3, 1e-4),
    "sdt/dvs128_gesture_t10": (210, 16, 2e-3, 1e-4),
    "sdt/dvs128_gesture_t16": (210, 16, 3e-4, 0.06),
    "qkformer/cifar10": (410, 64, 1e-3, 0.06),
    "qkformer/imagenet_10_384": (200, 512, 1.2e-3, 0.05),
    "qkformer/imagenet_10_512": (200, 512, 1.2e-3, 0.05),
    "qkformer/imagenet_10_768": (200, 576, 1.35e-3, 0.05),
    "qkformer/cifar10_dvs": (106, 16, 5e-3, 0.06),
    "qkformer/dvs128_gesture": (202, 16, 1e-3, 0.06),
    "tim/cifar10_dvs": (510, 16, 5e-3 * 16 / 1024, 1e-4),
    "spikingformer/cifar10": (410, 64, 5e-4, 0.06),
    "spikingformer/imagenet_8_512": (310, 36 * 8, 5e-4, 0.05),
    "spikingformer/dvs128_gesture": (202, 16, 1e-3, 0.06),
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def build(config: RunConfig) -> torch.nn.Module:
    shape = image_shape(config.data.model_dump())
    assert shape is not None
    with META:
        return build_model(config, shape, CLASSES[config.data.name], META)


def test_every_published_variant_is_there() -> None:
    assert {family: sum(path.parent.name == family for path in SHIPPED) for family in FAMILIES} == FAMILIES


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_the_model_has_the_parameters_that_its_file_says(path: Path) -> None:
    said = re.search(r"^# parameters: ([\d,]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert said is not None
    model = build(resolve(path).config)
    assert sum(parameter.numel() for parameter in model.parameters()) == int(said[1].replace(",", ""))


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_a_step_runs_at_full_size(path: Path) -> None:
    config = resolve(path, ["--neuron.backend", "torch", "--training.amp", "off"]).config
    model = build(config).train()
    task = make_task(config, CPU)
    updater = Updater(model, make_optimizer(model, config.optimizer), config.training, CPU)
    shape = image_shape(config.data.model_dump())
    assert shape is not None
    frames = (config.encoder.time_steps,) if config.data.name in EVENT_SETS else ()
    samples, labels = torch.empty(CLIPS, *frames, *shape, device=META), torch.empty(CLIPS, dtype=int, device=META)
    output = task.step(model, samples, labels, 0)
    updater.backward(output.loss, share=1.0)
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    updater.update()
    assert output.logits is not None
    assert output.logits.shape == (CLIPS, CLASSES[config.data.name])
    assert output.embeddings.shape[:2] == (config.encoder.time_steps, CLIPS)
    assert all(re.search(r"norm|pos_embed|talking_heads", name) for name in unused), unused


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_the_head_of_a_file_tells_where_it_is_from(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\n#")[0]
    assert re.search(r"\(.+[/ ].+; arXiv \d{4}\.\d{5}\)", head)
    assert re.search(r"^# (Published|Expected): ", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_the_published_one(name: str) -> None:
    config = resolve(name).config
    training, optimizer = config.training, config.optimizer
    found = (
        training.epochs,
        training.batch_size * training.accumulation_steps,
        pytest.approx(effective_learning_rate(optimizer, training)),
        optimizer.weight_decay,
    )
    assert found == RECIPES[name]
    assert not optimizer.decay_bias_and_norm
