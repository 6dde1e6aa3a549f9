"""Loading a search space checks everything before a device is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_texts import told, write

from configs.problems import ConfigError
from search_spaces.load import load_space

TOP = """
base: base
parameters:
  loss.omega: {type: float, low: 1e-6, high: 5e-4, log: true}
"""
OBJECTIVES = """
objectives:
  - {metric: val_accuracy, direction: maximize}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small base configuration."""
    write(tmp_path / "base.yaml")
    return tmp_path


def problems_of(folder: Path, text: str, *overrides: str) -> list[str]:
    path = folder / "s.yaml"
    path.write_text(text.lstrip("\n"))
    with pytest.raises(ConfigError) as error:
        load_space(path, overrides)
    return told(error, folder)


def test_a_sound_space_is_complete(folder: Path) -> None:
    text = f"""{TOP}  loss.concentration_weight: {{type: float, low: 0.1, high: 10, log: true}}
overrides: {{training: {{epochs: 7}}, loss.label_smoothing: 0.1}}
objectives:
  - {{metric: val_accuracy, direction: maximize}}
  - {{metric: val_spike_density, direction: minimize}}
constraints:
  - {{metric: val_firing_rate.rlif1, max: 0.4}}
budget: {{trials: 12}}
"""
    checked = load_space(write(folder / "my_space.yaml", text), ["--training.batch_size", "32"])
    space, base = checked.space, checked.base
    assert space.name == "my_space"
    assert list(space.parameters) == ["loss.omega", "loss.c"]
    assert (base.training.epochs, base.training.batch_size, base.loss.label_smoothing) == (7, 32, 0.1)
    assert (space.sampler.name, space.sampler.seed, space.budget.trials, space.workers.count) == ("tpe", 42, 12, "auto")
    assert (space.max_failures_in_row, space.trainer, space.budget.hours) == (3, "trainers:train", None)


def test_three_mistakes_are_told_with_their_lines(folder: Path) -> None:
    text = """
base: base
parameters:
  loss.omga: {type: float, low: 1e-6, high: 5e-4}
  loss.c:
    type: float
    low: 10
    high: 0.1
  training.batch_size: {type: int, low: few, high: 64}
objectives:
  - {metric: val_accuracy, direction: maximize}
