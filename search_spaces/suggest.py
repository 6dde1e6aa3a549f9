"""Draw the parameters of one trial, and make the configuration that is trained with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from configs.resolve import with_params
from configs.schema import RunConfig
from search_spaces.space import CheckedSpace, FloatParameter, IntParameter, Parameter, Space


class Suggests(Protocol):
    """Whatever draws values: a trial of Optuna, or `search_spaces.preview.Draw`."""

    def suggest_float(
        self, name: str, /, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from low to high."""

    def suggest_int(self, name: str, /, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number from low to high."""

    def suggest_categorical(self, name: str, /, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""


def suggest(space: Space, trial: Suggests) -> dict[str, Any]:
    """Draw every parameter that is active, in the order of the file; one that others depend on comes before them.

    Args:
        space: of a `CheckedSpace`, so that conditions refer to parameters only.
        trial: what draws; the dotted keys are the names of its parameters.

    Returns:
        Dotted key -> value; parameters whose conditions are not met are not in it.
    """
    params: dict[str, Any] = {}
    for key in drawing_order(space.parameters):
        parameter = space.parameters[key]
        if all(other in params and params[other] in values for other, values in parameter.when.items()):
            params[key] = _draw(key, parameter, trial)
    return params


def configure(checked: CheckedSpace, params: Mapping[str, object]) -> RunConfig:
    """Return the configuration of a trial: the space's base with the trial's parameters laid over it.

    Raises:
        ConfigError: the parameters do not fit together.
    """
    return with_params(checked.base, params)


def drawing_order(parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the keys in the order of the file, except that a parameter comes after those its conditions name.

    Args:
        parameters: without a circle of conditions.
    """
    order: dict[str, None] = {}

    def visit(key: str) -> None:
        for other in parameters[key].when:
            if other in parameters and other not in order:
                visit(other)
        order[key] = None

    for key in parameters:
        if key not in order:
            visit(key)
    return list(order)


def _draw(key: str, parameter: Parameter, trial: Suggests) -> Any:
    if isinstance(parameter, FloatParameter):
        return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    if isinstance(parameter, IntParameter):
        return trial.suggest_int(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    return trial.suggest_categorical(key, parameter.choices)
