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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stal/srn_digits.yaml", r"did you mean 'stal/srnn_digits'"),  # not mine.yaml, whose ending alone is alike
        ("mina.yaml", r"did you mean 'mine.yaml'\?"),
        ("zzz.yaml", r"\(shipped: qkformer/\*, sdt/\*, .*tim/\*\)"),
        ("sdt", r"'sdt' is a group of shipped names, expected one of them \(sdt/cifar10, .* and \d+ more\)"),
        ("full", r"'full' is a folder, expected a file or the name of a shipped .* \(name one of full/a.yaml\)"),
        ("empty", r"'empty' is a folder, .* \(there is no .yaml file in it\)"),
        (".", r"'\.' is a folder, .* \(name one of mine.yaml\)"),
    ],
)
def test_a_folder_a_group_and_a_wrong_name_are_told_apart(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml")
    write(tmp_path / "full" / "a.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=words):
        find_config(name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_sound(path: Path) -> None:
    resolve(path)
