"""What a check of this machine or of a database has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a thing is: `wrong` keeps searches from running as they should, `note` is worth knowing."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        topic: what was looked at.
        health: how it is.
        found: what was found, in words.
        advice: what to do about it; empty when it is well.
    """

    topic: str
    health: Health
    found: str
    advice: str = ""
