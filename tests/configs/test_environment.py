"""Environment variables in configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.environment import expand, reveal
from configs.problems import ConfigError, Problem, Where
from configs.resolve import from_dict, resolve, to_dict
from configs.sources import load_yaml

HERE = Where(Path("a.yaml"), 7)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB_HOME", "/data/mnist")
    monkeypatch.setenv("SB_EMPTY", "")
    monkeypatch.delenv("SB_UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${SB_HOME}", "/data/mnist"),
        ("${SB_HOME}/x-${SB_HOME:-y}", "/data/mnist/x-/data/mnist"),
        ("${SB_UNSET:-data}", "data"),
        ("${SB_EMPTY:-data}", "data"),
        ("${SB_EMPTY}", ""),
        ("${SB_UNSET:-}", ""),
        ("$SB_HOME costs 5$", "$SB_HOME costs 5$"),
    ],
)
def test_references_are_replaced(text: str, value: str) -> None:
    problems: list[Problem] = []
    assert expand(text, HERE, problems) == value
    assert not problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${SB_UNSET}", "SB_UNSET is not set"),
        ("${SB HOME}", "expected ${NAME}"),
        ("${SB_HOME:?must}", "expected ${NAME}"),
        ("${SB_HOME", "not closed"),
        ("${SB_UNSET:-${SB_HOME}}", "inside another"),
    ],
)
def test_what_cannot_be_replaced_is_a_problem_with_its_place(text: str, words: str) -> None:
    problems: list[Problem] = []
    assert expand(text, HERE, problems) is None
    assert words in problems[0].message
    assert problems[0].where == HERE


def test_an_unquoted_reference_is_typed_and_a_quoted_one_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SB_EPOCHS", "1e1")
    path = tmp_path / "a.yaml"
    path.write_text(
        "a: ${SB_EPOCHS}\nb: '${SB_EPOCHS}'\nc: [${SB_EPOCHS}, x]\n".replace("[$", "['$").replace("},", "}',")
    )
    assert load_yaml(path).data == {"a": 10.0, "b": "1e1", "c": ["1e1", "x"]}


def test_every_unset_variable_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: ${SB_UNSET}\nb: 2\nc:\n  - ${SB_UNSET}\n  - 3\n")
    source = load_yaml(path)
    assert [problem.where.line for problem in source.problems] == [1, 4]
    assert source.data == {"b": 2, "c": [3]}


def test_what_may_hold_a_secret_keeps_its_references_in_files_and_overrides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_PASSWORD", "s3cr3t")
    uri = "http://me:${MLFLOW_PASSWORD}@host"
    lines = (
        f"tracking: {{mlflow_uri: '{uri}'}}",
        f"tracking.mlflow_uri: {uri}",
        f'tracking: {{"mlflow_uri": "{uri}"}}',
    )
    for number, line in enumerate(lines):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"extends: stal/srnn_digits\n{line}\n")
        assert resolve(path).config.tracking.mlflow_uri == uri
    for words in ([f"--tracking.mlflow_uri={uri}"], ["--tracking", f"{{mlflow_uri: '{uri}'}}"]):
        config = resolve("stal/srnn_digits", words).config
        assert config.tracking.mlflow_uri == uri
        assert from_dict(to_dict(config)) == config
    assert reveal(uri, "tracking.mlflow_uri") == "http://me:s3cr3t@host"


def test_a_secret_whose_variable_is_not_set_is_a_problem_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("extends: stal/srnn_digits\ntracking.mlflow_uri: http://me:${NOT_SET_AT_ALL}@host\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: the environment variable NOT_SET_AT_ALL is not set"):
        resolve(path)
    with pytest.raises(ConfigError, match=r"tracking\.mlflow_uri: the environment variable NOT_SET_AT_ALL is not set"):
        reveal("http://me:${NOT_SET_AT_ALL}@host", "tracking.mlflow_uri")


def test_a_password_in_plain_text_is_left_out_of_what_is_stored() -> None:
    config = resolve("stal/srnn_digits", ["--tracking.mlflow_uri", "http://me:s3cr3t@host"]).config
    assert config.tracking.mlflow_uri == "http://me:s3cr3t@host"
    assert to_dict(config)["tracking"]["mlflow_uri"] == "http://me:***@host"
    assert "s3cr3t" not in config.model_dump_json()
