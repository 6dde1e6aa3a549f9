"""Check what a space means: its parameters against the configuration, its conditions, its metrics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.aliases import ALIASES_BY_KIND
from configs.keys import KeyInfo, known_keys, nearest_keys, sections
from configs.metrics import METRICS, is_metric, metrics_of
from configs.problems import ConfigError, Problem, Where, did_you_mean
from configs.resolve import refusals
from configs.schema import RunConfig
from configs.sources import Source
from search_spaces.preview import Draw
from search_spaces.space import (
    CategoricalParameter,
    CheckedSpace,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)
from search_spaces.suggest import configure, suggest

NARROW = "every combination must make a valid configuration: change the ranges, or add a condition (`when`)"
PROCESSES = "training.processes"  # decides how many GPUs each worker has
SHIPPED_TRAINER = "trainers:train"
MAX_CONTEXTS = 64  # combinations of conditions under which the values of a parameter are tried
TRIED_DRAWS = 64  # whole configurations drawn to see whether the parameters fit together


@dataclass(frozen=True)
class Parts:
    """The parts of a space that could be read, so that all of them are checked even where others could not.

    Args:
        parameters: canonical dotted key -> parameter.
        written: canonical dotted key -> the key as the file has it.
        source: the space's file.
    """

    parameters: Mapping[str, Parameter]
    written: Mapping[str, str]
    source: Source

    def where(self, key: str, *inner: str | int) -> Where:
        """Return the place of something inside a parameter."""
        return self.source.where(("parameters", self.written[key], *inner))


def check_parameters(parts: Parts, base: RunConfig | None) -> Iterator[Problem]:
    """Yield what is wrong with the parameters and their conditions.

    Args:
        parts: the space's parameters.
        base: the base configuration, or None where it could not be resolved; what needs it is left out then.
    """
    circles = _circles(parts.parameters)
    undecided = ALIASES_BY_KIND if base is None else {}
    yield from (_unknown(key, parts) for key in parts.written if key not in known_keys() and key not in undecided)
    for key, parameter in parts.parameters.items():
        yield from _check_conditions(key, parameter, parts)
        info = known_keys().get(key)
        if info is None:
            continue
        if key == PROCESSES:
            yield Problem(parts.where(key), f"parameters: {key} is the same for all trials", "set it in `overrides`")
        elif problem := _wrong_type(info, parameter, parts):
            yield problem
        elif base is not None and not circles:
            yield from _check_values(key, parameter, parts, base)
    for key in circles:
        yield Problem(parts.where(key, "when"), f"parameters.{key}: its conditions lead back to itself")


def check_metrics(named: Iterable[tuple[str, int, str]], source: Source, base: RunConfig | None) -> Iterator[Problem]:
    """Yield metrics that the shipped trainer does not report, or that come twice.

    Args:
        named: section (`objectives` or `constraints`), index in it, and the metric named there.
        source: the space's file.
        base: the base configuration, or None where it could not be resolved.
    """
    model = base.model.name if base else None
    seen: set[tuple[str, str]] = set()
    for section, index, metric in named:
        where, label = source.where((section, index, "metric")), f"{section}.{index}.metric"
        if metric.startswith("test_"):
            hint = "the test split is kept for `spikebench evaluate`; choose a val_ metric"
            yield Problem(where, f"{label}: a search does not see '{metric}'", hint)
        elif not is_metric(metric):
            yield Problem(where, f"{label}: unknown metric '{metric}'", did_you_mean(metric, [*METRICS]))
        elif not is_metric(metric, model):
            hint = f"it reports {', '.join(metrics_of(model))}"
            yield Problem(where, f"{label}: a run of model '{model}' reports no '{metric}'", hint)
        if (section, metric) in seen:
            yield Problem(where, f"{label}: '{metric}' is given twice")
        seen.add((section, metric))


def check_draws(checked: CheckedSpace, where: Where) -> Iterator[Problem]:
    """Yield the first combination of parameters that makes no valid configuration, among some that are drawn.

    Args:
        checked: a space whose parts are sound.
        where: the place of its parameters.
    """
    draw = Draw(checked.space.sampler.seed)
    for _ in range(TRIED_DRAWS):
        params = suggest(checked.space, draw)
        try:
            configure(checked, params)
        except ConfigError as error:
            drawn = ", ".join(f"{key}={value}" for key, value in params.items())
            for problem in error.problems:
                yield Problem(where, f"the values {drawn} do not fit together: {problem.message}", NARROW)
            return


def value_at(config: RunConfig, key: str) -> object:
    """Return the value of a dotted key; LookupError where this configuration has no such key."""
    value: Any = config
    for part in key.split("."):
        if part not in type(value).model_fields:
            raise LookupError(key)
        value = getattr(value, part)
    return value


def _unknown(key: str, parts: Parts) -> Problem:
    if key in sections():
        inner = ", ".join(known for known in known_keys() if known.rpartition(".")[0] == key)
        return Problem(parts.where(key), f"parameters: '{key}' is a section, not a value", f"choose one of {inner}")
    return Problem(parts.where(key), f"parameters: the configuration has no key '{key}'", nearest_keys(key))


def _wrong_type(info: KeyInfo, parameter: Parameter, parts: Parts) -> Problem | None:
    where = parts.where(info.key, "type")
    if isinstance(parameter, FloatParameter) and float not in info.types:
        hint = "use type: int" if int in info.types else "use type: categorical with choices"
    elif isinstance(parameter, IntParameter) and not {int, float} & info.types:
        hint = "use type: categorical with choices"
    else:
        return None
    return Problem(where, f"parameters.{info.key}: this key takes no {parameter.type}", hint)


def _check_conditions(key: str, parameter: Parameter, parts: Parts) -> Iterator[Problem]:
    for other, values in parameter.when.items():
        where = parts.where(key, "when")
        label = f"parameters.{key}.when"
        parent = parts.parameters.get(other)
        if parent is None and other not in known_keys():
            message = f"{label}: '{other}' is neither a parameter nor a key of the configuration"
            yield Problem(where, message, nearest_keys(other))
            continue
        if not values:
            yield Problem(where, f"{label}.{other}: expected at least one value")
        if isinstance(parent, FloatParameter):
            yield Problem(where, f"{label}: '{other}' is a float parameter; a condition needs a categorical or int one")
            continue
        for value in values:
            if not _can_be(value, parent, other):
                possible = _possible(parent, other)
                hint = did_you_mean(str(value), possible)
                yield Problem(where, f"{label}: '{other}' never is {json.dumps(value)}", hint)


def _can_be(value: Scalar, parent: Parameter | None, key: str) -> bool:
    if isinstance(parent, CategoricalParameter):
        return value in parent.choices
    if isinstance(parent, IntParameter):
        return isinstance(value, int) and value in range(parent.low, parent.high + 1, parent.step)
    allowed = known_keys()[key].values
    return not allowed or value in allowed


def _possible(parent: Parameter | None, key: str) -> list[str]:
    if isinstance(parent, IntParameter):
        return [f"{parent.low} to {parent.high}"]
    values = parent.choices if isinstance(parent, CategoricalParameter) else known_keys()[key].values
    return [str(value) for value in values]


def _check_values(key: str, parameter: Parameter, parts: Parts, base: RunConfig) -> Iterator[Problem]:
    """Try the ends of a range, or each choice, under every combination of the parameter's conditions."""
    told: set[str] = set()
    for context in itertools.islice(_contexts(key, parts.parameters, base), MAX_CONTEXTS):
        for inner, value in _edges(parameter):
            for problem in refusals(base, {**context, key: value}):
                if problem.key == key and problem.message not in told:
                    told.add(problem.message)
                    yield Problem(parts.where(key, *inner), f"parameters: {problem.message}", problem.hint)


