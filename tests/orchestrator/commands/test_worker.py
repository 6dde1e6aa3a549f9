"""`spikebench worker` before there is a study to work for."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from searching import environment, write_space
from sqlalchemy.exc import OperationalError

from orchestrator.cli import main
from orchestrator.commands import worker
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.schema import create_or_upgrade
from orchestrator.storage.study import open_study
from search_spaces.load import load_space

DEADLINE = 60.0


class Steps(threading.Event):
    """An event at which, instead of waiting, the next of some things happens; the last one sets it.

    Args:
        steps: what happens at each wait.
    """

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.left = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        """Let the next thing happen."""
        self.left.pop(0)()
        return self.is_set()


def waited(url: str, study: str | None, stop: Steps) -> tuple[str, int | None]:
    """Wait for a study; return what was said and its id, -1 where the worker left."""
    console = Console(file=io.StringIO(), width=200)
    found = worker.wait_for_study(console, url, study, stop)
    if found is not None:
        found[0].engine.dispose()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), -1 if found is None else found[1]


def new_study(database: Database, folder: Path, name: str) -> int:
    opened = open_study(database, load_space(write_space(folder)), name=name)
    opened.close()
    return opened.id


def test_it_waits_for_tables_and_then_for_the_study(any_url: str, tmp_path: Path) -> None:
    database = open_database(any_url, create=True, tables=False)
    stop = Steps(
        lambda: None,
        lambda: create_or_upgrade(database),
        lambda: None,
        lambda: new_study(database, tmp_path, "stal_loss"),
        lambda: None,
        lambda: new_study(database, tmp_path, "stal_los"),
    )
    said, study_id = waited(any_url, "stal_los", stop)
    database.engine.dispose()
    assert (study_id, stop.left) == (2, [])
    assert re.findall(r"no tables|no study yet|did you mean 'stal_loss'\?|waiting for study stal_los;", said) == [
        "no tables", "waiting for study stal_los;", "no study yet", "waiting for study stal_los;",
        "did you mean 'stal_loss'?", "waiting for study stal_los;",
    ]  # fmt: skip


def test_a_worker_of_every_study_waits_for_tables_alone(any_url: str) -> None:
    database = open_database(any_url, create=True, tables=False)
    said, study_id = waited(any_url, None, Steps(lambda: create_or_upgrade(database)))
    database.engine.dispose()
    assert study_id is None
    assert said.count("waiting for the tables; Ctrl-C leaves") == 1


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = iter([OperationalError("SELECT", {}, Exception("database is locked"))])
    asked = worker.require_row

    def require_row(database: Database, name: str | None) -> object:
        for error in away:
            raise error
        return asked(database, name)

    monkeypatch.setattr(worker, "require_row", require_row)
    assert waited(local.url, "tiny", Steps(lambda: new_study(local, tmp_path, "tiny"))) == ("", 1)


def test_it_leaves_while_it_waits(local: Database) -> None:
    stop = Steps(lambda: None)
    stop.left.append(stop.set)
    said, study_id = waited(local.url, "tiny", stop)
    assert study_id == -1
    assert said.count("\n") == 2


def test_what_waiting_cannot_mend_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--storage", f"sqlite:///{tmp_path}/none.db"], "no database at"),
        (["--workers", "0"], "whole number from 1 up"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["worker", "--study", "tiny", *arguments])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 75)])
def test_a_signal_while_it_waits_ends_it_cleanly(number: int, code: int, local: Database, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
    with (tmp_path / "out.txt").open("wb") as output:
        process = subprocess.Popen(
            [*program, "worker", "--study", "tiny", "--workers", "1", "--storage", local.url],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + DEADLINE
        while "Ctrl-C leaves" not in (said := (tmp_path / "out.txt").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(DEADLINE) == code
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "out.txt").read_text()
