"""`spikebench train`: from a file to a test accuracy, and what Ctrl-C does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from wandb_files import read_runs

from configs.resolve import resolve
from orchestrator.cli import main
from orchestrator.commands import train as command
from orchestrator.commands.train import COLUMNS, ConsoleReporter
from orchestrator.tracking.run_tracking import RunDelivery
from trainers.protocol import DivergedError, EpochReport, Verdict

CONFIG = """
model: {name: stal_srnn, hidden_size: 16}
encoder: {name: rate}
data: {name: digits, val_fraction: 0.1, test_fraction: 0.7}
training: {epochs: 2, batch_size: 64, device: cpu}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments])
    return int(left.value.code or 0)


def rows(text: str) -> list[str]:
    """The lines of the epochs, without what tells the time."""
    return [" ".join(line.split()[:7]) for line in text.splitlines() if re.match(r" +\d+/\d+ ", line)]


def test_a_line_per_epoch_and_the_test_accuracy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", "small.yaml", "--threads", "1", "--training.epochs", "3", "optimizer.name=sgd") == 0
    out = capsys.readouterr().out
    assert len(rows(out)) == 3
    assert max(len(line) for line in out.splitlines() if re.match(r" +(\d+/|epoch)", line)) <= 80
    assert re.search(r"test accuracy 0\.\d{4}, .*\(weights of the last epoch\)", out)
    folder = here / "runs" / "train" / "small"
    assert "resolved configuration: runs/train/small/config.yaml" in out
    written = resolve(folder / "config.yaml").config
    assert (written.training.epochs, written.optimizer.name) == (3, "sgd")
    assert (folder / "ckpt-00003-0000000.pt").is_file()


def test_model_and_training_files_are_merged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "model.yaml").write_text("model: {name: stal_srnn, hidden_size: 8}\nencoder: {name: rate}\n")
    (here / "recipe.yaml").write_text(CONFIG.split("\n", 3)[3])
    assert run("--model-config", "model.yaml", "--train-config", "recipe.yaml", "--run-dir", "r") == 0
    assert resolve("r/config.yaml").config.model.hidden_size == 8


def test_an_earlier_run_is_not_overwritten_but_can_be_finished(here, capsys) -> None:
    assert run("--config", "small.yaml", "--run-dir", "r") == 0
    first = capsys.readouterr().out
    assert run("--config", "small.yaml", "--run-dir", "r") == 2
    assert "checkpoints of an earlier run (add --resume" in capsys.readouterr().err
    assert run("--config", "r/config.yaml", "--run-dir", "r", "--resume") == 0
    again = capsys.readouterr().out
    assert "going on from r/ckpt-00002-0000000.pt" in again
    assert rows(again) == rows(first)


def test_resuming_with_another_configuration_keeps_the_runs_own(here, capsys) -> None:
    assert run("--config", "small.yaml", "--run-dir", "r") == 0
    assert run("--config", "small.yaml", "--run-dir", "r", "--resume", "--training.epochs", "5") == 2
    assert "training.epochs is 2 there and 5 here" in capsys.readouterr().err
    assert resolve("r/config.yaml").config.training.epochs == 2


def test_wrong_input_is_one_clear_message(here, capsys) -> None:
    assert run("--config", "small.yaml", "--training.epochz", "3") == 2
    assert "did you mean" in capsys.readouterr().err
    assert run() == 2
    (here / "file").write_text("")
    assert run("--config", "small.yaml", "--run-dir", "file/run") == 1
    assert "cannot write file/run/config.yaml: Not a directory" in capsys.readouterr().err
    assert run("--config", "small.yaml", "--data.name", "mnist_files", "--run-dir", "m") == 2
    assert "--data.data_dir" in capsys.readouterr().err


def test_a_divergence_is_one_clear_message(capsys, monkeypatch) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise DivergedError("the training loss became NaN")

    monkeypatch.setattr(command, "train", diverge)
    assert run("--config", "small.yaml") == 1
    assert "became NaN" in capsys.readouterr().err


