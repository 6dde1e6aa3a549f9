"""Resolve files and overrides to one complete configuration, or say everything that is wrong with them."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.compat import reopened
from configs.explain import problems_of
from configs.fit import misfits, with_partners
from configs.keys import has_key, known_keys, nearest_keys, sections_with_kinds
from configs.layers import Layer, layer_of_overrides, load_layers, merge, nested
from configs.legacy import Import
from configs.misfit import kind_of
from configs.overrides import parse_overrides
from configs.problems import ConfigError, Problem, Where, did_you_mean
from configs.schema import RunConfig

PARAMETERS = Where(None, origin="parameters")


@dataclass(frozen=True)
class Resolved:
    """A configuration and where its values came from.

    Args:
        config: complete and checked.
        data: what the files and overrides say, merged, without the defaults.
        places: dotted key -> where its value came from; keys that have their default are not in it; "" is the file.
    """

    config: RunConfig
    data: dict[str, Any]
    places: Mapping[str, Where] = field(default_factory=dict)

    def where(self, key: str) -> Where:
        """Return where the value of a dotted key came from, or the nearest section's place where it is a default."""
        return _nearest(self.places, key)


def resolve(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    model_config: str | Path | None = None,
    train_config: str | Path | None = None,
) -> Resolved:
    """Read a configuration.

    Args:
        source: a file or the name of a shipped configuration.
        overrides: words of the command line (`--training.epochs 3`, `training.epochs=3`); they win over the files.
        model_config: a file with the model's part, laid over `source`.
        train_config: a file with the training's part, laid over `model_config`.

    Raises:
        ConfigError: with every problem of the files and overrides at once.
    """
    problems: list[Problem] = []
    files = [name for name in (source, model_config, train_config) if name is not None]
    if not files:
        raise ConfigError([Problem(Where(None), "no configuration is given", "name a file or a shipped configuration")])
    layers = [layer for name in files for layer in load_layers(name, problems)]
    if not layers:
        raise ConfigError(problems)
    typed = layer_of_overrides(parse_overrides(overrides, problems))
    resolved = build(layers, [typed], problems, Where(Path(files[0])))
    if resolved is None or problems:
        raise ConfigError(problems)
    return resolved


def build(files: Iterable[Layer], overrides: Iterable[Layer], problems: list[Problem], root: Where) -> Resolved | None:
    """Merge layers and check the whole.

    Args:
        files: one layer for each file, the lowest first; those in the layout of the thesis are translated.
        overrides: what is laid over the files, the lowest first.
        problems: every mistake is added.
        root: the place of what no layer says.

    Returns:
        The configuration, or None when the merged layers are not a valid one.
    """
    thesis = Import(problems)
    merged = merge(thesis.layers(files, overrides), problems)
    data = nested(merged, problems)
    places = {"": root, **{key: entry.where for key, entry in merged.items()}}
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        problems.extend(_explained(error, data, places))
        return None
    if not problems:
        thesis.tell()
    return Resolved(config, data, places)


def with_params(config: RunConfig, params: Mapping[str, object]) -> RunConfig:
    """Return a configuration with other values for some keys.

    A section that gets another kind (`encoder.name`) keeps the values it shares with the new kind where they were not
    the old kind's defaults; all else gets the new kind's defaults. Another `compat` sets its switches anew.

    Args:
        config: the configuration to start from; it stays as it is.
        params: dotted key -> value.

    Raises:
        ConfigError: with every value that the schema refuses.
    """
    data = _changed(config, params)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explained(error, data, {"": PARAMETERS})) from None


def refusals(config: RunConfig, params: Mapping[str, object]) -> list[Problem]:
    """Return what `with_params` would refuse of each value by itself; whether values fit each other is left out."""
    data = _changed(config, params)
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        if all(detail["type"] != "misfit" for detail in error.errors(include_url=False)):
            return problems_of(error, RunConfig, lambda _: PARAMETERS, lambda key, near: _hint(key, near, data))
    return []


def _changed(config: RunConfig, params: Mapping[str, object]) -> dict[str, Any]:
    data = config.model_dump()
    if params.get("compat", config.compat) != config.compat:
        data = reopened(data)
    for section in sections_with_kinds():
        kind = params.get(f"{section}.name")
        if kind is not None and kind != data[section]["name"]:
            changed = getattr(config, section).model_dump(exclude_defaults=True)
            data[section] = {key: value for key, value in changed.items() if has_key(f"{section}.{key}", str(kind))}
    for key, value in params.items():
        _put(data, key, value)
    return data


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data that JSON and YAML can hold."""
    return config.model_dump(mode="json")


def from_dict(data: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that `to_dict` wrote.

    Raises:
        ConfigError: the data are of another version of the schema, or no configuration.
    """
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        places = {"": Where(None, origin="stored configuration")}
        raise ConfigError(_explained(error, dict(data), places)) from None


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 of a configuration, equal for equal runs however they are written.

    `tracking` is left out: it says where numbers go, not what they are; so is `compat`, whose switches are all there.
    """
    data = to_dict(config)
    del data["tracking"], data["compat"]
    return canonical_hash(data)


def canonical_hash(data: object) -> str:
    """Return the SHA-256 of plain data as JSON with sorted keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for part in parents:
        if not isinstance(data.get(part), dict):
            data[part] = {}
        data = data[part]
    data[last] = value


def _explained(error: ValidationError, data: dict[str, Any], places: Mapping[str, Where]) -> list[Problem]:
    """Return the problems of a refused configuration, those between its parts included."""

    def find(key: str) -> Where:
        return _nearest(places, key)

    def hint(key: str, siblings: Sequence[str]) -> str:
        return _hint(key, siblings, data)

    found = problems_of(error, RunConfig, find, hint)
    refused = {str(detail["loc"][0]) for detail in error.errors(include_url=False) if detail["loc"]}
    if "model" in refused:  # neuron and encoder follow from the model: their absence is not a mistake of its own
        found = [item for item in found if not item.message.startswith(("missing key 'neuron", "missing key 'encoder"))]
    if refused:
        other = [misfit for misfit in misfits(with_partners(data)) if misfit.key.partition(".")[0] not in refused]
        found += [Problem(find(misfit.key), f"{misfit.key}: {misfit.message}") for misfit in other]
    return found


def _hint(key: str, siblings: Sequence[str], data: Mapping[str, Any]) -> str:
    last = key.rpartition(".")[2]
    info = known_keys().get(key)
    if info is not None:
        root = key.partition(".")[0]
        owners = ", ".join(f"'{kind}'" for kind in info.kinds)
        return f"it is a key of {root} {owners}; {root}.name is '{kind_of(with_partners(data).get(root))}'"
    if difflib.get_close_matches(last, siblings):
        return did_you_mean(last, siblings)
    return nearest_keys(key) or did_you_mean(last, siblings)


def _nearest(places: Mapping[str, Where], key: str) -> Where:
    while key and key not in places:
        inside = next((place for other, place in places.items() if other.startswith(f"{key}.")), None)
        if inside is not None:
            return inside
        key = key.rpartition(".")[0]
    return places[key]
