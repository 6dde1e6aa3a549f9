"""Reading YAML with lines, by the core schema of YAML 1.2."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.problems import ConfigError, Problem, Where
from configs.sources import load_yaml, parse_value, type_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1e-6", 1e-6),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-0.25", -0.25),
        ("010", 10),
        ("+3", 3),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("sigmoid", "sigmoid"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        (".", "."),
        ("-", "-"),
    ],
)
def test_scalars_are_typed_by_yaml_1_2(text: str, value: object) -> None:
    found = type_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    found = type_scalar(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_writes_is_read_back(value: float) -> None:
    assert type_scalar(repr(value)) == value


@given(st.integers())
def test_every_integer_is_read_back(value: int) -> None:
    assert type_scalar(str(value)) == value


def test_every_key_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "training:\n  epochs: 3\n  betas:\n    - 0.9\n    - 0.99\nloss: {name: ce_ss,\n  c: 2}\ndata.name: digits\n"
    )
    source = load_yaml(path)
    lines = {
        "training": 1,
        "training.epochs": 2,
        "training.betas.1": 5,
        "loss.name": 6,
        "loss.c": 7,
        "data.name": 8,
        "training.epochs.deeper": 2,
        "training.unknown": 1,
    }
    assert {key: source.where(key).line for key in lines} == lines
    assert source.where(("training", "betas", 0)) == Where(path, 4)
    assert source.where("model") == Where(path)


def test_quoted_values_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: '5e-4'\nb: \"true\"\nc: |\n  3\nd: 3 # not in it\n")
    assert load_yaml(path).data == {"a": "5e-4", "b": "true", "c": "3\n", "d": 3}


def test_a_key_given_twice_is_a_problem_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("training:\n  epochs: 3\n  seed: 1\n  epochs: 4\n")
    source = load_yaml(path)
    assert source.problems == [Problem(Where(path, 4), "'training.epochs' is given twice", f"first at {path}:2")]
    assert source.data == {"training": {"epochs": 3, "seed": 1}}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not YAML"),
        ("- 1\n- 2\n", 1, "key: value"),
        ("just text\n", 1, "key: value"),
    ],
)
def test_what_is_no_section_of_keys_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_yaml(path)
    assert error.value.problems[0].where == Where(path, line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x\n", "tags"),
        ("a: !!int '3'\n", "tags"),
        ("? [1, 2]\n: 3\n", "plain key"),
        ("a: &x\n  b: *x\n", "anchor"),
    ],
)
def test_yaml_that_configurations_do_not_use_is_a_problem(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    problems = load_yaml(path).problems
    assert [message in problem.message for problem in problems] == [True]
    assert problems[0].where.line


def test_an_anchor_may_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {b: 1}\nc: *x\n")
    assert load_yaml(path).data == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# only a remark\n")
    assert load_yaml(path).data == {}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("a: 1")
    with pytest.raises(
        ConfigError, match=r"digit\.yaml: there is no such file \(did you mean '.*digits\.yaml'"
    ) as error:
        load_yaml(tmp_path / "digit.yaml")
    assert error.value.problems[0].where.file == tmp_path / "digit.yaml"
    with pytest.raises(ConfigError, match="got a folder"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_yaml(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0.9, 1e-3]", [0.9, 1e-3]),
        ("{a: 1}", {"a": 1}),
        ("'3'", "3"),
        ("", None),
        ("@home", "@home"),
        ("[1,", "[1,"),
        ("sqlite:///runs/a.db", "sqlite:///runs/a.db"),
    ],
)
def test_one_value_is_read_as_yaml_or_kept_as_text(text: str, value: object) -> None:
    problems: list[Problem] = []
    assert parse_value(text, Where(None), problems) == value
    assert not problems
