"""Every shipped configuration that is small trains a step, on images drawn at random in its own shape.

The published recipes of the transformers are in test_published_recipes.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.catalog import ROOT, shipped_configs
from configs.data_fit import image_shape
from configs.resolve import resolve
from trainers.factory import build_model
from trainers.optimisation import Updater, make_optimizer, make_schedule
from trainers.tasks import make_task

CPU = torch.device("cpu")
IMAGES = 3
CLASSES = 10
QUICK = [path for path in shipped_configs() if path.parent.name == "stal" or path.stem.endswith("_digits")]


@pytest.mark.parametrize("path", QUICK, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix())
def test_a_shipped_configuration_trains_a_step(path: Path) -> None:
    config = resolve(path, ["--training.device", "cpu"]).config
    shape = image_shape(config.data.model_dump())
    assert shape is not None
    torch.manual_seed(0)
    model = build_model(config, shape, CLASSES, CPU).train()
    task = make_task(config, CPU)
    updater = Updater(model, make_optimizer(model, config.optimizer), config.training, CPU)
    make_schedule(updater.optimizer, config.schedule, config.training.epochs).step(config.training.epochs - 1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    output = task.step(model, torch.rand(IMAGES, *shape), torch.arange(IMAGES), config.training.epochs - 1)
    updater.backward(output.loss, share=1.0)
    updater.update()
    assert torch.isfinite(output.loss)
    assert output.embeddings.shape[:2] in {(config.encoder.time_steps, IMAGES), (IMAGES, config.encoder.time_steps)}
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
