"""JSON Schema of search space files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from configs.sources import load_yaml
from search_spaces.catalog import shipped_spaces
from search_spaces.json_schema import space_schema

VALIDATOR = Draft202012Validator(space_schema())
OBJECTIVES = [{"metric": "val_accuracy", "direction": "maximize"}]
OMEGA = {"type": "float", "low": 1e-6, "high": 5e-4}


def test_it_is_a_schema_that_offers_every_key_and_metric() -> None:
    schema = space_schema()
    Draft202012Validator.check_schema(schema)
    assert (
        schema["properties"]["parameters"]["properties"]["loss.omega"]["description"] == "weight of the sparsity term"
    )
    assert "val_spike_density" in schema["$defs"]["Objective"]["properties"]["metric"]["anyOf"][0]["enum"]


@pytest.mark.parametrize("path", shipped_spaces(), ids=lambda path: path.stem)
def test_the_shipped_spaces_keep_it(path: Path) -> None:
    VALIDATOR.validate(load_yaml(path).data)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"parameters": {"loss.concentration_weight": OMEGA}}, True),
        ({"budget": {"trials": "${TRIALS:-3}"}}, True),
        (
            {"parameters": {"training.seed": {"type": "int", "low": 1, "high": 2, "when": {"encoder.name": ["stal"]}}}},
            True,
        ),
        (
            {"parameters": {"training.seed": {"type": "int", "low": 1, "high": 2, "when": {"encoder.nam": ["stal"]}}}},
            False,
        ),
        ({"parameters": {"loss.omga": OMEGA}}, False),
        ({"parameters": {"loss.omega": {**OMEGA, "type": "real"}}}, False),
        ({"objectives": []}, False),
        ({"objectives": [{"metric": "val_accuracy", "direction": "up"}]}, False),
        ({"workers": {"count": "many"}}, False),
        ({"sampelr": {}}, False),
    ],
)
def test_it_marks_what_would_be_refused(changes: dict[str, Any], valid: bool) -> None:
    data = {"base": "stal/srnn_digits", "parameters": {"loss.omega": OMEGA}, "objectives": OBJECTIVES, **changes}
    assert VALIDATOR.is_valid(data) is valid
