"""The typed search space: every key of a space's YAML file, and the checked space that a study keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_serializer, field_validator, model_validator
from pydantic_core import PydanticCustomError

from configs.explain import problems_of
from configs.misfit import Misfit
from configs.problems import ConfigError, Where, mask_credentials, shown
from configs.resolve import canonical_hash, from_dict, to_dict
from configs.schema import Count, Positive, RunConfig, Section

Scalar = bool | int | float | str | None
MAX_SEED = 2**32 - 1
AT_LEAST_ONE: dict[str, Any] = {"minItems": 1}  # for editors; pydantic's own check would count a wrong item as none


class ParameterBase(Section):
    """Keys that every parameter has."""

    when: dict[str, tuple[Scalar, ...]] = Field(
        default_factory=dict,
        description="dotted key -> values: the parameter only exists where each key has one of its",
    )

    @field_validator("when", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: tuple(values) if isinstance(values, list) else values for key, values in value.items()}

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        found = list(self._flaws())
        if found:
            text = "; ".join(misfit.message for misfit in found)
            raise PydanticCustomError("misfit", "{text}", {"text": text, "misfits": found})
        return self

    def _flaws(self) -> Iterator[Misfit]:
        return iter(())


class FloatParameter(ParameterBase):
    """A real number between two bounds."""

    type: Literal["float"]
    low: float = Field(description="lower bound, included")
    high: float = Field(description="upper bound, included")
    log: bool = Field(False, description="draw evenly on the logarithmic scale")
    step: Positive | None = Field(None, description="distance of the values; null takes every number")

    def _flaws(self) -> Iterator[Misfit]:
        yield from _range_flaws(self.low, self.high, self.log, smallest=0.0)
        if self.step is None or self.low > self.high:
            return
        if self.log:
            yield Misfit("step", "a logarithmic range has no step; remove `log` or `step`")
        steps = (self.high - self.low) / self.step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            last = self.low + math.floor(steps) * self.step
            yield Misfit("step", f"high - low is no multiple of {self.step:g}; the last value would be {last:g}")


class IntParameter(ParameterBase):
    """A whole number between two bounds."""

    type: Literal["int"]
    low: int = Field(description="lower bound, included")
    high: int = Field(description="upper bound, included")
    log: bool = Field(False, description="draw evenly on the logarithmic scale")
    step: Count = Field(1, description="distance of the values")

    def _flaws(self) -> Iterator[Misfit]:
        yield from _range_flaws(self.low, self.high, self.log, smallest=1)
        if self.log and self.step != 1:
            yield Misfit("step", "a logarithmic range has no step; remove `log` or `step`")
        elif self.high > self.low and (self.high - self.low) % self.step:
            last = self.low + (self.high - self.low) // self.step * self.step
            yield Misfit("step", f"high - low is no multiple of {self.step}; the last value would be {last}")


def _range_flaws(low: float, high: float, log: bool, smallest: float) -> Iterator[Misfit]:
    if low > high:
        yield Misfit("low", f"low ({low:g}) is greater than high ({high:g})")
    if log and (low <= 0 or low < smallest):
        bound = f">= {smallest:g}" if smallest else "> 0"
        yield Misfit("low", f"a logarithmic range expects low {bound}, got {low:g}")


class CategoricalParameter(ParameterBase):
    """One of several values."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(
        description="the values, each a number, a text, a truth value or null", json_schema_extra=AT_LEAST_ONE
    )

    def _flaws(self) -> Iterator[Misfit]:
        if not self.choices:
            yield Misfit("choices", "expected at least one value")
        for index, choice in enumerate(self.choices):
            if choice in self.choices[:index]:
                yield Misfit(f"choices.{index}", f"{json.dumps(choice)} is given twice")


Parameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")]


class OfMetric(Section):
    """What is said about one metric."""

    metric: str = Field(description="metric of the last epoch")


class Objective(OfMetric):
    """A metric that the search betters."""

    direction: Literal["maximize", "minimize"] = Field(description="which way is better")


class Constraint(OfMetric):
    """Bounds that a metric should keep; trials that break them are not on the front."""

    max: float | None = Field(None, description="largest value that is still feasible")
    min: float | None = Field(None, description="smallest value that is still feasible")
    hard: bool = Field(False, description="a running trial that breaks it ends early, see `stop.constraint`")

    @model_validator(mode="after")
    def _has_bounds(self) -> Self:
        if self.max is None and self.min is None:
            raise ValueError("expected `max`, `min` or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is greater than max ({self.max:g})")
        return self

    def excess(self, value: float) -> float:
        """Return how far a value is beyond the nearer bound; zero or less where the constraint is kept."""
        above = -math.inf if self.max is None else value - self.max
        below = -math.inf if self.min is None else self.min - value
        return max(above, below)


