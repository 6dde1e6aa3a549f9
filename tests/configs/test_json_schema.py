"""JSON Schema of configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from configs.catalog import shipped_configs
from configs.json_schema import config_schema
from configs.sources import load_yaml

VALIDATOR = Draft202012Validator(config_schema())


def test_it_is_a_schema_with_a_title_and_a_line_for_every_key() -> None:
    schema = config_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == "spikebench configuration"
    loss = schema["$defs"]["CeSpikeSparsityLoss"]["properties"]
    assert loss["omega"]["description"] == "weight of the sparsity term"
    assert loss["omega"]["default"] == 1e-4
    assert loss["concentration_weight"] == {"deprecated": True, "description": "same as loss.c"}


@pytest.mark.parametrize("path", shipped_configs(), ids=lambda path: path.stem)
def test_the_shipped_configurations_keep_it(path: Path) -> None:
    VALIDATOR.validate(load_yaml(path).data)


@pytest.mark.parametrize(
    "data",
    [
        {"extends": "stal/srnn_digits", "encoder": {"time_steps": 3}},
        {"training.epochs": 3, "loss": {"omega": "${OMEGA:-1e-4}"}},
        {"training": {"epochs": "${EPOCHS}", "amp": "${AMP}", "deterministic": "${D}"}},
        {"encoder": {"name": "convstal", "l1_sz": 32}},
        {"optimizer": {"lr": 0.1}, "augmentation": {"crop_scale": [0.1, 1]}},
    ],
)
def test_it_accepts_what_a_file_may_say(data: dict[str, Any]) -> None:
    VALIDATOR.validate(data)


@pytest.mark.parametrize(
    "data",
    [
        {"trainin": {}},
        {"training": {"epoch": 3}},
        {"training": {"epochs": "ten"}},
        {"training": {"epochs": 0}},
        {"training": {"amp": "fp8"}},
        {"encoder": {"name": "stal", "hidden_channels": 3}},
        {"encoder": {"name": "stal", "kernel_size": 3, "l2_size": 3}},
        {"encoder": {"name": "sps", "l1_sz": 3}},
        {"augmentation": {"crop_scale": [0.1]}},
    ],
)
def test_it_marks_what_would_be_refused(data: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(data)
