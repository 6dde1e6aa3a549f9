"""The typed space and the checked space that a study keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.problems import ConfigError
from configs.resolve import with_params
from configs.schema import RunConfig
from search_spaces.space import CheckedSpace, Constraint, Space, Workers, differences

SPACE: dict[str, Any] = {
    "name": "small",
    "base": "stal/srnn_digits",
    "parameters": {
        "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
        "encoder.time_steps": {"type": "categorical", "choices": [2, 4, 8]},
        "training.seed": {"type": "int", "low": 1, "high": 9, "when": {"encoder.time_steps": [2, 4]}},
    },
    "objectives": [
        {"metric": "val_accuracy", "direction": "maximize"},
        {"metric": "val_spike_density", "direction": "minimize"},
    ],
    "constraints": [{"metric": "val_firing_rate", "max": 0.5}],
}
BASE = RunConfig.model_validate({"model": {"name": "stal_srnn"}, "loss": {"name": "ce_ss"}})


def checked(base: RunConfig = BASE, **changes: Any) -> CheckedSpace:
    return CheckedSpace(Space.model_validate({**SPACE, **changes}), base)


def parameters(**changes: dict[str, Any]) -> dict[str, Any]:
    renamed = {key.replace("__", "."): value for key, value in changes.items()}
    return {key: {**parameter, **renamed.get(key, {})} for key, parameter in SPACE["parameters"].items()}


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.text(max_size=5))


@given(
    st.lists(SCALARS, min_size=1, max_size=4, unique_by=lambda value: (str(value), value)),
    st.floats(1e-9, 1),
    st.floats(1, 1e6),
)
def test_what_is_stored_is_read_back_with_its_types(choices: list[Any], low: float, high: float) -> None:
    if any(one == other for index, one in enumerate(choices) for other in choices[:index]):
        return  # refused: 1 and true are equal
    given_parameters = {
        "a": {"type": "categorical", "choices": choices},
        "b": {"type": "float", "low": low, "high": high},
    }
    one = checked(parameters=given_parameters)
    again = CheckedSpace.from_json(one.to_json())
    assert again == one
    assert again.space_hash == one.space_hash
    found = again.space.parameters["a"].model_dump()["choices"]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in choices]


def test_passwords_are_not_stored() -> None:
    text = checked(overrides={"tracking": {"mlflow_uri": "http://a:s3cr3t@h"}, "training.epochs": 3}).to_json()
    assert "s3cr3t" not in text
    assert CheckedSpace.from_json(text).space.overrides == {
        "tracking": {"mlflow_uri": "http://a:***@h"},
        "training.epochs": 3,
    }


def test_the_stop_rules_belong_to_what_a_study_is() -> None:
    hard = [{"metric": "val_firing_rate", "max": 0.5, "hard": True}]
    other = checked(stop={"rungs": {"first": 2}}, constraints=hard)
    assert differences(checked(), other) == [
        "constraint val_firing_rate: from null to 0.5 became from null to 0.5, hard",
        "stop.rungs: null is gone",
        "stop.rungs.first: 2 is new",
        "stop.rungs.factor: 3 is new",
        "stop.rungs.min_trials: 5 is new",
    ]
    assert checked().space_hash != other.space_hash
    assert CheckedSpace.from_json(other.to_json()) == other


def test_a_rule_for_hard_constraints_needs_one() -> None:
    with pytest.raises(ValidationError, match="no constraint is hard"):
        checked(stop={"constraint": {"grace": 3}})


def test_the_order_of_the_parameters_survives() -> None:
    again = CheckedSpace.from_json(checked().to_json())
    assert list(again.space.parameters) == list(SPACE["parameters"])


def test_a_stored_space_of_another_version_is_refused() -> None:
    text = checked().to_json().replace('"objectives"', '"goals"')
    with pytest.raises(ConfigError, match=r"stored search space: (missing key 'objectives'|unknown key 'goals')"):
        CheckedSpace.from_json(text)


def test_what_may_change_between_two_starts_is_not_in_the_hash() -> None:
    one = checked()
    other = checked(
        with_params(BASE, {"tracking.mlflow": True}),
        budget={"trials": 99, "hours": 2},
        workers={"count": 3, "threads": 1},
        description="more",
        name="other",
        max_failures_in_row=9,
    )
    assert other.space_hash == one.space_hash
    assert differences(one, other) == []


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"parameters": parameters(loss__omega={"high": 1e-3})},
            ["parameter loss.omega: float from 1e-06 to 0.0005, log became float from 1e-06 to 0.001, log"],
        ),
        (
            {"parameters": parameters(encoder__time_steps={"choices": [2, 4]})},
            ["parameter encoder.time_steps: one of 2, 4, 8 became one of 2, 4"],
        ),
        (
            {"parameters": parameters(training__seed={"step": 2})},
            [
                "parameter training.seed: int from 1 to 9, when encoder.time_steps is 2 or 4 became "
                "int from 1 to 9, step 2, when encoder.time_steps is 2 or 4"
            ],
        ),
        (
            {"parameters": {key: value for key, value in SPACE["parameters"].items() if key != "encoder.time_steps"}},
            ["parameter encoder.time_steps: one of 2, 4, 8 is gone"],
        ),
        (
            {"objectives": SPACE["objectives"][::-1]},
            ["order of the objectives: val_accuracy, val_spike_density became val_spike_density, val_accuracy"],
        ),
        (
            {"objectives": SPACE["objectives"][:1]},
            [
                "objective val_spike_density: minimize is gone",
                "order of the objectives: val_accuracy, val_spike_density became val_accuracy",
            ],
        ),
        (
            {"constraints": [{"metric": "val_firing_rate", "max": 0.4}]},
            ["constraint val_firing_rate: from null to 0.5 became from null to 0.4"],
        ),
        ({"sampler": {"name": "random"}}, ["sampler.name: 'tpe' became 'random'"]),
        ({"trainer": "my:train"}, ["trainer: 'trainers:train' became 'my:train'"]),
    ],
)
def test_each_difference_of_two_spaces_is_named(changes: dict[str, Any], lines: list[str]) -> None:
    assert differences(checked(), checked(**changes)) == lines
    assert checked().space_hash != checked(**changes).space_hash
    assert len(differences(checked(**changes), checked())) == len(lines)


def test_differences_of_the_base_are_named_by_their_keys() -> None:
    other = with_params(BASE, {"training.epochs": 3, "encoder.name": "rate"})
    assert differences(checked(), checked(other)) == [
        "base encoder.name: 'convstal' became 'rate'",
        "base encoder.hidden_channels: 784 is gone",
        "base encoder.kernel_size: 3 is gone",
        "base encoder.drop_p: 0.1 is gone",
        "base encoder.alpha: 25.0 is gone",
        "base training.epochs: 10 became 3",
    ]


@pytest.mark.parametrize(
    ("bounds", "value", "excess"),
    [
        ({"max": 0.5}, 0.7, 0.2),
        ({"max": 0.5}, 0.5, 0.0),
        ({"min": 0.5}, 0.2, 0.3),
        ({"min": 0.1, "max": 0.5}, 0.4, -0.1),
    ],
)
def test_a_constraint_says_how_far_it_is_broken(bounds: dict[str, float], value: float, excess: float) -> None:
    assert Constraint.model_validate({"metric": "val_loss", **bounds}).excess(value) == pytest.approx(excess)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"per_gpu": 2, "gpu_fraction": 0.5}, "say the same thing"),
        ({"per_gpu": 0}, "greater than"),
        ({"gpu_fraction": 0.0}, "greater than 0"),
        ({"gpu_fraction": 1.1}, "less than or equal to 1"),
    ],
)
def test_gpus_are_shared_in_one_way_only(workers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Workers.model_validate(workers)
    assert Workers.model_validate({"gpu_fraction": 1.0}).per_gpu is None