class Rungs(Section):
    """Epochs at which a trial that is behind the others ends early (arXiv 1810.05934)."""

    first: Count = Field(1, description="epoch of the first rung; each next one is at `factor` times the epoch")
    factor: int = Field(3, ge=2, description="the best 1/factor of the trials that reached a rung go on")
    min_trials: Count = Field(5, description="trials that must have reached a rung before it ends any")


class HardConstraints(Section):
    """When a trial that breaks a hard constraint ends early."""

    grace: int = Field(1, ge=0, description="epochs at the start that do not count")
    epochs: Count = Field(1, description="epochs in a row in which the constraint must be broken")


class Stop(Section):
    """Rules that end trials early."""

    rungs: Rungs | None = Field(None, description="ends trials that are behind the others at the same epoch")
    constraint: HardConstraints | None = Field(None, description="ends trials that break a `hard` constraint")


class Sampler(Section):
    """How the parameters of the next trial are drawn."""

    name: Literal["tpe", "random", "nsga2", "qmc", "gp"] = Field("tpe", description="sampler of Optuna")
    seed: int = Field(42, ge=0, le=MAX_SEED, description="seed of the study: of every draw of every trial")
    startup_trials: Count = Field(10, description="trials drawn at random before tpe or gp use what was learned")


class Budget(Section):
    """How much a study may use."""

    trials: Count = Field(20, description="trials in the study, in total, over all workers and restarts")
    hours: Positive | None = Field(None, description="hours of all trials together, after which none is started")


class Workers(Section):
    """How many trials run at once, on this machine or on a Ray cluster."""

    count: Count | Literal["auto"] = Field("auto", description="trials at once; auto fills every GPU, or the cores")
    threads: Count | Literal["auto"] = Field("auto", description="CPU threads of each trial; auto shares the cores")
    per_gpu: Count | None = Field(None, description="trials at once on each GPU; null takes one")
    gpu_fraction: float | None = Field(
        None, gt=0.0, le=1.0, description="share of a GPU's memory for each trial; decides `per_gpu`"
    )

    @model_validator(mode="after")
    def _shares_once(self) -> Self:
        if self.per_gpu is not None and self.gpu_fraction is not None:
            raise ValueError("`per_gpu` and `gpu_fraction` say the same thing; remove one")
        return self


class Ray(Section):
    """What trials need of a Ray cluster, and where it is."""

    address: str = Field(
        "local",
        pattern=r"^(local|auto|[^/\s:]+:\d+)$",
        description="HOST:PORT of its head, auto for the one this machine is in; local starts one on this machine",
    )
    cpus: Positive | None = Field(None, description="CPUs of each trial; null takes `workers.threads`, or one")
    resources: dict[str, Positive] = Field(
        default_factory=dict, description="custom resource -> how much of it each trial takes"
    )

    @model_validator(mode="before")
    @classmethod
    def _gpus_are_those_of_the_processes(cls, values: Any) -> Any:
        """Take the key that studies of earlier versions have stored, always as 1."""
        if not isinstance(values, Mapping) or "gpus_per_trial" not in values:
            return values
        if (count := values["gpus_per_trial"]) != 1:
            raise ValueError(
                "gpus_per_trial follows from the configuration, with every executor: "
                f"set training.processes to {count} in `overrides`, and remove it here"
            )
        return {key: value for key, value in values.items() if key != "gpus_per_trial"}


class Checkpoints(Section):
    """How long the checkpoints of trials stay on disk."""

    keep: Literal["front", "all", "none"] = Field(
        "front", description="of ended trials: those on the front and the one that finished last, all, or none"
    )


