"""Finding configurations by path and by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_texts import write

from configs.catalog import ROOT, find_config, shipped_configs
from configs.problems import ConfigError, Where
from configs.resolve import resolve

SHIPPED = shipped_configs()


def test_shipped_configurations_are_found_by_name_with_and_without_ending() -> None:
    path = ROOT / "stal" / "srnn_digits.yaml"
    assert path in SHIPPED
    assert find_config("stal/srnn_digits") == find_config("stal/srnn_digits.yaml") == find_config(path) == path


def test_a_file_beside_the_one_that_names_it_comes_first(tmp_path: Path) -> None:
    mine = write(tmp_path / "stal" / "srnn_digits.yaml")
    named_in = Where(tmp_path / "top.yaml", 1)
    assert find_config("stal/srnn_digits", named_in) == mine
    assert (
        find_config("stal/srnn_digits", Where(tmp_path / "stal" / "top.yaml", 1)) == ROOT / "stal" / "srnn_digits.yaml"
    )


def test_a_wrong_name_gets_the_nearest_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shipped configuration of that name \(did you mean 'stal/srnn_digits'"):
        find_config("stal/srn_digits")
    write(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"\(did you mean '.*/mine.yaml'\?\)"):
        find_config(tmp_path / "mina.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_sound(path: Path) -> None:
    resolve(path)
