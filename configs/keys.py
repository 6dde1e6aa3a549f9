"""Every dotted key of the configuration, with the types it takes and the kinds of its section that have it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from configs.annotations import kinds, literals, models, plain_types
from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key.

    Args:
        key: dotted (`encoder.l1_size`).
        kinds: names of the kinds of the section that have it (`("stal",)`); () where the section has one kind only.
        types: plain Python types it takes.
        values: what it is limited to where it is a choice; () otherwise.
        description: one line from the schema.
    """

    key: str
    kinds: tuple[str, ...]
    types: frozenset[type]
    values: tuple[Any, ...]
    description: str


@cache
def known_keys() -> dict[str, KeyInfo]:
    """Return every key that some configuration can have, by its dotted name."""
    found: dict[str, KeyInfo] = {}
    for info in _walk(RunConfig, "", ()):
        other = found.get(info.key)
        found[info.key] = _joined(other, info) if other else info
    return found


@cache
def sections() -> frozenset[str]:
    """Return the dotted names of everything that holds keys itself (`training`, `neuron.surrogate`)."""
    return frozenset(section for key in known_keys() if (section := key.rpartition(".")[0]))


@cache
def sections_with_kinds() -> frozenset[str]:
    """Return the sections whose `name` chooses which keys they have."""
    return frozenset(name for name, field in RunConfig.model_fields.items() if len(models(field.annotation)) > 1)


def has_key(key: str, kind: str | None) -> bool:
    """Return whether a section of the given kind has the key; True for keys whose section has one kind only."""
    info = known_keys().get(key)
    return info is not None and (not info.kinds or kind in info.kinds)


def nearest_keys(key: str, limit: int = 3) -> str:
    """Return a hint naming the keys that an unknown one may stand for, or "".

    Args:
        key: dotted; its last part is compared with the last part of every key there is.
        limit: at most so many suggestions.
    """
    lasts = {known: known.rpartition(".")[2] for known in known_keys()}
    last = key.rpartition(".")[2]
    names = sorted(set(lasts.values()))
    near = [last] if last in names else difflib.get_close_matches(last, names, n=limit, cutoff=0.65)
    likely = [known for known, name in lasts.items() if name in near]
    likely.sort(key=lambda known: difflib.SequenceMatcher(None, key, known).ratio(), reverse=True)
    return f"did you mean {' or '.join(repr(known) for known in likely[:limit])}?" if likely else ""


def _walk(model: type[BaseModel], prefix: str, kinds_of_section: tuple[str, ...]) -> Iterator[KeyInfo]:
    for name, field in model.model_fields.items():
        held = models(field.annotation)
        key = f"{prefix}{name}"
        if not held:
            types, values = plain_types(field.annotation), literals(field.annotation)
            yield KeyInfo(key, kinds_of_section, types, values, field.description or "")
        for member in held:
            yield from _walk(member, f"{key}.", kinds(member) if len(held) > 1 else kinds_of_section)


def _joined(one: KeyInfo, other: KeyInfo) -> KeyInfo:
    return KeyInfo(
        one.key,
        tuple(dict.fromkeys(one.kinds + other.kinds)),
        one.types | other.types,
        tuple(dict.fromkeys(one.values + other.values)),
        one.description or other.description,
    )
