"""Read parameters that a person chose, `key=value` by `key=value`, and find everything that is wrong with them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from configs.aliases import canonical
from configs.overrides import COMMAND_LINE
from configs.problems import ConfigError, Problem, did_you_mean, shown
from configs.sources import parse_value
from search_spaces.preview import Draw
from search_spaces.space import (
    CategoricalParameter,
    CheckedSpace,
    FloatParameter,
    IntParameter,
    Parameter,
    described,
)
from search_spaces.suggest import configure, suggest

TRIED_DRAWS = 32  # completions by random draws, one of which must make a valid configuration


def read_assignments(checked: CheckedSpace, words: Sequence[str]) -> dict[str, Any]:
    """Return chosen parameters by their dotted keys; those that are not chosen are left to the sampler.

    Args:
        checked: the space that the parameters are of.
        words: `key=value` each; a key may be shortened to an ending that no other parameter has.

    Raises:
        ConfigError: with every problem at once: unknown keys, values out of their range, conditions that are not met,
            values that make no valid configuration together.
    """
    problems: list[Problem] = []
    params: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        key = _key_of(name, checked)
        if not equals:
            problems.append(Problem(COMMAND_LINE, f"'{word}' has no value", f"write {key or 'KEY'}=VALUE"))
        elif key is None:
            hint = did_you_mean(name, list(checked.space.parameters))
            problems.append(Problem(COMMAND_LINE, f"the study does not search '{name}'", hint, name))
        elif key in params:
            problems.append(Problem(COMMAND_LINE, f"{key} is given twice", "", key))
        else:
            params[key] = _value(key, checked.space.parameters[key], text, problems)
    problems.extend(_unmet_conditions(checked.space.parameters, params))
    if not words:
        problems.append(Problem(COMMAND_LINE, "no parameter is given", "write KEY=VALUE, e.g. " + _example(checked)))
    problems = problems or list(_misfits(checked, params))
    if problems:
        raise ConfigError(problems)
    return params


def assigned(params: Mapping[str, Any]) -> list[str]:
    """Return parameters as the words that `read_assignments` reads."""
    return [f"{key}={_written(value)}" for key, value in params.items()]


def _written(value: object) -> str:
    plain = isinstance(value, str) and parse_value(value, COMMAND_LINE, []) == value
    return str(value) if plain else json.dumps(value)


def _key_of(name: str, checked: CheckedSpace) -> str | None:
    """Return the parameter that a name stands for: itself, an alias, or an ending that only one key has."""
    known = checked.space.parameters
    key = canonical(name, {"encoder": checked.base.encoder.name})
    if key in known:
        return key
    ending = [other for other in known if other.endswith("." + name)]
    return ending[0] if len(ending) == 1 else None


def _value(key: str, parameter: Parameter, text: str, problems: list[Problem]) -> Any:
    """Return the value of a text in the type of its parameter; a wrong one is added as a problem."""
    value: Any = parse_value(text, COMMAND_LINE, problems)
    if isinstance(parameter, CategoricalParameter):
        for choice in parameter.choices:
            if choice == value and type(choice) is type(value):
                return choice
        near = get_close_matches(text, [str(choice) for choice in parameter.choices], n=1)
        hint = f"did you mean '{near[0]}'?" if near else ""
    else:
        if _is_number(value) and _is_drawn(parameter, value):
            return int(value) if isinstance(parameter, IntParameter) else float(value)
        hint = _nearest(parameter, value) if _is_number(value) else ""
    problems.append(Problem(COMMAND_LINE, f"{key} expects {described(parameter)}, got {shown(value)}", hint, key))
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_drawn(parameter: FloatParameter | IntParameter, value: Any) -> bool:
    """Tell whether a sampler could draw a number: within the bounds, and on the grid where there is one."""
    if not parameter.low <= value <= parameter.high:
        return False
    return parameter.step is None or abs(value - _on_grid(parameter, value)) <= 1e-8 * parameter.step


def _on_grid(parameter: FloatParameter | IntParameter, value: float) -> float:
    step = parameter.step or 1
    return parameter.low + round((value - parameter.low) / step) * step


def _nearest(parameter: FloatParameter | IntParameter, value: Any) -> str:
    near = min(max(value, parameter.low), parameter.high)
    if parameter.step is not None:
        near = min(_on_grid(parameter, near), parameter.high)
    return f"the nearest is {near:g}"


def _unmet_conditions(parameters: Mapping[str, Parameter], params: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the given parameters that would not exist, or might not, with the others that are given."""
    for key in params:
        for other, values in parameters[key].when.items():
            wanted = " or ".join(shown(value) for value in values)
            if other not in params:
                message = f"{key} only exists where {other} is {wanted}, which is not given"
                yield Problem(COMMAND_LINE, message, f"give {other}={_text(values[0])} too", key)
            elif params[other] not in values:
                message = f"{key} only exists where {other} is {wanted}, got {shown(params[other])}"
                yield Problem(COMMAND_LINE, message, f"leave {key} out, or change {other}", key)


def _misfits(checked: CheckedSpace, params: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield why no completion of the given parameters makes a valid configuration."""
    draw = Draw(checked.space.sampler.seed)
    refusal: ConfigError | None = None
    for _ in range(TRIED_DRAWS):
        try:
            configure(checked, suggest(checked.space, _Chosen(draw, params)))
        except ConfigError as error:
            refusal = error
        else:
            return
    for problem in refusal.problems if refusal else ():
        message = f"these values make no valid configuration: {problem.message}"
        yield Problem(COMMAND_LINE, message, problem.hint, problem.key)


class _Chosen(Draw):
    """Draw what was not chosen."""

    def __init__(self, draw: Draw, params: Mapping[str, Any]) -> None:
        self._draw = draw
        self._params = params

    def suggest_float(
        self, name: str, /, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        given = self._params.get(name)
        return self._draw.suggest_float(name, low, high, step=step, log=log) if given is None else float(given)

    def suggest_int(self, name: str, /, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        given = self._params.get(name)
        return self._draw.suggest_int(name, low, high, step=step, log=log) if given is None else int(given)

    def suggest_categorical(self, name: str, /, choices: Sequence[Any]) -> Any:
        return self._params[name] if name in self._params else self._draw.suggest_categorical(name, choices)


def _example(checked: CheckedSpace) -> str:
    key, parameter = next(iter(checked.space.parameters.items()))
    return f"{key}={_text(parameter.choices[0] if isinstance(parameter, CategoricalParameter) else parameter.low)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else shown(value)
