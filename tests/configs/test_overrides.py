"""Overrides of the command line, in every style."""

from __future__ import annotations

import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs.overrides import parse_overrides
from configs.problems import Problem

PARTS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)
KEYS = st.lists(PARTS, min_size=1, max_size=3).map(".".join)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(string.ascii_letters + string.digits + " _-+/.,:;=#'\"[]{}&*!|>%@$~", max_size=20).filter(
        lambda t: "${" not in t
    ),
    st.lists(st.floats(0, 1), max_size=3),
)
STYLES = st.sampled_from(
    ["--{key} {text}", "--{key}={text}", "{key}={text}", "--set {key}={text}", "--set={key}={text}"]
)


def tokens_of(style: str, key: str, text: str) -> list[str]:
    head, _, tail = style.partition(" ")
    return [part.format(key=key, text=text) for part in (head, tail) if part]


def written(value: object) -> str:
    """Return a value as YAML on one line, all texts quoted, so that every text stands for itself."""
    text = yaml.safe_dump(value, default_style='"' if isinstance(value, str) else None, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


@given(st.lists(st.tuples(STYLES, KEYS.filter(lambda key: key != "set"), VALUES), max_size=5))
def test_what_is_written_in_any_mix_of_styles_is_read_back(items: list[tuple[str, str, object]]) -> None:
    problems: list[Problem] = []
    tokens = [token for style, key, value in items for token in tokens_of(style, key, written(value))]
    found = parse_overrides(tokens, problems)
    assert not problems
    assert [(override.key, override.value) for override in found] == [(key, value) for _, key, value in items]


@given(st.lists(st.text(string.printable, max_size=12), max_size=6))
def test_any_words_are_either_overrides_or_problems(tokens: list[str]) -> None:
    problems: list[Problem] = []
    found = parse_overrides(tokens, problems)
    assert len(found) + len(problems) <= max(len(tokens), 0)
    assert bool(found or problems) == bool(tokens)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (["--a.b", "-3"], -3),
        (["--a.b", "1e-4"], 1e-4),
        (["a.b=[0.9, 0.99]"], [0.9, 0.99]),
        (["a.b=null"], None),
        (["a.b="], None),
        (["a.b=x=y"], "x=y"),
        (["--a.b=--c"], "--c"),
        (["a.b=off"], "off"),
    ],
)
def test_values_are_typed_like_yaml(tokens: list[str], value: object) -> None:
    problems: list[Problem] = []
    assert [override.value for override in parse_overrides(tokens, problems)] == [value]
    assert not problems


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            ["--training.epochs"],
            "'--training.epochs' has no value (write --training.epochs VALUE or training.epochs=VALUE)",
        ),
        (["--training.epochs", "--loss.c", "3"], "'--training.epochs' has no value"),
        (["training.epochs", "3"], "'training.epochs' has no value"),
        (["3"], "'3' has no value (write KEY=VALUE)"),
        (["--set"], "'--set' has no value"),
        (["training..epochs=3"], "expected a dotted key such as training.epochs, got 'training..epochs'"),
    ],
)
def test_what_is_no_override_is_a_problem_of_the_command_line(tokens: list[str], message: str) -> None:
    problems: list[Problem] = []
    parse_overrides(tokens, problems)
    assert str(problems[0]).startswith(f"command line: {message}")