"""
    assert problems_of(folder, text) == [
        "s.yaml:3: parameters: the configuration has no key 'loss.omga' (did you mean 'loss.omega'?)",
        "s.yaml:6: parameters.loss.c.low: low (10) is greater than high (0.1)",
        "s.yaml:8: parameters.training.batch_size.low: expected an integer, got 'few'",
    ]


def test_mistakes_of_the_space_its_base_and_the_command_line_come_together(folder: Path) -> None:
    write(folder / "base.yaml", "model: {name: stal_srnn}\nloss: {name: ce_ss}\ntraining: {epochs: x}\n")
    text = f"{TOP}{OBJECTIVES}sampelr: {{name: tpe}}\noverrides: {{loss.d: 1}}\nbudget: {{trials: 0}}\n"
    assert problems_of(folder, text, "--data.val_fraction", "2") == [
        "base.yaml:3: training.epochs: expected an integer, got 'x'",
        "s.yaml:7: unknown key 'sampelr' (did you mean 'sampler'?)",
        "s.yaml:8: unknown key 'd' in 'loss' (known: c, embedding_layout, label_smoothing, name, omega)",
        "s.yaml:9: budget.trials: expected a number >= 1, got 0",
        "command line: data.val_fraction: expected a number < 1.0, got 2",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "training.seed: {type: integer, low: 1, high: 2}",
            "type: expected one of 'float', 'int', 'categorical', got 'integer' (did you mean 'int'?)",
        ),
        (
            "training.seed: {low: 1, high: 2}",
            "missing key 'parameters.training.seed.type' (one of 'float', 'int', 'categorical')",
        ),
        ("training.seed: {type: int, low: 1}", "missing key 'parameters.training.seed.high' (upper bound, included)"),
        (
            "training.seed: {type: int, low: 1, hihg: 2, high: 2}",
            "unknown key 'hihg' in 'parameters.training.seed' (did you mean 'high'?)",
        ),
        ("training.seed: {type: int, low: 0, high: 8, log: true}", "low: a logarithmic range expects low >= 1, got 0"),
        ("neuron.beta: {type: float, low: 0, high: 1, log: true}", "low: a logarithmic range expects low > 0, got 0"),
        ("training.seed: {type: int, low: 1, high: 8, log: true, step: 2}", "step: a logarithmic range has no step"),
        (
            "training.seed: {type: int, low: 1, high: 8, step: 3}",
            "step: high - low is no multiple of 3; the last value would be 7",
        ),
        (
            "neuron.beta: {type: float, low: 0.1, high: 0.75, step: 0.2}",
            "step: high - low is no multiple of 0.2; the last value would be 0.7",
        ),
        ("training.amp: {type: categorical, choices: []}", "choices: expected at least one value"),
        ("training.amp: {type: categorical, choices: [off, bf16, off]}", 'choices.2: "off" is given twice'),
        ("training.batch_size: {type: float, low: 1, high: 64}", "this key takes no float (use type: int)"),
        (
            "training.amp: {type: float, low: 1, high: 64}",
            "this key takes no float (use type: categorical with choices)",
        ),
        (
            "training.deterministic: {type: int, low: 0, high: 1}",
            "this key takes no int (use type: categorical with choices)",
        ),
        ("neuron.beta: {type: float, low: 0.1, high: 1.5}", "neuron.beta: expected a number <= 1.0, got 1.5"),
        ("training.epochs: {type: int, low: 0, high: 3}", "training.epochs: expected a number >= 1, got 0"),
        (
            "training.amp: {type: categorical, choices: [off, fp8]}",
            "training.amp: expected 'off', 'fp16' or 'bf16', got 'fp8'",
        ),
        ("encoder.name: {type: categorical, choices: [convstal, stl]}", "encoder.name: unknown kind 'stl'"),
        (
            "encoder.l2_size: {type: int, low: 8, high: 16}",
            "unknown key 'l2_size' in 'encoder' (it is a key of encoder 'stal', 'ancestor'; encoder.name is",
        ),
        (
            "encoder.surrogate.alpha: {type: int, low: 8, high: 16}",
            "the configuration has no key 'encoder.surrogate.alpha'",
        ),
        (
            "neuron.surrogate: {type: int, low: 8, high: 16}",
            "'neuron.surrogate' is a section, not a value (choose one of",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {encoder.nam: [stal]}}",
            "when: 'encoder.nam' is neither a parameter nor a key",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {encoder.name: [stl]}}",
            "when: 'encoder.name' never is \"stl\" (did you mean 'stal'",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {encoder.name: []}}",
            "when.encoder.name: expected at least one value",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {encoder.name: stal}}",
            "when.encoder.name: expected a list, got 'stal'",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {loss.omega: [1e-5]}}",
            "when: 'loss.omega' is a float parameter; a condition needs a categorical or int one",
        ),
        (
            "training.seed: {type: int, low: 1, high: 2, when: {training.seed: [1]}}",
            "training.seed: its conditions lead back to itself",
        ),
        (
            "training.processes: {type: categorical, choices: [1, 2]}",
            "parameters: training.processes is the same for all trials (set it in `overrides`)",
        ),
        ("data.batch_size: {type: int, low: 0, high: 8}", "training.batch_size: expected a number >= 1, got 0"),
        (
            "encoder.kernel_size: {type: int, low: 3, high: 4}",
            "encoder.kernel_size=4 do not fit together: encoder.kernel_size: expected an odd number",
        ),
    ],
)
def test_a_wrong_parameter_is_told_where_it_stands(folder: Path, line: str, message: str) -> None:
    found = problems_of(folder, f"{TOP}  {line}\n{OBJECTIVES}")
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("s.yaml:4: " if "do not fit" not in found[0] else "s.yaml:2: ")


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        ("", ["s.yaml: missing key 'objectives'"]),
        ("objectives: []\n", ["s.yaml:4: objectives: expected at least one objective"]),
        (
            "objectives:\n  - {metric: val_acc, direction: maximise}\n",
            [
                "s.yaml:5: objectives.0.direction: expected 'maximize' or 'minimize', got 'maximise'",
                "s.yaml:5: objectives.0.metric: unknown metric 'val_acc' (did you mean 'val_accuracy'",
            ],
        ),
        (
            "objectives:\n  - {metric: test_accuracy, direction: maximize}\n",
            ["s.yaml:5: objectives.0.metric: a search does not see 'test_accuracy'"],
        ),
        (
            OBJECTIVES + "  - metric: val_accuracy\n    direction: minimize\n",
            ["s.yaml:6: objectives.1.metric: 'val_accuracy' is given twice"],
        ),
        (
            OBJECTIVES + "constraints:\n  - {metric: val_loss}\n",
            ["s.yaml:7: constraints.0: expected `max`, `min` or both"],
        ),
        (
            OBJECTIVES + "constraints:\n  - {metric: val_loss, min: 2, max: 1}\n",
            ["s.yaml:7: constraints.0: min (2) is greater than max (1)"],
        ),
        (
            OBJECTIVES + "constraints:\n  - {metric: val_los, max: 1}\n",
            ["s.yaml:7: constraints.0.metric: unknown metric 'val_los' (did you mean 'val_loss'"],
        ),
        (
            OBJECTIVES + "workers: {count: many, threads: 0}\n",
            [
                "s.yaml:6: workers.count: expected an integer or 'auto', got 'many'",
                "s.yaml:6: workers.threads: expected a number >= 1 or 'auto', got 0",
            ],
        ),
        (
            OBJECTIVES + "sampler: {name: cmaes, seed: -1}\n",
            [
                "s.yaml:6: sampler.name: expected 'tpe', 'random', 'nsga2', 'qmc' or 'gp', got 'cmaes'",
                "s.yaml:6: sampler.seed: expected a number >= 0, got -1",
            ],
        ),
        (OBJECTIVES + "trainer: train\n", ["s.yaml:6: trainer: expected text that matches"]),
        (
            OBJECTIVES + "overrides: {loss.omega: 1e-4}\n",
            ["s.yaml:6: loss.omega: the space searches this key, it cannot be fixed as well (remove"],
        ),
        (OBJECTIVES + "name: a/b\n", ["s.yaml:6: name: expected text that matches"]),
    ],
)
def test_a_wrong_section_is_told_where_it_stands(folder: Path, lines: str, messages: list[str]) -> None:
    found = problems_of(folder, TOP + lines.lstrip("\n"))
    assert len(found) == len(messages)
    for problem, message in zip(sorted(found), sorted(messages), strict=True):
        assert problem.startswith(message)


def test_a_searched_key_cannot_be_fixed_on_the_command_line(folder: Path) -> None:
    found = problems_of(folder, TOP + OBJECTIVES, "loss.omega=1e-4")
    assert found[0].startswith("command line: loss.omega: the space searches this key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TOP.replace("base: base", "base: bse") + OBJECTIVES,
            "s.yaml:1: there is no file 'bse' and no shipped configuration",
        ),
        (TOP.replace("base: base\n", "") + OBJECTIVES, "s.yaml: missing key 'base'"),
        (TOP.replace("base: base", "base: 3") + OBJECTIVES, "s.yaml:1: base: expected text, got 3"),
        (
            "base: base\nparameters:\n" + OBJECTIVES,
            "s.yaml:2: parameters: expected a section of keys and values, got null",
        ),
        ("base: base\nparameters: {}\n" + OBJECTIVES, "s.yaml:2: parameters: expected a list of at least 1"),
        (TOP + OBJECTIVES + "base: b\n", "s.yaml:7: 'base' is given twice"),
    ],
)
def test_a_space_without_its_base_or_parameters_is_refused(folder: Path, text: str, message: str) -> None:
    found = problems_of(folder, text)
    assert any(problem.startswith(message) for problem in found), found


def test_two_names_of_one_parameter_are_refused(folder: Path) -> None:
    one = "{type: float, low: 1, high: 2}"
    text = f"{TOP}  loss.c: {one}\n  loss.concentration_weight: {one}\n"
    assert problems_of(folder, text + OBJECTIVES) == [
        "s.yaml:5: parameters: 'loss.c' and 'loss.concentration_weight' are the same key"
    ]


def test_conditions_in_a_circle_are_refused(folder: Path) -> None:
    text = f"""{TOP}  training.seed: {{type: int, low: 1, high: 2, when: {{training.epochs: [1]}}}}
  training.epochs: {{type: int, low: 1, high: 2, when: {{training.seed: [1]}}}}
{OBJECTIVES}"""
    assert [problem.split(": ", 1)[1] for problem in problems_of(folder, text)] == [
        "parameters.training.seed: its conditions lead back to itself",
        "parameters.training.epochs: its conditions lead back to itself",
    ]


def test_conditions_on_fixed_keys_are_decided_by_the_base(folder: Path) -> None:
    text = f"""{TOP}  encoder.kernel_size: {{type: categorical, choices: [3, 5], when: {{encoder.name: [convstal]}}}}
  encoder.l1_sz: {{type: int, low: 8, high: 16, when: {{encoder.name: [convstal], encoder.kernel_size: [5]}}}}
  encoder.slot_order: {{type: categorical, choices: [time_major, pixel_major], when: {{encoder.name: [stal]}}}}
  training.seed: {{type: int, low: 8, high: 16, when: {{encoder.slot_order: [pixel_major]}}}}
{OBJECTIVES}"""
    checked = load_space(write(folder / "s.yaml", text))
    assert {key: parameter.when for key, parameter in checked.space.parameters.items()} == {
        "loss.omega": {},
        "encoder.kernel_size": {},
        "encoder.hidden_channels": {"encoder.kernel_size": (5,)},
    }
    fixed = ["encoder.name=stal", "encoder.l1_size=64", "encoder.l2_size=64"]
    assert list(load_space(folder / "s.yaml", fixed).space.parameters) == [
        "loss.omega",
        "encoder.slot_order",
        "training.seed",
    ]


def test_a_space_whose_parameters_are_all_inactive_is_refused(folder: Path) -> None:
    text = f"""
