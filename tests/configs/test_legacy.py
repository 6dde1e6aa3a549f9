"""Files of the STAL thesis load as they are: every key arrives, every other is a mistake with its line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yaml_texts import told, write

from configs.keys import known_keys
from configs.legacy import is_thesis
from configs.legacy_keys import CONVERTED, OLD_KEYS, RECIPE, RENAMED, RENAMED_ALONE, WITHOUT_EFFECT
from configs.problems import ConfigError
from configs.resolve import resolve
from configs.schema import RunConfig
from search_spaces.load import load_space

FILES = Path(__file__).parent / "thesis"
SPIKFORMER = {"name": "stal_spikformer", "embed_dims": 128, "num_heads": 4, "mlp_ratio": 4.0, "depth": 6}
SRNN = {"name": "stal_srnn", "hidden_size": 56}
CONVSTAL = {"name": "convstal", "hidden_channels": 784, "kernel_size": 3, "drop_p": 0.1}
STALPS = {"name": "stalps", "threshold_passes": 2}
WINDOWS = "C:\\Users\\someone\\thesis\\data"


def tracking(logger: str, project: str, **others: bool) -> dict[str, Any]:
    return {logger: True, "wandb_project": project, "mlflow_experiment": project, **others}


RSNN = tracking("wandb", "thesis_rsnn")
SPIKFORMER_LOG = tracking("wandb", "thesis_spikformer")
ENCODERS_LOG = tracking("mlflow", "thesis_encoders")


def ce_ss(omega: float, c: float, layout: str) -> dict[str, Any]:
    return {"name": "ce_ss", "omega": omega, "c": c, "embedding_layout": layout}


EXPECTED: dict[str, dict[str, Any]] = {
    "train_spikformer": {
        "model": SPIKFORMER,
        "encoder": STALPS,
        "data": {"name": "mnist", "data_dir": WINDOWS},
        "training": {"batch_size": 64},
        "tracking": SPIKFORMER_LOG,
    },
    "spikformer_mnist": {
        "model": SPIKFORMER,
        "encoder": STALPS,
        "loss": ce_ss(0.000309, 0.679316, "time_first"),
        "data": {"name": "mnist", "data_dir": WINDOWS},
        "training": {"batch_size": 64},
        "tracking": SPIKFORMER_LOG,
    },
    "spikformer_cifar10": {
        "model": SPIKFORMER,
        "encoder": STALPS,
        "loss": ce_ss(0.000309, 0.280315, "time_first"),
        "data": {"name": "cifar10", "data_dir": WINDOWS},
        "training": {"batch_size": 64},
        "tracking": SPIKFORMER_LOG,
    },
    "srnn_convstal_mnist": {
        "model": SRNN,
        "encoder": CONVSTAL,
        "loss": ce_ss(0.000138, 0.126446, "as_is"),
        "data": {"name": "mnist", "data_dir": "./data"},
        "tracking": RSNN,
    },
    "srnn_convstal_cifar10": {
        "model": SRNN,
        "encoder": CONVSTAL,
        "loss": ce_ss(0.000035, 0.627759, "as_is"),
        "data": {"name": "cifar10", "data_dir": "./data"},
        "tracking": RSNN,
    },
    "srnn_stal_cifar10": {
        "model": SRNN,
        "encoder": {"name": "stal", "l1_size": 3072, "l2_size": 3072, "drop_p": 0.1, "slot_order": "pixel_major"},
        "data": {"name": "cifar10", "data_dir": "./data"},
        "tracking": RSNN,
    },
    "srnn_latency_mnist": {
        "model": SRNN,
        "encoder": {"name": "latency", "variant": "first_sample"},
        "data": {"name": "mnist", "data_dir": "./data"},
        "tracking": RSNN,
    },
    "optimize_srnn_mnist": {
        "model": SRNN,
        "encoder": CONVSTAL,
        "loss": {"name": "ce_ss", "embedding_layout": "as_is"},
        "data": {"name": "mnist", "data_dir": "./data"},
        "tracking": tracking("wandb", "thesis_hyperparameter_search_srnn_mnist", wandb_offline=True),
    },
    "conv_stal_mnist": {
        "model": {"name": "encoder_only"},
        "encoder": {**CONVSTAL, "hidden_channels": 32},
        "loss": {"name": "multi_channel_encoder_loss", "z_terms": "last", "spike_layout": "as_is"},
        "data": {"name": "mnist", "data_dir": "./data"},
        "tracking": ENCODERS_LOG,
    },
    "stal_mnist": {
        "model": {"name": "encoder_only"},
        "encoder": {"name": "stal", "l1_size": 784, "l2_size": 1, "drop_p": 0.1},
        "loss": {"name": "encoder_loss", "z_terms": "last"},
        "data": {"name": "mnist", "data_dir": "./data"},
        "tracking": ENCODERS_LOG,
    },
}
SMALL = """
    model:
      name: srnn
      lif_beta: 0.9
      l1_sz: 56
      encoder: {name: convstal, l1_sz: 8}
    data: {dataset: mnist}
    training:
      loss: {name: cross_entropy}