def _edges(parameter: Parameter) -> list[tuple[tuple[str | int, ...], Scalar]]:
    if isinstance(parameter, CategoricalParameter):
        return [(("choices", index), choice) for index, choice in enumerate(parameter.choices)]
    return [(("low",), parameter.low), (("high",), parameter.high)]


def _contexts(key: str, parameters: Mapping[str, Parameter], base: RunConfig) -> Iterator[dict[str, Scalar]]:
    """Yield values of the parameters that a parameter's conditions name; none where a fixed key forbids it."""
    conditions = parameters[key].when
    fixed = {other: values for other, values in conditions.items() if other not in parameters}
    if not all(holds(base, other, values) for other, values in fixed.items()):
        return
    others = [other for other in conditions if other in parameters]
    for values in itertools.product(*(conditions[other] for other in others)):
        outer: dict[str, Scalar] = {}
        for other in others:
            outer |= next(_contexts(other, parameters, base), {})
        yield outer | dict(zip(others, values, strict=True))


def holds(base: RunConfig, key: str, values: Sequence[Scalar]) -> bool:
    """Return whether a key of the base configuration has one of the values."""
    try:
        return value_at(base, key) in values
    except LookupError:
        return False


def _circles(parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the parameters whose conditions lead back to themselves."""

    def reaches(start: str, key: str, seen: set[str]) -> bool:
        for other in parameters[key].when:
            if other == start:
                return True
            if other in parameters and other not in seen:
                seen.add(other)
                if reaches(start, other, seen):
                    return True
        return False

    return [key for key in parameters if reaches(key, key, set())]
