"""Load a search space: read its file, resolve its base, check everything, and tell all problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from configs.aliases import canonical
from configs.explain import problems_of
from configs.layers import layer_of, layer_of_overrides, load_layers
from configs.overrides import parse_overrides
from configs.problems import ConfigError, Problem
from configs.resolve import Resolved, build
from configs.schema import RunConfig
from configs.sources import Source, load_yaml
from search_spaces.catalog import find_space
from search_spaces.check import SHIPPED_TRAINER, Parts, check_draws, check_metrics, check_parameters, holds
from search_spaces.space import CheckedSpace, Parameter, Space

T = TypeVar("T")
_PARAMETER: TypeAdapter[Parameter] = TypeAdapter(Parameter)


def load_space(source: str | Path, overrides: Sequence[str] = ()) -> CheckedSpace:
    """Read a search space and check everything about it that can be known without training.

    Args:
        source: a file, or the name of a shipped space.
        overrides: words of the command line, laid over the base configuration.

    Raises:
        ConfigError: with every problem of the space, its base and the overrides at once.
    """
    file = load_yaml(find_space(source))
    problems = list(file.problems)
    space = _read_space(file, problems)
    resolved = _resolve_base(file, overrides, problems)
    base = resolved.config if resolved else None
    parts = _read_parts(file, base, problems)
    problems.extend(check_parameters(parts, base))
    if file.data.get("trainer", SHIPPED_TRAINER) == SHIPPED_TRAINER:
        problems.extend(check_metrics(_metrics_of(file), file, base))
    if resolved:
        problems.extend(_fixed_and_searched(resolved, parts, file))
    if problems or space is None or base is None:
        raise ConfigError(problems)
    return _settled(space, base, parts, file)


def _read_space(file: Source, problems: list[Problem]) -> Space | None:
    data = {"name": file.path.stem if file.path else "", **file.data}
    try:
        return Space.model_validate(data)
    except ValidationError as error:
        problems.extend(problems_of(error, Space, file.where))
        return None


def _resolve_base(file: Source, overrides: Sequence[str], problems: list[Problem]) -> Resolved | None:
    typed = layer_of_overrides(parse_overrides(overrides, problems))
    name = file.data.get("base")
    if not isinstance(name, str):
        return None
    where = file.where("base")
    layers = load_layers(name, problems, where)
    if not layers:
        return None
    return build(layers, [layer_of(file.section("overrides"), problems), typed], problems, where)


def _read_parts(file: Source, base: RunConfig | None, problems: list[Problem]) -> Parts:
    """Read each parameter by itself, under its canonical key."""
    kinds = {"encoder": base.encoder.name} if base else {}
    written: dict[str, str] = {}
    parameters: dict[str, Parameter] = {}
    for name, raw in _mapping(file.data.get("parameters")).items():
        key = canonical(name, kinds)
        if key in written:
            where = file.where(("parameters", name))
            problems.append(Problem(where, f"parameters: '{written[key]}' and '{name}' are the same key"))
            continue
        written[key] = name
        parameter = _valid(_PARAMETER, raw)
        if parameter is not None:
            when = {canonical(other, kinds): values for other, values in parameter.when.items()}
            parameters[key] = parameter.model_copy(update={"when": when})
    return Parts(parameters, written, file)


def _metrics_of(file: Source) -> Iterator[tuple[str, int, str]]:
    for section in ("objectives", "constraints"):
        items = file.data.get(section)
        for index, item in enumerate(items if isinstance(items, list) else []):
            metric = _mapping(item).get("metric")
            if isinstance(metric, str):
                yield section, index, metric


def _fixed_and_searched(resolved: Resolved, parts: Parts, file: Source) -> Iterator[Problem]:
    """Yield the parameters that the space's overrides or the command line also give a fixed value."""
    for key, parameter in parts.parameters.items():
        place = resolved.places.get(key)
        if place is None or parameter.when:  # beside a condition, the fixed value is that of the other trials
            continue
        if place.file is None or place.file == file.path:
            hint = f"remove it from the parameters ({parts.where(key)}) to fix it"
            yield Problem(place, f"{key}: the space searches this key, it cannot be fixed as well", hint)


def _settled(space: Space, base: RunConfig, parts: Parts, file: Source) -> CheckedSpace:
    """Return the space with the conditions on fixed keys decided, checked by drawing from it."""
    where = file.where("parameters")
    parameters = dict(parts.parameters)
    while gone := [key for key, parameter in parameters.items() if not _possible(parameter, parameters, base)]:
        for key in gone:
            del parameters[key]
    if not parameters:
        raise ConfigError([Problem(where, "no parameter is active with this base", "see the conditions (`when`)")])
    for key, parameter in parameters.items():
        when = {other: values for other, values in parameter.when.items() if other in parameters}
        parameters[key] = parameter.model_copy(update={"when": when})
    checked = CheckedSpace(space.model_copy(update={"parameters": parameters}), base)
    problems = list(check_draws(checked, where))
    if problems:
        raise ConfigError(problems)
    return checked


def _possible(parameter: Parameter, parameters: Mapping[str, Parameter], base: RunConfig) -> bool:
    return all(other in parameters or holds(base, other, values) for other, values in parameter.when.items())


def _valid(adapter: TypeAdapter[T], raw: object) -> T | None:
    try:
        return adapter.validate_python(raw)
    except ValidationError:
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
