"""Files and overrides become one configuration, or one list of everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from yaml_texts import told, write

from configs.keys import known_keys
from configs.problems import ConfigError
from configs.resolve import config_hash, from_dict, resolve, to_dict, with_params
from configs.schema import ConvStalEncoder, LifNeuron, RecurrentLifNeuron, RunConfig, StalEncoder, StalSpikformerModel


def test_one_file_is_completed_with_defaults(tmp_path: Path) -> None:
    resolved = resolve(write(tmp_path / "a.yaml"))
    config = resolved.config
    assert config.encoder == ConvStalEncoder(hidden_channels=16)
    assert config.neuron == RecurrentLifNeuron()
    assert config.training.epochs == 3
    assert config.loss.name == "ce_ss"
    assert resolved.data["loss"] == {"name": "ce_ss", "omega": 1e-4}
    assert resolved.where("loss.omega").line == 5
    assert resolved.where("encoder").line == 3
    assert resolved.where("optimizer.learning_rate").file == tmp_path / "a.yaml"


def test_a_chain_of_files_is_laid_on_top_of_each_other(tmp_path: Path) -> None:
    write(tmp_path / "base" / "a.yaml")
    write(tmp_path / "base" / "b.yaml", "extends: a\ntraining.epochs: 5\nloss:\n  omega: 2e-4\n")
    top = write(tmp_path / "c.yaml", "extends: base/b.yaml\ntraining:\n  batch_size: 32\n")
    resolved = resolve(top, ["--training.seed", "7"])
    assert (resolved.config.training.epochs, resolved.config.training.batch_size) == (5, 32)
    assert resolved.config.training.seed == 7
    assert resolved.data["loss"] == {"name": "ce_ss", "omega": 2e-4}
    assert str(resolved.where("loss.omega")) == f"{tmp_path / 'base' / 'b.yaml'}:4"
    assert str(resolved.where("training.batch_size")) == f"{top}:3"
    assert str(resolved.where("training.seed")) == "command line"


def test_model_file_and_training_file_make_one_configuration(tmp_path: Path) -> None:
    model = write(tmp_path / "m.yaml", "model: {name: stal_spikformer, depth: 2}\ntraining: {epochs: 9}\n")
    train = write(tmp_path / "t.yaml", "training: {epochs: 4}\ndata: {name: mnist}\n")
    config = resolve(model_config=model, train_config=train).config
    assert config.model == StalSpikformerModel(depth=2)
    assert (config.training.epochs, config.data.name) == (4, "mnist")


def test_without_any_file_it_says_so() -> None:
    with pytest.raises(ConfigError, match="no configuration is given"):
        resolve(None, ["training.epochs=3"])


@pytest.mark.parametrize(
    "words",
    [
        ["--training.batch_size", "32", "--model.learning_rate", "0.001"],
        ["--training.batch_size=32", "training.lr=1e-3"],
        ["--set", "training.batch_size=32", "--set=optimizer.lr=0.001"],
        ["data.batch_size=32", "training.learning_rate=1.0e-3"],
    ],
)
def test_every_style_of_override_and_every_alias_means_the_same(tmp_path: Path, words: list[str]) -> None:
    plain = resolve(write(tmp_path / "a.yaml"), ["training.batch_size=32", "optimizer.learning_rate=1e-3"]).config
    config = resolve(tmp_path / "a.yaml", words).config
    assert config == plain
    assert config_hash(config) == config_hash(plain)


def test_the_names_of_the_thesis_are_understood(tmp_path: Path) -> None:
    text = """
        model: {name: stal_srnn, l1_sz: 56, lif_beta: 0.8, n_spikes_per_timestep: 4}
        encoder: {name: %s, l1_sz: 32, freeze_weights: true}
        loss: {name: ce_ss, omega: 1e-5, concentration_weight: 0.5}
        data: {dataset: digits, num_workers: 1}
        training: {learning_rate: 0.01}
    """
    config = resolve(write(tmp_path / "conv.yaml", text % "convstal")).config
    assert config.encoder == ConvStalEncoder(hidden_channels=32, time_steps=4, freeze=True)
    assert config.neuron == RecurrentLifNeuron(beta=0.8)
    assert (config.model.name, config.model.hidden_size) == ("stal_srnn", 56)
    assert config.loss.name == "ce_ss"
    assert config.loss.c == 0.5
    assert (config.data.workers, config.optimizer.learning_rate) == (1, 0.01)
    config = resolve(write(tmp_path / "stal.yaml", text % "stal"), ["encoder.l2_sz=64"]).config
    assert config.encoder == StalEncoder(l1_size=32, l2_size=64, time_steps=4, freeze=True)


def test_another_kind_drops_the_keys_of_the_old_one_that_came_from_below(tmp_path: Path) -> None:
    write(
        tmp_path / "a.yaml", "model: {name: stal_srnn}\nencoder: {name: convstal, hidden_channels: 8, time_steps: 3}\n"
    )
    child = write(tmp_path / "b.yaml", "extends: a\nencoder: {name: stal, l1_size: 32, l2_size: 64}\n")
    assert resolve(child).config.encoder == StalEncoder(l1_size=32, l2_size=64, time_steps=3)
    by_override = resolve(tmp_path / "a.yaml", ["encoder.l1_size=32", "encoder.l2_size=64", "encoder.name=stal"])
    assert by_override.config == resolve(child).config


def test_the_keys_of_the_old_kind_stay_mistakes_beside_the_new_name(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml")
    child = write(tmp_path / "b.yaml", "extends: a\nencoder: {name: rate, hidden_channels: 8}\n")
    with pytest.raises(ConfigError) as error:
        resolve(child)
    assert told(error, tmp_path) == [
        "b.yaml:2: unknown key 'hidden_channels' in 'encoder' "
        "(it is a key of encoder 'convstal'; encoder.name is 'rate')"
    ]


def test_a_misspelt_key_of_the_base_is_told_even_where_its_kind_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "model: {name: stal_srnn}\nencoder: {name: convstal, hiden_channels: 8}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: unknown key 'hiden_channels'"):
        resolve(tmp_path / "a.yaml", ["encoder.name=rate"])


def test_another_model_brings_its_neuron_and_encoder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "model: {name: stal_srnn}\nneuron: {beta: 0.5}\n")
    config = resolve(path, ["model.name=stal_spikformer"]).config
    assert config.neuron == LifNeuron()
    assert config.encoder.name == "stalps"


def test_every_mistake_is_told_at_once_with_its_file_and_line(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml",
        """
        model:
          name: stal_srnn
          hidden_sise: 56
        training:
          epochs: ten
        """,
    )
    child = write(
        tmp_path / "child.yaml",
        """
        extends: base
        neuron: {tau: 3}
        encoder:
          name: convstl
          time_steps: 0
        loss:
          omega: 0.1
        training: {batch_size: 2.5, amp: fp8, device: gpu, deterministic: 1, seed: true}
        optimizer: {betas: [0.9], learning_rat: 1}
        augmentation: {crop_scale: [0.9, 0.1]}
        data: {val_fraction: 1.5, name: digits}
        """,
    )
    with pytest.raises(ConfigError) as error:
        resolve(child, ["--schedule.name=cosin", "epochs=3", "--training.seed"])
    assert told(error, tmp_path) == [
        "base.yaml:3: unknown key 'hidden_sise' in 'model' (did you mean 'hidden_size'?)",
        "base.yaml:5: training.epochs: expected an integer, got 'ten'",
        "child.yaml:2: unknown key 'tau' in 'neuron' (it is a key of neuron "
        "'lif', 'plif', 'klif', 'clif', 'ilif'; neuron.name is 'rlif')",
        "child.yaml:4: encoder.name: unknown kind 'convstl' (did you mean 'convstal' or 'convstal_ps'?)",
        "child.yaml:5: encoder.time_steps: expected a number >= 1, got 0",
        "child.yaml:7: unknown key 'omega' in 'loss' (it is a key of loss 'ce_ss'; loss.name is 'cross_entropy')",
        "child.yaml:8: training.batch_size: expected an integer, got 2.5",
        "child.yaml:8: training.seed: expected an integer, got true",
        "child.yaml:8: training.device: expected text that matches ^(auto|cpu|cuda(:\\d+(,\\d+)*)?|mps)$, got 'gpu'",
        "child.yaml:8: training.amp: expected 'off', 'fp16' or 'bf16', got 'fp8'",
        "child.yaml:8: training.deterministic: expected true or false, got 1",
        "child.yaml:9: optimizer.betas: expected a longer list, got [0.9]",
        "child.yaml:9: unknown key 'learning_rat' in 'optimizer' (did you mean 'learning_rate'?)",
        "child.yaml:10: augmentation.crop_scale: expected 0 < low <= high <= 1, got 0.9 and 0.1",
        "child.yaml:11: data.val_fraction: expected a number < 1.0, got 1.5",
        "command line: '--training.seed' has no value (write --training.seed VALUE or training.seed=VALUE)",
        "command line: schedule.name: expected 'constant', 'step' or 'cosine', got 'cosin' (did you mean 'cosine'?)",
        "command line: unknown key 'epochs' (did you mean 'training.epochs'?)",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model.name=transformer"],
            "model.name: expected one of 'stal_srnn', 'stal_spikformer', 'encoder_only', 'spikformer_cifar'",
        ),
        (["training=3"], "training: expected a section, got 3"),
        (["training.epochs.x=3"], "unknown key 'training.epochs.x' ('training.epochs' is a value, it has no keys)"),
        (["optimizer.betas=0.9"], "optimizer.betas: expected a list, got 0.9"),
        (["neuron.surrogate=3"], "neuron.surrogate: expected a section of keys and values, got 3"),
        (["neuron.surrogate.alpha=.nan"], "neuron.surrogate.alpha: expected a finite number, got NaN"),
        (["neuron.name=lif"], "neuron.name: model 'stal_srnn' takes neuron 'rlif', got 'lif'"),
        (
            ["model.name=encoder_only", "encoder.name=sps"],
            "encoder.name: model 'encoder_only' takes one of the encoders",
        ),
        (["loss.omega=1", "loss.omga=1"], "unknown key 'omga' in 'loss' (did you mean 'omega'"),
        (["model.lr=1", "optimizer.lr=1", "training.lr=2"], "'optimizer.lr' and 'training.lr' are the same key"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(write(tmp_path / "a.yaml"), words)
    assert any(problem.startswith(f"command line: {message}") for problem in told(error, tmp_path))


def test_a_missing_model_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(write(tmp_path / "a.yaml", "training: {epochs: 3}\n"))
    hint = f"one of {', '.join(repr(name) for name in known_keys()['model.name'].values)}"
    assert told(error, tmp_path) == [f"a.yaml: missing key 'model.name' ({hint})"]


def test_files_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b\n")
    write(tmp_path / "b.yaml", "training.epochs: 3\nextends: a\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:2: files extend each other in a circle"):
        resolve(tmp_path / "a.yaml")


def test_a_base_that_is_not_there_is_told_where_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "digits.yaml")
    path = write(tmp_path / "a.yaml", "model: {name: stal_srnn}\nextends: digit.yaml\ntraining: {epochs: x}\n")
    with pytest.raises(ConfigError) as error:
        resolve(path)
    assert told(error, tmp_path) == [
        "a.yaml:2: there is no file 'digit.yaml' and no shipped configuration of that name "
        "(did you mean 'digits.yaml'?)",
        "a.yaml:3: training.epochs: expected an integer, got 'x'",
    ]


def test_variables_of_the_environment_reach_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB_EPOCHS", "8")
    path = write(
        tmp_path / "a.yaml", "model: {name: stal_srnn}\ntraining:\n  epochs: ${SB_EPOCHS}\n  seed: ${SB_SEED:-5}\n"
    )
    assert resolve(path).config.training.epochs == 8
    assert resolve(path).config.training.seed == 5
    assert resolve(path, ["training.seed=${SB_EPOCHS}"]).config.training.seed == 8


def test_a_password_is_not_repeated_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB_URI", "postgresql://me:s3cr3t@db/x")
    with pytest.raises(ConfigError) as error:
        resolve(write(tmp_path / "a.yaml"), ["training.epochs=${SB_URI}"])
    assert "s3cr3t" not in str(error.value)
    assert "me:***@db" in str(error.value)


def test_empty_sections_mean_their_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml", "model: {name: stal_srnn}\naugmentation:\nneuron:\n  surrogate:\ntraining:\n  ema_decay:\n"
    )
    assert resolve(path).config == RunConfig.model_validate({"model": {"name": "stal_srnn"}})


def test_the_hash_does_not_depend_on_the_spelling(tmp_path: Path) -> None:
    one = write(
        tmp_path / "1.yaml",
        "model: {name: stal_spikformer}\nencoder: {name: stalps, time_steps: 4}\nloss: {name: ce_ss, c: 1}\n",
    )
    two = write(
        tmp_path / "2.yaml",
        """
        loss.concentration_weight: 1.0
        loss.name: ce_ss
        encoder:
          T: 4.0
          name: convstal_ps
        model:
          name: 'stal_spikformer'
        tracking: {mlflow: true}
    """,
    )
    hashes = {config_hash(resolve(path).config) for path in (one, two)}
    assert len(hashes) == 1
    assert config_hash(resolve(one, ["loss.c=1.01"]).config) not in hashes


def test_plain_data_makes_the_same_configuration_again(tmp_path: Path) -> None:
    config = resolve(write(tmp_path / "a.yaml"), ["augmentation.crop_scale=[0.5, 1]"]).config
    again = from_dict(to_dict(config))
    assert again == config
    assert config_hash(again) == config_hash(config)
    with pytest.raises(ConfigError, match="stored configuration: unknown key 'neurons'"):
        from_dict({**to_dict(config), "neurons": {}})


def test_parameters_are_laid_over_a_configuration(tmp_path: Path) -> None:
    config = resolve(write(tmp_path / "a.yaml"), ["encoder.drop_p=0.3"]).config
    changed = with_params(config, {"loss.omega": 3e-4, "neuron.surrogate.alpha": 5})
    assert config.loss != changed.loss
    assert (changed.neuron.surrogate.alpha, changed.neuron.surrogate.name) == (5.0, "atan")
    other = with_params(config, {"encoder.name": "stal", "encoder.l1_size": 32, "encoder.l2_size": 64})
    assert other.encoder == StalEncoder(l1_size=32, l2_size=64, drop_p=0.3)
    assert with_params(config, {"data.name": "mnist"}).data.val_fraction == 0.2  # its own default, not that of digits
    assert with_params(from_dict(to_dict(config)), {"encoder.name": "rate"}) == with_params(
        config, {"encoder.name": "rate"}
    )


def test_parameters_that_do_not_fit_are_all_told(tmp_path: Path) -> None:
    config = resolve(write(tmp_path / "a.yaml")).config
    with pytest.raises(ConfigError) as error:
        with_params(config, {"neuron.beta": 1.5, "training.epochs": "many", "loss.foo": 1})
    assert [problem.key for problem in error.value.problems] == ["neuron.beta", "loss.foo", "training.epochs"]
    assert {str(problem.where) for problem in error.value.problems} == {"parameters"}


def test_reading_configurations_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time; start = time.process_time(); import configs.resolve, search_spaces.load;"
        "print(time.process_time() - start, sorted({'torch', 'optuna', 'numpy', 'sqlalchemy'} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        took, _, modules = out.partition(" ")
        assert modules.strip() == "[]"
        seconds.append(float(took))
    assert min(seconds) < 0.5


def test_an_unknown_kind_hides_no_other_mistake_of_its_section(tmp_path: Path) -> None:
    path = write(
        tmp_path / "typos.yaml",
        """
        model: {name: spikformer_cifar}
        neuron:
          name: lfi
          tau: 0.5
          v_treshold: 1
          surrogate: atan
          backend: 3
        """,
    )
    with pytest.raises(ConfigError) as error:
        resolve(path)
    assert told(error, tmp_path) == [
        "typos.yaml:3: neuron.name: unknown kind 'lfi' (did you mean 'lif'?)",
        "typos.yaml:4: neuron.tau: expected a number > 1.0, got 0.5",
        "typos.yaml:5: unknown key 'v_treshold' in 'neuron' "
        "(did you mean 'v_threshold' or 'mlp_v_threshold' or 'attn_v_threshold'?)",
        "typos.yaml:6: neuron.surrogate: expected a section of keys and values, got 'atan'",
        "typos.yaml:7: neuron.backend: expected 'auto', 'torch', 'native', 'triton' or 'cuda', got 3",
    ]


def test_beside_an_unknown_kind_a_key_of_any_kind_is_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "kind.yaml", "neuron: {name: lfi, beta: 0.5, tau: 3.0, detach_reset: true}\n")
    with pytest.raises(ConfigError) as error:
        resolve(path)
    assert [line for line in told(error, tmp_path) if "neuron" in line] == [
        "kind.yaml:1: neuron.name: unknown kind 'lfi' (did you mean 'lif'?)"
    ]
