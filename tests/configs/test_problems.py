"""Problems and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.problems import ConfigError, Problem, Where, did_you_mean, mask_credentials, shown


def test_places_are_shown_from_the_working_folder() -> None:
    assert str(Where(Path.cwd() / "a" / "b.yaml", 3)) == "a/b.yaml:3"
    assert str(Where(Path("/elsewhere/b.yaml"))) == "/elsewhere/b.yaml"
    assert str(Where(None)) == "command line"
    assert str(Where(None, origin="parameters")) == "parameters"


def test_problems_come_once_and_in_the_order_of_their_lines() -> None:
    typed = Problem(Where(None), "of the command line")
    late, early = Problem(Where(Path("a.yaml"), 10), "late", "do this"), Problem(Where(Path("a.yaml"), 9), "early")
    error = ConfigError([typed, late, early, late])
    assert str(error) == "a.yaml:9: early\na.yaml:10: late (do this)\ncommand line: of the command line"


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("epoch", ["epochs", "seed"], "did you mean 'epochs'?"),
        ("los.omega", ["loss.omega", "loss.c"], "did you mean 'loss.omega'?"),
        ("a.learning_rate", ["optimizer.learning_rate"], "did you mean 'optimizer.learning_rate'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [str(number) for number in range(13)], ""),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_names_are_offered(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql+psycopg://me:s3cr3t@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("http://:s3cr3t@h and http://a:b@h", "http://:***@h and http://a:***@h"),
        ("http://a:s3/cr3t@h/x", "http://a:***@h/x"),
        ("postgresql://h/x?user=a&password=s3cr3t&y=1", "postgresql://h/x?user=a&password=***&y=1"),
        ("http://a:${PASSWORD}@h and http://h/?token=${TOKEN}", "http://a:${PASSWORD}@h and http://h/?token=${TOKEN}"),
        ("http://a:${PASSWORD:-s3cr3t}@h", "http://a:***@h"),
        ("sqlite:///runs/a.db", "sqlite:///runs/a.db"),
        ("http://user@host:80/a:b@c", "http://user@host:80/a:b@c"),
    ],
)
def test_passwords_of_urls_are_masked(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ten", "'ten'"),
        (True, "true"),
        (None, "null"),
        (1e-6, "1e-06"),
        ([1, "a"], '[1, "a"]'),
        ({"a": 1}, "a section"),
        ("x" * 100, "'" + "x" * 57 + "...'"),
        (["http://a:b@h"], '["http://a:***@h"]'),
        (float, "<class 'float'>"),
    ],
)
def test_values_are_shown_as_yaml_has_them(value: object, text: str) -> None:
    assert shown(value) == text
