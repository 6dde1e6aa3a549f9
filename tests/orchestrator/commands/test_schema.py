"""`spikebench schema` writes what editors read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.json_schema import config_schema
from orchestrator.cli import main
from search_spaces.json_schema import space_schema


def run(*arguments: str) -> int:
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["schema", *arguments])
    return int(left.value.code or 0)


def test_the_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert json.loads(capsys.readouterr().out) == config_schema()
    assert run("--space") == 0
    assert json.loads(capsys.readouterr().out) == space_schema()


def test_the_schema_is_written_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deeper" / "schema.json"
    assert run("--output", str(path)) == 0
    assert json.loads(path.read_text()) == config_schema()
    assert str(path) in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("--output", str(tmp_path / "file" / "schema.json")) == 1
    assert "give another --output" in capsys.readouterr().err
