"""Lay files and overrides on top of each other.

`extends`, dotted keys and aliases are resolved here, and the keys of a section are sorted out when its kind changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.aliases import canonical
from configs.catalog import find_config
from configs.fit import default_kinds
from configs.keys import has_key, sections, sections_with_kinds
from configs.overrides import Override
from configs.problems import ConfigError, Problem, Where, shown
from configs.sources import Source, load_yaml


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a layer: what it is, where it stands and the key it was written under."""

    value: object
    where: Where
    written: str


Layer = Mapping[str, Entry]  # dotted key -> entry; keys are as written until `merge` has resolved the aliases


def load_layers(name: str | Path, problems: list[Problem], where: Where | None = None) -> list[Layer]:
    """Read a configuration file and everything it extends.

    Args:
        name: path or shipped name.
        problems: every mistake that keeps a file or a key from being read is added.
        where: the place that named the file, or None for the command line.

    Returns:
        One layer for each file, the outermost base first.
    """
    layers: list[Layer] = []
    read: list[Path] = []
    while True:
        try:
            source = load_yaml(_next_file(name, where, read))
        except ConfigError as error:
            problems.extend(error.problems)
            return layers
        problems.extend(source.problems)
        layers.insert(0, layer_of(source, problems))
        if "extends" not in source.data:
            return layers
        name, where = str(source.data["extends"]), source.where("extends")


def _next_file(name: str | Path, where: Where | None, read: list[Path]) -> Path:
    path = find_config(name, where)
    if path.resolve() in read:
        circle = " -> ".join(file.name for file in [*read, path])
        raise ConfigError([Problem(where or Where(path), f"files extend each other in a circle: {circle}")])
    read.append(path.resolve())
    return path


def layer_of(source: Source, problems: list[Problem]) -> Layer:
    """Return what a file says as a layer; keys may be nested, dotted, or both.

    Args:
        source: the file.
        problems: one is added for each key that is given twice with different values.
    """
    data = {key: value for key, value in source.data.items() if key != "extends"}
    return collect(_entries(data, (), source), problems)


def layer_of_overrides(overrides: Iterable[Override]) -> Layer:
    """Return overrides as the topmost layer; a later one replaces an earlier one of the same key."""
    layer: dict[str, Entry] = {}
    for override in overrides:
        source = Source(None, {}, {override.key: override.where})
        for key, entry in _entries({override.key: override.value}, (), source):
            layer[key] = entry
    return layer


def merge(layers: Iterable[Layer], problems: list[Problem]) -> Layer:
    """Lay layers on top of each other; later ones win, key by key.

    Where a layer gives a section another kind (`encoder.name`), the keys of the layers below that only the old kind has
    are dropped.

    Args:
        layers: the lowest first.
        problems: one is added for each key that a layer gives under two names with different values.
    """
    merged: dict[str, Entry] = {}
    for layer in layers:
        old = _kinds(merged)
        plain = _renamed(layer, {}, problems)
        new = _kinds({**merged, **plain})
        for section in sections_with_kinds():
            if old[section] != new[section]:
                stale = [key for key in merged if key.startswith(f"{section}.") and _only_of(key, old, new)]
                for key in stale:
                    del merged[key]
        merged.update(_renamed(plain, new, problems))
    return merged


def nested(layer: Layer, problems: list[Problem]) -> dict[str, Any]:
    """Return a merged layer as nested plain data.

    Args:
        layer: dotted key -> entry.
        problems: one is added for each value given to a section, and for each key inside what is a value.
    """
    data: dict[str, Any] = {}
    for key, entry in layer.items():
        outer = next((prefix for prefix in _prefixes(key) if prefix in layer), None)
        if outer is not None and outer not in sections():
            problems.append(Problem(entry.where, f"unknown key '{key}'", f"'{outer}' is a value, it has no keys"))
        elif key in sections() and any(key in _prefixes(other) for other in layer):
            problems.append(Problem(entry.where, f"{key}: expected a section, got {shown(entry.value)}"))
        elif outer is None:
            _put(data, key, entry.value)
    return data


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for part in parents:
        data = data.setdefault(part, {})
    data[last] = value


def _entries(section: Mapping[str, object], path: tuple[str, ...], source: Source) -> Iterable[tuple[str, Entry]]:
    for name, value in section.items():
        inner = (*path, name)
        key = ".".join(inner)
        if isinstance(value, dict):
            yield from _entries(value, inner, source)
        elif value is not None or key not in sections():  # a section without a line in it says nothing
            yield key, Entry(value, source.where(key), key)


def collect(entries: Iterable[tuple[str, Entry]], problems: list[Problem]) -> Layer:
    """Return entries as a layer.

    Args:
        entries: (dotted key, entry).
        problems: one is added for each key that is given twice with different values.
    """
    layer: dict[str, Entry] = {}
    for key, entry in entries:
        first = layer.setdefault(key, entry)
        if first is not entry and first.value != entry.value:
            names = f"'{key}'"
            if first.written != entry.written:
                names = f"'{first.written}' and '{entry.written}' are the same key: it"
            problems.append(Problem(entry.where, f"{names} is given twice", f"first at {first.where}"))
    return layer


def _renamed(layer: Layer, kinds: Mapping[str, str | None], problems: list[Problem]) -> Layer:
    return collect(((canonical(key, kinds), entry) for key, entry in layer.items()), problems)


def _kinds(layer: Layer) -> dict[str, str | None]:
    def given(section: str) -> str | None:
        entry = layer.get(f"{section}.name")
        return entry.value if entry is not None and isinstance(entry.value, str) else None

    usual = default_kinds(given("model"), given("encoder"))
    return {section: given(section) or usual.get(section) for section in sections_with_kinds()}


def _only_of(key: str, old: Mapping[str, str | None], new: Mapping[str, str | None]) -> bool:
    section = key.partition(".")[0]
    return has_key(key, old[section]) and not has_key(key, new[section])
