from __future__ import annotations

from pathlib import Path

import pytest

from configs.overrides import COMMAND_LINE
from configs.problems import ConfigError
from configs.sources import parse_value
from search_spaces.assign import assigned, read_assignments
from search_spaces.load import load_space
from search_spaces.space import CheckedSpace

SPACE = """\
name: s
base: base.yaml
parameters:
  loss.omega: {type: float, low: 1e-6, high: 5e-4, log: true}
  loss.c: {type: float, low: 0.0, high: 1.0, step: 0.25}
  encoder.hidden_channels: {type: int, low: 8, high: 32, step: 8}
  encoder.kernel_size: {type: categorical, choices: [3, 5]}
  training.clip_grad_norm: {type: categorical, choices: [null, 1.0]}
  optimizer.name: {type: categorical, choices: [adamw, sgd]}
  optimizer.momentum: {type: float, low: 0.5, high: 0.99, when: {optimizer.name: [sgd]}}
objectives:
  - {metric: val_accuracy, direction: maximize}
"""


@pytest.fixture
def checked(tmp_path: Path) -> CheckedSpace:
    (tmp_path / "base.yaml").write_text("model: {name: stal_srnn}\nloss: {name: ce_ss}\n")
    (tmp_path / "s.yaml").write_text(SPACE)
    return load_space(tmp_path / "s.yaml")


def problems(checked: CheckedSpace, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_assignments(checked, words)
    return [str(problem) for problem in caught.value.problems]


def test_values_get_the_type_of_their_parameter(checked: CheckedSpace) -> None:
    words = ["loss.omega=1e-4", "loss.c=1", "encoder.hidden_channels=16", "encoder.kernel_size=5",
             "training.clip_grad_norm=null", "optimizer.name=sgd", "optimizer.momentum=0.9"]  # fmt: skip
    params = read_assignments(checked, words)
    assert params == {
        "loss.omega": 1e-4, "loss.c": 1.0, "encoder.hidden_channels": 16, "encoder.kernel_size": 5,
        "training.clip_grad_norm": None, "optimizer.name": "sgd", "optimizer.momentum": 0.9,
    }  # fmt: skip
    assert type(params["loss.c"]) is float


def test_a_key_may_be_an_alias_or_the_only_such_ending(checked: CheckedSpace) -> None:
    assert read_assignments(checked, ["omega=1e-4", "--kernel_size=3"]) == {
        "loss.omega": 1e-4,
        "encoder.kernel_size": 3,
    }
    assert read_assignments(checked, ["loss.concentration_weight=0.5"]) == {"loss.c": 0.5}


def test_every_mistake_is_told_at_once(checked: CheckedSpace) -> None:
    found = problems(checked, "loss.omegga=1", "loss.c=2", "kernel_size=4", "optimizer.momentum=0.9", "loss.omega")
    assert found == [
        "command line: the study does not search 'loss.omegga' (did you mean 'loss.omega'?)",
        "command line: loss.c expects float from 0 to 1, step 0.25, got 2 (the nearest is 1)",
        "command line: encoder.kernel_size expects one of 3, 5, got 4",
        "command line: 'loss.omega' has no value (write loss.omega=VALUE)",
        "command line: optimizer.momentum only exists where optimizer.name is 'sgd', which is not given "
        "(give optimizer.name=sgd too)",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.c=0.3"], "the nearest is 0.25"),
        (["encoder.hidden_channels=16.5"], "expects int from 8 to 32, step 8, got 16.5 (the nearest is 16)"),
        (["encoder.hidden_channels=99"], "the nearest is 32"),
        (["loss.omega=nan"], "expects float from 1e-06 to 0.0005, log, got"),
        (["loss.omega=true"], "got true"),
        (["loss.c=much"], "got 'much'"),
        (["optimizer.name=sdg"], "did you mean 'sgd'?"),
        (["optimizer.name=adamw", "optimizer.momentum=0.9"], "optimizer.name is 'sgd', got 'adamw'"),
        (["loss.c=0.5", "c=0.75"], "loss.c is given twice"),
        (["name=sgd", "training.batch_size=3"], "the study does not search 'training.batch_size'"),
        ([], "no parameter is given (write KEY=VALUE, e.g. loss.omega="),
    ],
)
def test_each_mistake_says_what_would_be_right(checked: CheckedSpace, words: list[str], message: str) -> None:
    (found,) = problems(checked, *words)
    assert message in found


def test_values_that_make_no_configuration_together_are_refused(checked: CheckedSpace) -> None:
    object.__setattr__(checked.space.parameters["encoder.kernel_size"], "choices", (3, 4))
    (found,) = problems(checked, "kernel_size=4")
    assert "these values make no valid configuration: encoder.kernel_size" in found


def test_parameters_are_written_as_they_are_read() -> None:
    params = {"loss.omega": 1.5e-05, "a": None, "b": True, "encoder.name": "stal", "n": 3, "text": "1"}
    words = assigned(params)
    assert words == ["loss.omega=1.5e-05", "a=null", "b=true", "encoder.name=stal", "n=3", 'text="1"']
    assert {word.partition("=")[0]: parse_value(word.partition("=")[2], COMMAND_LINE, []) for word in words} == params
