"""`compat: thesis` sets the switches that a configuration leaves open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from yaml_texts import write

from configs.compat import QUIRKS
from configs.keys import has_key, known_keys
from configs.resolve import config_hash, from_dict, resolve, to_dict, with_params
from configs.schema import RunConfig

SRNN = {"name": "stal_srnn"}
STAL = {"name": "stal", "l1_size": 64, "l2_size": 64}
ALONE = {"name": "encoder_only"}

# A configuration that has the switch -> (default, published)
SWITCHES: dict[str, tuple[str, dict[str, Any], object, object]] = {
    "Q1": ("loss.embedding_layout", {"model": SRNN, "loss": {"name": "ce_ss"}}, "time_first", "as_is"),
    "Q2": ("loss.z_terms", {"model": ALONE, "encoder": {"hidden_channels": 4}}, "all", "last"),
    "Q3": ("loss.spike_layout", {"model": ALONE}, "pixel_first", "as_is"),
    "Q4": ("encoder.slot_order", {"model": SRNN, "encoder": STAL}, "time_major", "pixel_major"),
    "Q5": ("encoder.l2_size", {"model": ALONE, "encoder": {"name": "stal"}, "data": {"name": "mnist"}}, 784, 1),
    "Q6": ("encoder.threshold_passes", {"model": {"name": "stal_spikformer"}}, 2, 2),
    "Q8": ("encoder.variant", {"model": SRNN, "encoder": {"name": "latency"}}, "linear", "first_sample"),
}


def value(config: RunConfig, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("number", SWITCHES)
def test_an_open_switch_has_the_published_value_with_compat_thesis_only(number: str) -> None:
    key, values, default, published = SWITCHES[number]
    assert value(from_dict(values), key) == default
    assert value(from_dict({**values, "compat": "none"}), key) == default
    assert value(from_dict({**values, "compat": "thesis"}), key) == published


@pytest.mark.parametrize("number", [number for number in SWITCHES if number != "Q6"])
def test_what_a_file_says_stays(number: str) -> None:
    key, values, default, _ = SWITCHES[number]
    section, _, name = key.partition(".")
    given = values | {section: values.get(section, {}) | {name: default}}
    assert value(from_dict({**given, "compat": "thesis"}), key) == default


def test_one_pass_of_the_threshold_stays_too() -> None:
    values = {"model": {"name": "stal_spikformer"}, "encoder": {"threshold_passes": 1}, "compat": "thesis"}
    assert value(from_dict(values), "encoder.threshold_passes") == 1


def test_stal_alone_is_as_wide_as_the_image_has_channels() -> None:
    values = {"model": ALONE, "compat": "thesis", "encoder": {"name": "stal", "l1_size": 3072}}
    assert value(from_dict({**values, "data": {"name": "cifar10"}}), "encoder.l2_size") == 3
    classifier = {**values, "model": SRNN, "data": {"name": "cifar10"}, "encoder": {**values["encoder"], "l2_size": 96}}
    assert value(from_dict(classifier), "encoder.l2_size") == 96


def test_a_base_and_an_override_count_as_the_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {name: stal_srnn}\nencoder: {name: latency, variant: log}\n")
    path = write(tmp_path / "a.yaml", "extends: base\ncompat: thesis\nloss: {name: ce_ss}\n")
    config = resolve(path).config
    assert (config.encoder.variant, config.loss.embedding_layout) == ("log", "as_is")
    assert resolve(path, ["--loss.embedding_layout", "time_first"]).config.loss.embedding_layout == "time_first"
    assert resolve(path, ["--compat", "none"]).config.loss.embedding_layout == "time_first"


def test_a_configuration_written_out_is_read_back_unchanged() -> None:
    for compat in ("none", "thesis"):
        config = from_dict({**SWITCHES["Q4"][1], "compat": compat})
        assert from_dict(to_dict(config)) == config


def test_equal_switches_are_equal_runs() -> None:
    _, values, _, published = SWITCHES["Q1"]
    by_hand = values | {"loss": {"name": "ce_ss", "embedding_layout": published}}
    thesis = from_dict({**values, "compat": "thesis"})
    assert config_hash(thesis) == config_hash(from_dict(by_hand))
    assert config_hash(thesis) != config_hash(from_dict(values))


def test_parameters_may_change_what_is_compatible() -> None:
    config = from_dict(SWITCHES["Q1"][1])
    thesis = with_params(config, {"compat": "thesis"})
    assert thesis.loss.embedding_layout == "as_is"
    assert with_params(thesis, {"compat": "none"}) == config
    assert with_params(thesis, {"loss.omega": 2e-4}).loss.embedding_layout == "as_is"
    other = with_params(thesis, {"encoder.name": "stal", "encoder.l1_size": 64, "encoder.l2_size": 64})
    assert other.encoder.slot_order == "pixel_major"


@pytest.mark.parametrize("values", [{"loss": 3}, {"loss": ["x"]}, {"data": "mnist"}, {"model": None}])
def test_malformed_sections_are_left_to_the_schema(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        RunConfig.model_validate({"model": SRNN, "loss": {"name": "ce_ss"}, "compat": "thesis"} | values)


def test_the_table_names_keys_and_kinds_that_exist() -> None:
    keys = known_keys()
    assert [quirk.number for quirk in QUIRKS] == list(SWITCHES)
    for quirk in QUIRKS:
        section = quirk.key.partition(".")[0]
        assert all(has_key(quirk.key, kind) for kind in quirk.only[section])
        assert all(kinds <= set(keys[f"{name}.name"].values) for name, kinds in quirk.only.items())
        assert SWITCHES[quirk.number][0] == quirk.key


def test_the_documentation_lists_every_switch() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stal.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in re.findall(r"^\| Q\d .*$", page, re.MULTILINE)}
    assert sorted(rows) == [f"Q{number}" for number in range(1, 10)]
    for quirk in QUIRKS:
        assert f"`{quirk.key}`" in rows[quirk.number]
        assert str(quirk.published or 1) in rows[quirk.number]
