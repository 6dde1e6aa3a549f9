"""Environment variables in configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.environment import expand
from configs.problems import Problem, Where
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
