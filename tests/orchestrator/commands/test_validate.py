"""`spikebench validate` on files that are sound and files that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_texts import write

from orchestrator.cli import main

SPACE = """
    base: base
    parameters:
      loss.omega: {type: float, low: %s, high: 5e-4, log: true}
    objectives:
      - {metric: val_accuracy, direction: maximize}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration and a space."""
    monkeypatch.chdir(tmp_path)
    write(Path("base.yaml"))
    write(Path("space.yaml"), SPACE % "1e-6")
    return tmp_path


def run(*arguments: str) -> int:
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["validate", *arguments])
    return int(left.value.code or 0)


def test_a_line_is_printed_for_each_sound_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("base.yaml", "space.yaml", "base") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("base.yaml: configuration of stal_srnn on digits, ")
    assert lines[1] == "space.yaml: search space over loss.omega to maximize val_accuracy: OK"
    assert len(lines) == 3


def test_every_problem_of_every_file_is_printed_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("space.yaml"), SPACE % "1e-2" + "    sampelr: {}\n")
    write(Path("other.yaml"), "model: {name: stal_srn}\n")
    assert run("base.yaml", "space.yaml", "other.yaml", "nothing") == 2
    said = capsys.readouterr()
    assert said.out.startswith("base.yaml: configuration")
    *told, last = said.err.splitlines()
    assert told == [
        "4 problems found:",
        "other.yaml:1: model.name: unknown kind 'stal_srn' (did you mean 'stal_srnn' or 'stal_spikformer'?)",
        "space.yaml:3: parameters.loss.omega.low: low (0.01) is greater than high (0.0005)",
        "space.yaml:6: unknown key 'sampelr' (did you mean 'sampler'?)",
    ]
    assert last.startswith("command line: there is no file 'nothing' and no shipped configuration or search space of")


def test_shipped_names_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stal_loss", "stal/srnn_digits") == 0
    assert "stal_loss: search space over loss.omega, loss.c to maximize val_accuracy" in capsys.readouterr().out
    assert run("stal_los") == 2
    assert "did you mean 'stal_loss'" in capsys.readouterr().err
    assert run(".") == 2
    assert "'.' is a folder, expected a file" in capsys.readouterr().err
