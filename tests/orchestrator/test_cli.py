from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from searching import write_space

from configs.problems import ConfigError, Problem, SpikebenchError, Where
from orchestrator import cli, errors
from orchestrator.cli import COMMANDS, main, search_main
from trainers.protocol import CheckpointError, DivergedError

WRONG_SPACE = """\
name: wrong
base: stal/srnn_digits
parameters:
  loss.omegga: {type: float, low: 1e-6, high: 5e-4, log: true}
  loss.c: {type: float, low: 10, high: 0.1}
  training.batch_size: {type: float, low: 16, high: 64}
objectives:
  - {metric: val_accuracy, direction: maximize}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKEBENCH_STORAGE", raising=False)


def call(*arguments: str, code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        search_main(list(arguments))
    assert (caught.value.code or 0) == code


def test_three_mistakes_are_all_named_with_their_lines_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG_SPACE)
    call("--space", "wrong.yaml", code=2)
    error = capsys.readouterr().err
    assert "3 problems found, nothing was started" in error
    for line in (4, 5, 6):
        assert f"wrong.yaml:{line}: " in error
    assert "did you mean 'loss.omega'?" in error
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--storage", "mysql://u:s3cr3t@h/x"], 2, "expected a sqlite or postgresql"),
        (["--storage", "postgresql+psycopg://u:s3cr3t@127.0.0.1:1/x"], 1, "cannot open postgresql+psycopg://u:***@"),
        (["--storage", "sqlite:////proc/x.db"], 1, "cannot open sqlite:////proc/x.db"),
        (["--storage", "postgresql://u:${NO_SUCH_VARIABLE}@h/x"], 2, "export NO_SUCH_VARIABLE"),
        (["--data.name", "mnist"], 2, "mnist is not, or not whole, in"),
        (["--training.epoch", "3"], 2, "did you mean 'epochs'?"),
        (["--training.epochs", "many"], 2, "command line: training.epochs"),
        (["--workers", "0"], 2, "whole number from 1 up"),
        (["--trails", "3"], 2, "did you mean --trials"),
        (["--trials", "0"], 2, "--trials"),
        (["--per-gpu", "2", "--gpu-fraction", "0.5"], 2, "--gpu-fraction say the same thing"),
        (["--gpu-fraction", "1.5"], 2, "--gpu-fraction"),
    ],
)
def test_wrong_input_gives_one_clear_message_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    space = write_space(tmp_path)
    call("--space", str(space), *arguments, code=code)
    captured = capsys.readouterr()
    assert message in captured.err
    assert "s3cr3t" not in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert not (tmp_path / "runs").exists()


def test_an_absent_trainer_is_noticed_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("--space", str(write_space(tmp_path, trainer="no_such.module:train")), code=2)
    assert "trainer 'no_such.module:train': there is no module 'no_such.module'" in capsys.readouterr().err


def test_a_dry_run_shows_what_would_run_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    space = write_space(
        tmp_path,
        description="for a test",
        overrides={"loss": {"name": "ce_ss"}, "tracking.mlflow_uri": "postgresql://u:s3cr3t@h/mlflow"},
        constraints=[{"metric": "val_accuracy", "min": 0.5, "hard": True}, {"metric": "val_firing_rate", "max": 0.3}],
        stop={"rungs": {"first": 2, "factor": 3}},
        budget={"trials": 4, "hours": 12},
    )
    arguments = ("--space", str(space), "--dry-run", "--study", "mine", "--workers", "3", "--threads", "2")
    call(*arguments, "--trials", "7", "--training.epochs", "9", "--runs-dir", "here", code=0)
    output = capsys.readouterr().out
    assert "s3cr3t" not in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in (
        "space tiny: for a test",
        "base stal/srnn_digits: stal_srnn on digits, ce_ss, 9 epochs in batches of 128",
        "objectives maximize val_accuracy, minimize val_spike_density",
        "constraints val_accuracy >= 0.5 (hard), val_firing_rate <= 0.3",
        "ends early what is not among the best 1/3 at epoch 2, 6, 18, ..., what breaks a hard constraint",
        "trials 7, drawn by random, at most 12 h of all together",
        "workers 3 workers on cpu with 2 threads each",
        "results here/mine, sqlite:///runs/spikebench.db",
        "parameter may be sample 1 sample 2 sample 3",
    ):
        assert line in lines
    assert any(line.startswith("overrides loss.name=ce_ss, tracking.mlflow_uri=") for line in lines)
    (omega,) = (line for line in lines if line.startswith("loss.omega float from 1e-06 to 0.0005, log "))
    assert all(1e-6 <= float(value) <= 5e-4 for value in omega.split()[-3:])
    assert "`spikebench export mine NUMBER`" in lines[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml"}


def test_a_dry_run_shows_which_parameters_a_sample_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {
        "optimizer.name": {"type": "categorical", "choices": ["adamw", "sgd"]},
        "optimizer.momentum": {"type": "float", "low": 0.5, "high": 0.99, "when": {"optimizer.name": ["sgd"]}},
    }
    call("--space", str(write_space(tmp_path, parameters=parameters)), "--dry-run", "--executor", "ray", code=0)
    lines = capsys.readouterr().out.splitlines()
    names, momenta = (next(line for line in lines if line.startswith(f"optimizer.{key}")) for key in ("name", "mom"))
    drawn = zip(names.split()[-3:], momenta.split()[-3:], strict=True)
    assert all((momentum == "-") == (name == "adamw") for name, momentum in drawn)
    assert {"adamw", "sgd"} <= set(names.split()[-3:])
    assert any("on a Ray cluster" in line for line in lines)


def test_every_command_has_its_module_and_its_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(cli.__file__).parent / "commands"
    assert {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--", "options"} == set(COMMANDS)
    with pytest.raises(SystemExit):
        main(["--help"])
    overview = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert name in overview
        assert line.split(" ", 1)[0] in overview


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert not caught.value.code
    assert "Usage: spikebench " + command in capsys.readouterr().out


def test_the_overview_loads_neither_torch_nor_optuna() -> None:
    code = "import sys; from orchestrator.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'optuna', 'sqlalchemy', 'mlflow'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([Problem(Where(None), "wrong")]), 2),
        (errors.StudyNotFoundError("none"), 2),
        (errors.NoTablesError("empty"), 2),
        (CheckpointError("missing"), 2),
        (errors.StorageError("away"), 1),
        (errors.StudyBusyError("held"), 1),
        (errors.TrackingError("away"), 1),
        (DivergedError("NaN"), 1),
        (SpikebenchError("anything"), 1),
    ],
)
def test_the_class_of_an_error_is_its_exit_code(
    error: SpikebenchError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    built = typer.Typer()
    built.command()(command)
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: built, "spikebench", [])
    assert caught.value.code == code
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize("program", [main, search_main])
def test_ctrl_c_while_modules_are_loaded_leaves_no_traceback(
    program: Callable[[list[str]], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(SystemExit) as caught:
        program(["status"])
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("program", [["search"], ["controller"]])
def test_a_runs_folder_that_cannot_be_made_is_refused_before_trials_fail_in_it(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*program, "--space", str(space), "--runs-dir", str(space / "runs"), "--storage", "sqlite:///s.db"])
    assert caught.value.code == 1
    assert f"{space} is no folder; give another --runs-dir" in capsys.readouterr().err
    assert not (tmp_path / "s.db").exists()
