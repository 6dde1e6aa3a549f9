"""Every YAML file that is shipped, wherever it lies, is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

import configs
import search_spaces
from configs.catalog import shipped_configs
from configs.resolve import resolve
from configs.sources import load_yaml
from search_spaces.catalog import ROOT, find_space, shipped_spaces
from search_spaces.load import load_space
from search_spaces.preview import sample

SHIPPED = sorted(path for package in (configs, search_spaces) for path in Path(package.__path__[0]).rglob("*.y*ml"))


def test_shipped_spaces_are_found_by_name_with_and_without_ending() -> None:
    path = ROOT / "stal_loss.yaml"
    assert find_space("stal_loss") == find_space("stal_loss.yaml") == find_space(path) == path


def test_no_file_is_missing_or_forgotten() -> None:
    assert len(SHIPPED) == 96
    assert {*shipped_configs(), *shipped_spaces()} == set(SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_is_sound(path: Path) -> None:
    if "parameters" not in load_yaml(path).data:
        resolve(path)
        return
    checked = load_space(path)
    assert checked.space.name == path.stem
    assert len(sample(checked, 10)) == 10


def test_the_loss_search_is_the_one_of_the_thesis() -> None:
    space = load_space("stal_loss").space
    ranges = {key: parameter.model_dump(exclude_defaults=True) for key, parameter in space.parameters.items()}
    assert ranges == {
        "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
        "loss.c": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
    }
    assert [(objective.metric, objective.direction) for objective in space.objectives] == [
        ("val_accuracy", "maximize"),
        ("val_spike_density", "minimize"),
    ]
    assert (space.sampler.name, space.sampler.seed, space.budget.trials) == ("tpe", 42, 12)