base: base
parameters:
  encoder.l2_size: {{type: int, low: 8, high: 16, when: {{encoder.name: [stal]}}}}
{OBJECTIVES}"""
    assert problems_of(folder, text) == [
        "s.yaml:2: no parameter is active with this base (see the conditions (`when`))"
    ]


def test_a_space_over_an_encoder_alone_names_its_metrics(folder: Path) -> None:
    write(folder / "base.yaml", "model: {name: encoder_only}\nencoder: {hidden_channels: 8}\n")
    text = "base: base\nparameters:\n  encoder.drop_p: {type: float, low: 0, high: 0.5}\nobjectives:\n"
    found = problems_of(folder, text + "  - {metric: val_accuracy, direction: maximize}\n")
    assert len(found) == 1
    assert found[0].startswith("s.yaml:5: objectives.0.metric: a run of model 'encoder_only' reports no 'val_accuracy'")
    assert "it reports train_loss, val_loss, val_spike_density" in found[0]
    sound = load_space(write(folder / "s.yaml", text + "  - {metric: val_loss, direction: minimize}\n"))
    assert sound.base.loss.name == "multi_channel_encoder_loss"


def test_another_trainer_may_have_metrics_of_its_own(folder: Path) -> None:
    text = TOP + "objectives:\n  - {metric: val_energy, direction: minimize}\n"
    assert "unknown metric" in problems_of(folder, text)[0]
    assert (
        load_space(write(folder / "s.yaml", text + "trainer: my.package:train\n")).space.objectives[0].metric
        == "val_energy"
    )


def test_a_space_is_named_by_path_or_not_at_all(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shipped search space of that name \(did you mean 'stal_loss'\?\)"):
        load_space("stal_los")
    with pytest.raises(ConfigError, match="not YAML"):
        load_space(write(folder / "s.yaml", "a: [1\nb: 2"))
