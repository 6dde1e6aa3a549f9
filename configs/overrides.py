"""Overrides as they are typed: `--a.b 3`, `--a.b=3`, `a.b=3`, `--set a.b=3`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from configs.problems import Problem, Where
from configs.sources import parse_value

COMMAND_LINE = Where(None)
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


@dataclass(frozen=True, slots=True)
class Override:
    """One key set from outside the files.

    Args:
        key: dotted, as written (an alias is still an alias).
        value: typed as an unquoted YAML value is.
        where: what to call the place in a problem.
    """

    key: str
    value: object
    where: Where = COMMAND_LINE


def parse_overrides(tokens: Sequence[str], problems: list[Problem]) -> list[Override]:
    """Read overrides from the words of a command line.

    Args:
        tokens: the words; every style may be mixed with every other.
        problems: one is added for each word that is no override and each flag without a value.

    Returns:
        The overrides in the order given; later ones win.
    """
    found: list[Override] = []
    words = iter(_split(tokens, problems))
    for key, text in words:
        if not _KEY.fullmatch(key):
            problems.append(Problem(COMMAND_LINE, f"expected a dotted key such as training.epochs, got '{key}'"))
            continue
        found.append(Override(key, parse_value(text, COMMAND_LINE, problems, key)))
    return found


def _split(tokens: Sequence[str], problems: list[Problem]) -> Iterable[tuple[str, str]]:
    waiting = list(tokens)
    while waiting:
        word = waiting.pop(0)
        if word == "--set" and waiting:
            word = waiting.pop(0)
        elif word.startswith("--set="):
            word = word.removeprefix("--set=")
        flag = word.startswith("--")
        key, equals, text = word.removeprefix("--").partition("=")
        if equals:
            yield key, text
        elif flag and waiting and not waiting[0].startswith("--"):
            yield key, waiting.pop(0)
        else:
            hint = f"write --{key} VALUE or {key}=VALUE" if _KEY.fullmatch(key) else "write KEY=VALUE"
            problems.append(Problem(COMMAND_LINE, f"'{word}' has no value", hint))
