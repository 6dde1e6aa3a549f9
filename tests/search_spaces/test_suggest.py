"""Drawing the parameters of trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from configs.resolve import with_params
from configs.schema import RunConfig, StalEncoder
from search_spaces.preview import Draw, sample
from search_spaces.space import CheckedSpace, Space
from search_spaces.suggest import configure, drawing_order, suggest

BASE = RunConfig.model_validate({"model": {"name": "stal_srnn"}, "loss": {"name": "ce_ss"}})
PARAMETERS: dict[str, Any] = {
    "encoder.l1_size": {"type": "categorical", "choices": [32, 64], "when": {"encoder.name": ["stal"]}},
    "encoder.l2_size": {"type": "categorical", "choices": [32, 64], "when": {"encoder.l1_size": [64, 32]}},
    "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
    "encoder.name": {"type": "categorical", "choices": ["convstal", "stal", "rate"]},
    "encoder.hidden_channels": {
        "type": "int",
        "low": 2,
        "high": 64,
        "log": True,
        "when": {"encoder.name": ["convstal"]},
    },
    "encoder.time_steps": {"type": "int", "low": 2, "high": 8, "step": 2},
    "encoder.drop_p": {
        "type": "float",
        "low": 0,
        "high": 0.5,
        "step": 0.1,
        "when": {"encoder.name": ["stal", "convstal"]},
    },
}


def checked(parameters: dict[str, Any]) -> CheckedSpace:
    objectives = [{"metric": "val_accuracy", "direction": "maximize"}]
    data = {"name": "s", "base": "b", "parameters": parameters, "objectives": objectives}
    return CheckedSpace(Space.model_validate(data), BASE)


def test_a_parameter_comes_after_those_it_depends_on_and_else_in_the_order_of_the_file() -> None:
    assert drawing_order(checked(PARAMETERS).space.parameters) == [
        "encoder.name",
        "encoder.l1_size",
        "encoder.l2_size",
        "loss.omega",
        "encoder.hidden_channels",
        "encoder.time_steps",
        "encoder.drop_p",
    ]


def test_optuna_gets_dotted_names_and_the_ranges_of_the_file() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    seen: dict[str, Any] = {}
    for _ in range(20):
        trial = study.ask()
        params = suggest(checked(PARAMETERS).space, trial)
        assert params == trial.params
        seen |= trial.distributions
    assert seen == {
        "encoder.name": CategoricalDistribution(("convstal", "stal", "rate")),
        "encoder.l1_size": CategoricalDistribution((32, 64)),
        "encoder.l2_size": CategoricalDistribution((32, 64)),
        "loss.omega": FloatDistribution(1e-6, 5e-4, log=True),
        "encoder.hidden_channels": IntDistribution(2, 64, log=True),
        "encoder.time_steps": IntDistribution(2, 8, step=2),
        "encoder.drop_p": FloatDistribution(0, 0.5, step=0.1),
    }


@pytest.mark.parametrize("seed", range(30))
def test_only_active_parameters_are_drawn_and_the_rest_stays_as_in_the_base(seed: int) -> None:
    space = checked(PARAMETERS)
    params = suggest(space.space, Draw(seed))
    config = configure(space, params)
    kind = params["encoder.name"]
    expected = {
        "convstal": {"encoder.hidden_channels", "encoder.drop_p"},
        "stal": {"encoder.l1_size", "encoder.l2_size", "encoder.drop_p"},
        "rate": set(),
    }
    assert set(params) == {"encoder.name", "loss.omega", "encoder.time_steps"} | expected[kind]
    assert config.encoder.name == kind
    assert config.encoder.time_steps == params["encoder.time_steps"]
    if isinstance(config.encoder, StalEncoder):
        assert config.encoder.l1_size == params["encoder.l1_size"]
    assert config.training == BASE.training
    assert config == with_params(BASE, params)


def test_draws_keep_to_their_ranges_and_reach_their_ends() -> None:
    draw = Draw(3)
    assert {draw.suggest_int("a", 2, 8, step=2) for _ in range(100)} == {2, 4, 6, 8}
    assert {draw.suggest_int("a", 1, 3, log=True) for _ in range(100)} == {1, 2, 3}
    assert {round(draw.suggest_float("a", 0.0, 0.3, step=0.1), 9) for _ in range(100)} == {0.0, 0.1, 0.2, 0.3}
    logs = [draw.suggest_float("a", 1e-6, 5e-4, log=True) for _ in range(400)]
    assert all(1e-6 <= value <= 5e-4 for value in logs)
    middle = (1e-6 * 5e-4) ** 0.5
    assert 150 < sum(value < middle for value in logs) < 250
    assert all(0.5 <= draw.suggest_float("a", 0.5, 0.5) <= 0.5 for _ in range(3))


def test_samples_are_the_same_each_time_and_follow_the_seed() -> None:
    space = checked(PARAMETERS)
    assert sample(space, 3) == sample(space, 3)
    assert len({config.loss.model_dump()["omega"] for _, config in sample(space, 5)}) == 5
    other = space.space.model_copy(update={"sampler": space.space.sampler.model_copy(update={"seed": 1})})
    assert sample(CheckedSpace(other, BASE), 3) != sample(space, 3)