"""


def changed(change: Callable[[str], str]) -> str:
    return change((FILES / "srnn_convstal_mnist.yaml").read_text())


def test_every_file_has_its_expectation() -> None:
    assert {path.stem for path in FILES.glob("*.yaml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_of_the_thesis_means_what_its_code_did(name: str) -> None:
    config = resolve(FILES / f"{name}.yaml").config
    assert config.model_dump(exclude={"compat"}) == RunConfig.model_validate(EXPECTED[name]).model_dump(
        exclude={"compat"}
    )
    assert config.compat == "thesis"


@pytest.mark.parametrize("name", EXPECTED)
def test_what_their_code_had_fixed_is_filled_in(name: str) -> None:
    config = resolve(FILES / f"{name}.yaml").config
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adamw", 1e-3, 0.01)
    assert optimizer.decay_bias_and_norm
    assert (schedule.name, schedule.step_epochs, schedule.gamma, schedule.warmup_epochs) == ("step", 4, 0.2, 0)
    assert (config.training.seed, config.training.epochs, config.encoder.time_steps) == (42, 10, 5)
    assert (config.data.split_seed, getattr(config.data, "val_fraction", None)) == (42, 0.2)
    assert getattr(config.neuron, "beta", 0.9) == 0.9
    assert getattr(config.neuron, "v_threshold", 1.0) == 1.0


def test_the_file_wins_over_what_their_code_had_fixed(tmp_path: Path) -> None:
    text = SMALL.replace("{dataset: mnist}", "{dataset: mnist, seed: 3}")
    resolved = resolve(write(tmp_path / "a.yaml", text))
    assert resolved.config.data.split_seed == 3
    assert resolved.where("data.split_seed").line == 6
    assert str(resolved.places["schedule.gamma"]) == str(tmp_path / "a.yaml")


def test_the_example_of_the_original_readme_runs() -> None:
    words = ["--model.learning_rate", "0.002", "--training.batch_size", "32", "--training.epochs", "100"]
    resolved = resolve(FILES / "train_spikformer.yaml", words)
    config = resolved.config
    assert (config.training.batch_size, config.training.epochs) == (32, 100)
    assert config.optimizer.learning_rate == 0.002
    assert str(resolved.where("optimizer.learning_rate")) == "command line"


def test_the_learning_rate_reaches_the_optimiser() -> None:
    import torch

    from trainers.optimisation import make_optimizer

    config = resolve(FILES / "train_spikformer.yaml", ["--model.learning_rate", "0.002"]).config
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.002, 0.01)]


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--training.loss.omega", "1e-5"], "loss.omega", 1e-5),
        (["--training.loss.c", "2"], "loss.c", 2.0),
        (["--training.loss.concentration_weight=2"], "loss.c", 2.0),
        (["--model.encoder.l1_sz", "16"], "encoder.hidden_channels", 16),
        (["--model.encoder.n_spikes_per_timestep", "3"], "encoder.time_steps", 3),
        (["--model.n_spikes_per_timestep", "3"], "encoder.time_steps", 3),
        (["--model.lif_beta", "0.5"], "neuron.beta", 0.5),
        (["--model.l1_sz", "28"], "model.hidden_size", 28),
        (["--model.encoder.freeze_weights", "true"], "encoder.freeze", True),
        (["--model.encoder.checkpoint_path", "w.cpkt"], "encoder.checkpoint", "w.cpkt"),
        (["--data.batch_size", "16"], "training.batch_size", 16),
        (["--data.num_workers", "2"], "data.workers", 2),
        (["--data.data_dir", "there"], "data.data_dir", "there"),
        (["--data.dataset", "cifar10"], "data.name", "cifar10"),
        (["--data.seed", "7"], "data.split_seed", 7),
        (["--data.train_split", "0.85"], "data.val_fraction", 0.15),
        (["--training.train_val_split_ratio", "0.8"], "data.val_fraction", 0.2),
        (["--training.train_val_split_ratio", "0.9"], "data.val_fraction", 0.1),
        (["--model.encoder.name", "Rate"], "encoder.name", "rate"),
        (["--model.name", "spikformer", "--model.encoder.name", "sps"], "model.name", "stal_spikformer"),
        (["--logger.name", "mlflow"], "tracking.mlflow", True),
        (["--logger.name", "mlflow"], "tracking.wandb", False),
        (["--training.logger.name", "MLflow"], "tracking.mlflow", True),
        (["--training.logger.project", "mine"], "tracking.mlflow_experiment", "mine"),
        (["--training.logger.project", "mine"], "tracking.wandb_project", "mine"),
        (["--training.logger.offline", "true"], "tracking.wandb_offline", True),
        (["--loss.embedding_layout", "time_first"], "loss.embedding_layout", "time_first"),
        (["--compat", "none"], "loss.embedding_layout", "time_first"),
        (["--training.amp", "bf16"], "training.amp", "bf16"),
    ],
)
def test_old_and_new_keys_are_overrides_of_such_a_file(words: list[str], key: str, value: object) -> None:
    section, _, name = key.partition(".")
    config = resolve(FILES / "srnn_convstal_mnist.yaml", words).config
    assert getattr(getattr(config, section), name) == value


def test_old_keys_are_no_overrides_of_other_files(tmp_path: Path) -> None:
    for words in (["--training.loss.omega", "1e-5"], ["--model.name", "srnn"], ["--model.num_steps", "5"]):
        with pytest.raises(ConfigError):
            resolve(write(tmp_path / "a.yaml"), words)


def test_a_new_file_may_extend_an_old_one(tmp_path: Path) -> None:
    write(tmp_path / "old.yaml", changed(str))
    child = write(
        tmp_path / "new.yaml", "extends: old\nencoder: {hidden_channels: 4}\ntraining: {loss: {omega: 1e-3}}\n"
    )
    config = resolve(child).config
    assert config.encoder.name == "convstal"
    assert config.encoder.hidden_channels == 4
    assert config.loss.name == "ce_ss"
    assert (config.loss.omega, config.loss.embedding_layout) == (1e-3, "as_is")


def test_an_old_file_is_the_base_of_a_space(tmp_path: Path) -> None:
    write(tmp_path / "old.yaml", changed(str))
    space = write(
        tmp_path / "space.yaml",
        """
        base: old.yaml
        overrides: {training.loss.name: ce_ss, model.num_steps: 3, training.epochs: 2}
        parameters:
          loss.omega: {type: float, low: 1e-6, high: 5e-4, log: true}
        objectives: [{metric: val_accuracy, direction: maximize}]
        budget: {trials: 3}
        """,
    )
    base = load_space(space, ["--model.encoder.l1_sz", "8"]).base
    assert (base.encoder.name, base.training.epochs, base.loss.name) == ("convstal", 2, "ce_ss")
    assert getattr(base.encoder, "hidden_channels", None) == 8


def test_keys_may_be_dotted(tmp_path: Path) -> None:
    text = "model.name: srnn\nmodel.encoder.name: rate\nmodel.encoder.T: 4\ndata.dataset: mnist\n"
    config = resolve(write(tmp_path / "a.yaml", text)).config
    assert (config.model.name, config.encoder.name, config.encoder.time_steps) == ("stal_srnn", "rate", 4)


def test_one_message_says_what_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    resolve(FILES / "srnn_latency_mnist.yaml", ["--data.module", "mine"])
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[0].endswith(
        "srnn_latency_mnist.yaml: layout of DeniBademi/Thesis, read with its recipe and its quirks (compat: thesis)"
    )
    assert [re.sub(r".*/(\w+\.yaml)", r"\1", line.strip()).split(": ")[:2] for line in lines[1:]] == [
        ["srnn_latency_mnist.yaml:6", "model.num_steps has no effect"],
        ["srnn_latency_mnist.yaml:8", "model.encoder.name"],
        ["srnn_latency_mnist.yaml:19", "training.train_val_split_ratio"],
        ["srnn_latency_mnist.yaml:24", "training.logger.save_dir has no effect"],
        ["srnn_latency_mnist.yaml:26", "training.save_weights has no effect"],
        ["command line", "data.module has no effect"],
    ]


def test_files_of_this_project_are_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert resolve(write(tmp_path / "a.yaml")).config.compat == "none"
    assert caplog.records == []


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_what_has_no_effect_has_none(key: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = resolve(FILES / "srnn_convstal_mnist.yaml").config
    caplog.clear()
    assert resolve(FILES / "srnn_convstal_mnist.yaml", [f"{key}=5"]).config == plain
    assert f"command line: {key} has no effect: {WITHOUT_EFFECT[key]}" in caplog.text


@pytest.mark.parametrize(
    ("name", "key"),
    [("srnn_convstal_mnist", "model.encoder.l2_sz"), ("stal_mnist", "model.l2_sz"), ("conv_stal_mnist", "model.l2_sz")],
)
def test_the_second_width_counts_only_for_a_classifier_with_stal(
    name: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = resolve(FILES / f"{name}.yaml").config
    assert resolve(FILES / f"{name}.yaml", [f"{key}=7"]).config == plain
    assert f"command line: {key} has no effect" in caplog.text
    config = resolve(FILES / "srnn_stal_cifar10.yaml", ["model.encoder.l2_sz=1536"]).config
    assert config.encoder.name == "stal"
    assert config.encoder.l2_size == 1536


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  num_steps: 5", "  num_step: 5", "6: unknown key 'num_step' in 'model' (did you mean 'num_steps'"),
        ("    kernel_size: 3", "    kernel_sz: 3", "10: unknown key 'kernel_sz' in 'model.encoder' (did you mean"),
        ("  dataset: mnist", "  datset: mnist", "15: unknown key 'datset' in 'data' (did you mean 'dataset'"),
        ("  epochs: 10", "  epoch: 10", "19: unknown key 'epoch' in 'training' (did you mean 'epochs'"),
        ("    omega:", "    omga:", "25: unknown key 'omga' in 'training.loss' (did you mean 'omega'?)"),
        ("    project:", "    projekt:", "30: unknown key 'projekt' in 'training.logger' (did you mean 'project'?)"),
        ("data:", "dataset:", "15: unknown section 'dataset'"),
        (
            "  num_steps: 5",
            "  kernel_size: 5",
            "6: unknown key 'kernel_size' in 'model' (only an encoder trained alone",
        ),
        ("    name: convstal", "    name: convstall", "8: encoder.name: unknown kind 'convstall'"),
        (
            "  name: srnn",
            "  name: srn",
            "2: model.name: expected one of 'spikformer', 'srnn', 'conv_stal', 'stal', got 'srn' (did you mean 'srnn'",
        ),
        (
            "    name: wandb",
            "    name: wanbd",
            "28: training.logger.name: expected one of 'wandb', 'mlflow', got 'wanbd' (did you mean 'wandb'?)",
        ),
        ("ratio: 1", "ratio: 1.5", "22: training.train_val_split_ratio: expected the training images' share"),
        ("ratio: 1", "ratio: true", "22: training.train_val_split_ratio: expected the training images' share"),
        ("  epochs: 10", "  epochs: ten", "19: training.epochs: expected an integer, got 'ten'"),
        (
            "    name: ce_ss",
            "    name: cross_entropy",
            "25: unknown key 'omega' in 'loss' (it is a key of loss 'ce_ss'",
        ),
        (
            "    n_spikes_per_timestep: 5",
            "    n_spikes_per_timestep: 4",
            "9: 'model.n_spikes_per_timestep' and 'model.encoder.n_spikes_per_timestep' are the same key: it is given "
            "twice (first at a.yaml:3)",
        ),
    ],
)
def test_what_is_not_understood_is_a_mistake_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = changed(str)
    assert text.count(f"{old}") >= 1
    path = tmp_path / "a.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        resolve(path)
    assert any(problem.startswith(f"a.yaml:{message}") for problem in told(error, tmp_path)), told(error, tmp_path)


@pytest.mark.parametrize("section", sorted({key.rpartition(".")[0] for key in OLD_KEYS}))
def test_an_unknown_key_is_a_mistake_in_every_section(section: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(FILES / "srnn_convstal_mnist.yaml", [f"{section}.zzz=1"])
    (problem,) = error.value.problems
    assert problem.message == f"unknown key 'zzz' in '{section}'"
    assert caplog.records == []


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = changed(lambda text: text.replace("num_steps", "nun_steps").replace("omega:", "omga:").replace("0.9", "1.9"))
    with pytest.raises(ConfigError) as error:
        resolve(write(tmp_path / "a.yaml", text), ["--model.encoder.l1_szz", "3"])
    assert [problem.where.line for problem in error.value.problems] == [4, 6, 25, None]


def test_sections_hold_keys(tmp_path: Path) -> None:
    text = changed(lambda text: re.sub(r"  logger:\n(    .*\n)+", "  logger: wandb\n", text))
    with pytest.raises(ConfigError, match=r"a\.yaml:27: training.logger: expected a section, got 'wandb'"):
        resolve(write(tmp_path / "a.yaml", text))
    config = resolve(write(tmp_path / "b.yaml", text.replace("logger: wandb", "logger:"))).config
    assert not config.tracking.wandb


@pytest.mark.parametrize(
    "text",
    [
        "model: {name: stal_srnn, encoder: {name: rate}}\ndata: {name: digits}\n",
        "model: {name: stal_srnn}\ntraining: {loss: {name: ce_ss}}\n",
        "model: {name: srnn}\nencoder: {name: rate}\n",
    ],
)
def test_a_mixture_of_the_layouts_is_a_mistake(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        resolve(write(tmp_path / "a.yaml", text))


def test_tables_name_keys_that_exist() -> None:
    values: dict[str, object] = {"model.name": "srnn", "data.train_split": 0.8, "logger.name": "wandb"}
    fallbacks = {"model.encoder.name": "stal", "training.logger.name": "mlflow"}
    new = {*RENAMED.values(), *RENAMED_ALONE.values()} - {"encoder.l1_sz"}
    for key, converter in CONVERTED.items():
        new |= converter({**values, **fallbacks}.get(key, 0.5))[0].keys()
    assert new | RECIPE.keys() <= known_keys().keys()
    assert not WITHOUT_EFFECT.keys() & {*RENAMED, *RENAMED_ALONE, *CONVERTED}
    assert not is_thesis({})


def test_the_documentation_lists_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "legacy.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    assert sorted(set(listed)) == sorted(OLD_KEYS | RECIPE.keys())