def test_first_interrupt_is_a_wish_second_an_end() -> None:
    reporter = ConsoleReporter(Console(quiet=True), RunDelivery(None))
    before = signal.getsignal(signal.SIGINT)
    with reporter.listening():
        assert reporter.verdict() is Verdict.CONTINUE
        os.kill(os.getpid(), signal.SIGTERM)
        assert reporter.verdict() is Verdict.PREEMPT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_stopping_at_once_says_how_to_go_on(capsys, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert run("--config", "small.yaml", "--run-dir", "a folder") == 130
    assert "spikebench train --config 'a folder/config.yaml' --run-dir 'a folder' --resume" in capsys.readouterr().out


def test_a_reported_epoch_fills_the_row(capsys) -> None:
    metrics = {name: 0.5 for name, _ in COLUMNS.values()}
    ConsoleReporter(Console(), RunDelivery(None)).epoch(EpochReport(3, 10, metrics, 60.0))
    assert " ".join(capsys.readouterr().out.split()) == "3/10 " + 5 * "0.5000 " + "5.0e-01 60.0 7 min 00 s"


PRESSES_CTRL_C_AFTER_EPOCH_3 = """
import os, signal, sys
from orchestrator.cli import main

write = sys.stdout.write

def wait_and_press(text):
    written = write(text)
    if text.lstrip().startswith("3/6"):
        sys.stdout.write = write
        os.kill(os.getpid(), signal.SIGINT)
    return written

sys.stdout.write = wait_and_press
main()
"""


@pytest.mark.system
def test_interrupted_run_goes_on_to_the_same_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--config", "small.yaml", "--threads", "1", "--training.epochs", "6"]
    assert run(*wanted, "--run-dir", "whole") == 0
    whole = capsys.readouterr().out
    program = [sys.executable, "-u", "-c", PRESSES_CTRL_C_AFTER_EPOCH_3, "train", *wanted, "--run-dir", "broken"]
    broken = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert broken.returncode == 130, broken.stderr
    assert "stopping after this step" in broken.stdout
    assert "Go on with:\nspikebench train --config broken/config.yaml --run-dir broken --resume" in broken.stdout
    seen = dict.fromkeys(
        line.split()[0] for line in rows(broken.stdout)
    )  # the handler prints amid the last: it is there twice
    assert list(seen) == ["1/6", "2/6", "3/6"]
    assert run(*wanted, "--run-dir", "broken", "--resume") == 0
    assert rows(capsys.readouterr().out) == rows(whole)


def test_an_encoder_alone_has_a_loss_and_no_accuracy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "model: {name: encoder_only}\nencoder: {hidden_channels: 4}\n" + "\n".join(CONFIG.splitlines()[3:])
    (here / "alone.yaml").write_text(text)
    assert run("--config", "alone.yaml", "--run-dir", "r", "--compat", "thesis") == 0
    out = capsys.readouterr().out
    assert [row.split()[2] for row in rows(out)] == ["-", "-"]
    assert re.search(r"validation loss \d+\.\d{4} \(best epoch \d+\.\d{4}\)", out)
    assert re.search(r"test loss \d+\.\d{4}, spike density 0\.\d{4}", out)
    assert resolve("r/config.yaml").config.loss.spike_layout == "as_is"


@pytest.mark.system
def test_numbers_go_to_the_services_of_the_configuration(here: Path, capfd) -> None:
    words = ["--threads", "1", "--tracking.wandb", "true", "--tracking.wandb_offline", "true", "--run-dir", "r"]
    assert run("--config", "small.yaml", *words) == 0
    assert "wandb:" not in "".join(capfd.readouterr())
    (tracked,) = read_runs(here / "r")
    assert (tracked.name, list(tracked.history), tracked.exit_code) == ("r", [1, 2], 0)
    assert tracked.config["training"]["epochs"] == 2


def test_a_service_without_its_package_is_one_clear_message(here: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.targets.importlib.util.find_spec", lambda _: None)
    assert run("--config", "small.yaml", "--tracking.wandb", "true") == 1
    assert "pip install 'spikebench[wandb]'" in capsys.readouterr().err
    assert not (here / "runs").exists()
