"""Put environment variables into the strings of a configuration: `${VAR}` and `${VAR:-default}`."""

from __future__ import annotations

import os
import re

from configs.problems import ConfigError, Problem, Where, mask_credentials

SECRET_KEYS = frozenset({"mlflow_uri"})  # may hold a password: kept as written, and only read where they are used
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_INNER = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


def expand(text: str, where: Where, problems: list[Problem]) -> str | None:
    """Replace every `${VAR}` by the variable's value and `${VAR:-default}` by the default where VAR is unset or empty.

    Args:
        text: any string of a configuration.
        where: the place of the string, for a problem.
        problems: one is added for each unset variable without a default and each reference of another form.

    Returns:
        The text with its references replaced, or None when a problem was added.
    """
    before = len(problems)

    def value(match: re.Match[str]) -> str:
        inner = _INNER.fullmatch(match[1])
        if inner is None:
            problems.append(Problem(where, f"expected ${{NAME}} or ${{NAME:-default}}, got '{match[0]}'"))
            return ""
        given = os.environ.get(inner["name"])
        if inner["default"] is not None:
            return given or inner["default"]
        if given is None:
            problems.append(
                Problem(
                    where,
                    f"the environment variable {inner['name']} is not set",
                    f"export it, or give a default: ${{{inner['name']}:-value}}",
                )
            )
            return ""
        return given

    expanded = _REFERENCE.sub(value, text)
    if "${" in _REFERENCE.sub("", text):
        problems.append(
            Problem(where, f"'{mask_credentials(text)}' has a ${{ that is not closed, or is inside another")
        )
    return expanded if len(problems) == before else None


def keeps_references(key: str) -> bool:
    """Tell whether the value of a key stays as it is written, so that no secret is stored with the configuration.

    Args:
        key: dotted, or its last part.
    """
    return key.rpartition(".")[2] in SECRET_KEYS


def reveal(text: str, key: str) -> str:
    """Return the value of a key that keeps its references, with the environment's values; only for the moment of use.

    Args:
        text: the value as the configuration has it.
        key: the key, for a message.

    Raises:
        ConfigError: a variable is not set.
    """
    problems: list[Problem] = []
    value = expand(text, Where(None, origin=key), problems)
    if value is None:
        raise ConfigError(problems)
    return value