class Space(Section):
    """A search space, the form of a YAML file of `search_spaces/`."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="name of the space and of its study; the file's by default")
    description: str = Field("", description="what the search is for")
    base: str = Field(description="configuration that holds everything that does not vary: a path or a shipped name")
    overrides: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value, laid over the base")
    parameters: dict[str, Parameter] = Field(min_length=1, description="dotted key -> what values it may take")
    objectives: tuple[Objective, ...] = Field(
        description="one metric, or several for a Pareto front", json_schema_extra=AT_LEAST_ONE
    )
    constraints: tuple[Constraint, ...] = Field((), description="bounds on metrics")
    stop: Stop = Stop()
    duplicates: Literal["replicate", "reuse"] = Field(
        "replicate", description="a configuration drawn again gets the next seed, or the result that is there"
    )
    sampler: Sampler = Sampler()
    budget: Budget = Budget()
    executor: Literal["local", "ray", "debug"] = Field(
        "local", description="what runs trials: processes of this machine, Ray, or this process itself, one by one"
    )
    workers: Workers = Workers()
    ray: Ray = Ray()
    checkpoints: Checkpoints = Checkpoints()
    max_failures_in_row: Count = Field(3, description="the study stops when so many trials fail one after another")
    trainer: str = Field(
        "trainers:train", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:function that trains one trial"
    )

    @field_serializer("overrides", when_used="json")
    def _without_passwords(self, overrides: dict[str, Any]) -> Any:
        """Keep passwords out of what is stored with a study; the base, which holds the same values, does so itself."""
        return json.loads(mask_credentials(json.dumps(overrides)))

    @field_validator("objectives")
    @classmethod
    def _has_objectives(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objectives:
            raise ValueError("expected at least one objective")
        return objectives

    @model_validator(mode="after")
    def _stop_is_sound(self) -> Self:
        if self.stop.constraint is not None and not any(constraint.hard for constraint in self.constraints):
            found = [Misfit("stop.constraint", "no constraint is hard; add `hard: true` to one, or remove this")]
            raise PydanticCustomError("misfit", "{text}", {"text": found[0].message, "misfits": found})
        return self


@dataclass(frozen=True)
class CheckedSpace:
    """A space that was found sound, with the base configuration resolved: all that a study needs.

    Args:
        space: parameters have their canonical keys, conditions refer to other parameters only, and parameters that this
            base can never activate are gone.
        base: the configuration that each trial's parameters are laid over.
    """

    space: Space
    base: RunConfig

    def to_json(self) -> str:
        """Return the whole as JSON, without any file it came from."""
        return json.dumps({"space": self.space.model_dump(mode="json"), "base": to_dict(self.base)})

    @classmethod
    def from_json(cls, text: str) -> CheckedSpace:
        """Return what `to_json` wrote.

        Raises:
            ConfigError: the text is of another version of the schema.
        """
        data = json.loads(text)
        try:
            space = Space.model_validate(data["space"])
        except ValidationError as error:
            place = Where(None, origin="stored search space")
            raise ConfigError(problems_of(error, Space, lambda _: place)) from None
        return cls(space, from_dict(data["base"]))

    @cached_property
    def space_hash(self) -> str:
        """SHA-256 of what decides which trials a study has and what they measure.

        The budget, the workers and the description may change from one start of a study to the next and are left out.
        """
        return canonical_hash(identity(self))


def identity(checked: CheckedSpace) -> dict[str, Any]:
    """Return the parts of a checked space that may not change while a study goes on, as plain data."""
    space = checked.space.model_dump(mode="json")
    base = to_dict(checked.base)
    del base["tracking"]
    return {
        key: space[key]
        for key in ("parameters", "objectives", "constraints", "stop", "duplicates", "sampler", "trainer")
    } | {"base": base}


def differences(old: CheckedSpace, new: CheckedSpace) -> list[str]:
    """Return one line for each difference that keeps a study of `old` from going on with `new`.

    Args:
        old: the space of the study.
        new: the space that was given now.
    """
    before, after = _by_name(old), _by_name(new)
    lines = []
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            lines.append(f"{name}: {before[name]} is gone")
        elif name not in before:
            lines.append(f"{name}: {after[name]} is new")
        elif before[name] != after[name]:
            lines.append(f"{name}: {before[name]} became {after[name]}")
    return lines


def described(parameter: Parameter) -> str:
    """Return a parameter in a few words: `float from 1e-06 to 0.0005, log`."""
    if isinstance(parameter, CategoricalParameter):
        text = "one of " + ", ".join(shown(choice) for choice in parameter.choices)
    else:
        text = f"{parameter.type} from {parameter.low:g} to {parameter.high:g}" + ", log" * parameter.log
        if parameter.step not in (None, 1):
            text += f", step {parameter.step:g}"
    for key, values in parameter.when.items():
        text += f", when {key} is " + " or ".join(shown(value) for value in values)
    return text


def _by_name(checked: CheckedSpace) -> dict[str, str]:
    """Return the identity of a space as one text for each thing that a message can name."""
    space, base = checked.space, identity(checked)["base"]
    named = {f"parameter {key}": described(parameter) for key, parameter in space.parameters.items()}
    named |= {f"objective {objective.metric}": objective.direction for objective in space.objectives}
    named["order of the objectives"] = ", ".join(objective.metric for objective in space.objectives)
    for item in space.constraints:
        named[f"constraint {item.metric}"] = f"from {shown(item.min)} to {shown(item.max)}" + ", hard" * item.hard
    named |= {f"stop.{key}": shown(value) for key, value in _flat(space.stop.model_dump(), "").items()}
    named |= {f"sampler.{key}": shown(value) for key, value in space.sampler.model_dump().items()}
    named["duplicates"] = shown(space.duplicates)
    named["trainer"] = shown(space.trainer)
    named |= {f"base {key}": shown(value) for key, value in _flat(base, "").items()}
    return named


def _flat(data: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
