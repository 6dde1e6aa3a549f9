"""What a check of several keys says, and how it reads plain data that may be incomplete or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Misfit:
    """Keys that do not go together: the one to change first, and why."""

    key: str
    message: str


def kind_of(section: object) -> str | None:
    """Return the `name` of a section given as plain data or as a model, or None where it has none."""
    name = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    return name if isinstance(name, str) else None


def positive_integer(section: Mapping[str, Any], key: str) -> int | None:
    """Return the value of a key where it is an integer above zero, else None."""
    value = section.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def number_pair(section: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """Return the value of a key where it is two numbers, else None."""
    value = section.get(key)
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(end, int | float) for end in value):
        return value[0], value[1]
    return None
