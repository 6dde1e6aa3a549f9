"""A study run by the real command line on a database of either kind, to be disturbed and looked at from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leash
import psutil
import searching
import sqlalchemy
import walking_trainer
from searching import PROGRAM, environment, kill_group, write_space
from sqlalchemy.exc import DBAPIError


class DisturbedStudy:
    """A study of trials that walk.

    Args:
        folder: for its space, its runs and what it prints.
        url: database as the test reaches it.
        trials: trials in the study.
        epochs: epochs of each.
        storage: database as the study reaches it, when that is another way.
        lease: seconds; a minute in earnest. The dead are looked for every twelfth of it.
        changes: replace keys of the space.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        trials: int,
        epochs: int,
        storage: str | None = None,
        lease: float = 30.0,
        **changes: Any,
    ) -> None:
        self.folder = folder
        self.trials, self.epochs = trials, epochs
        self._storage = storage or url
        self._lease = lease
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        self.space = write_space(
            folder,
            **{
                "trainer": "walking_trainer:walk",
                "overrides": {"loss.name": "ce_ss", "training.epochs": epochs},
                "budget": {"trials": trials},
                **changes,
            },
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or continue the search."""
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, "--space", str(self.space), "--runs-dir", str(self.folder / "runs")],
                cwd=self.folder,
                env=environment(SPIKEBENCH_STORAGE=self._storage, SPIKEBENCH_LEASE_SECONDS=str(self._lease)),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        searching.STARTED.append(self.process)

    @property
    def runs(self) -> Path:
        """The folder that holds the trials' folders."""
        return self.folder / "runs" / "tiny"

    def tie(self, epochs: int, trial: int | None = None) -> None:
        """Let no trial, or not one of them, go on beyond so many epochs."""
        leash.tie(self.runs if trial is None else self.runs / f"trial_{trial:05d}", epochs)

    def untie(self, trial: int | None = None) -> None:
        """Let trials go on to their end."""
        leash.untie(self.runs if trial is None else self.runs / f"trial_{trial:05d}")

    def standing(self, epochs: int) -> int:
        """Return how many trials have saved the state after so many epochs as their last."""
        states = [walking_trainer.saved(run_dir) for run_dir in self.runs.glob("trial_*")]
        return sum(state is not None and len(state["history"]) == epochs for state in states)

    def running(self) -> bool:
        """Tell whether the search has not ended."""
        return self.process is not None and self.process.poll() is None

    def finish(self, timeout: float = 240.0) -> str:
        """Wait for the search to end by itself and return what it printed."""
        assert self.process is not None
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the search did not end:\n{self.output()}") from None
        return self.output()

    def output(self) -> str:
        """Return what all starts have printed."""
        return (self.folder / "output.txt").read_text()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(sql))]

    def execute(self, sql: str) -> None:
        """Change the database behind the study's back."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(sql))

    def wait_for(self, sql: str, timeout: float = 120.0) -> Any:
        """Wait until a query gives a row with a true first column, and return that value."""

        def asked() -> Any:
            with contextlib.suppress(DBAPIError):  # the tables are not there yet
                return (self.query(sql) or [(None,)])[0][0]

        return self.wait_until(asked, sql, timeout)

    def wait_until(self, condition: Callable[[], Any], what: str, timeout: float = 120.0) -> Any:
        """Wait until something is true, and return it."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"never became true: {what}\n{self.output()}")
            time.sleep(0.05)
        return found

    def kill(self, victim: str) -> None:
        """Kill a living `trial` or `worker`, the `controller`, or `all`."""
        assert self.process is not None
        if victim == "all":
            kill_group(self.process)
        elif victim == "controller":
            self.process.kill()
            self.process.wait()
        else:
            os.kill(self.process_of(victim), signal.SIGKILL)

    def process_of(self, kind: str) -> int:
        """Return the process id of the newest living worker or trial, once there is one."""
        table = {"worker": "sb_workers", "trial": "sb_attempts"}[kind]
        sql = f"SELECT pid FROM {table} WHERE ended_at IS NULL AND pid IS NOT NULL ORDER BY started_at DESC LIMIT 1"

        def living() -> int | None:
            pid = self.wait_for(sql)
            return int(pid) if lives(int(pid)) else None  # of one that is dead the database has yet to hear

        return int(self.wait_until(living, f"a living {kind}"))

    def curves(self) -> dict[int, list[dict[str, float]]]:
        """Return each trial's epochs, the first one first."""
        found: dict[int, dict[int, dict[str, float]]] = {}
        for trial, epoch, name, value in self.query(
            "SELECT trial_number, epoch, name, value FROM sb_metrics JOIN sb_jobs ON sb_jobs.id = job_id"
        ):
            found.setdefault(trial, {}).setdefault(epoch, {})[name] = value
        return {trial: [epochs[number] for number in sorted(epochs)] for trial, epochs in found.items()}

    def assert_whole(self) -> None:
        """Check that there are exactly the trials asked for, each with the curve of an undisturbed run."""
        assert Counter(self.query("SELECT state FROM trials")) == {("COMPLETE",): self.trials}
        assert Counter(self.query("SELECT state, end_reason FROM sb_jobs")) == {("done", "finished"): self.trials}
        assert self.query("SELECT count(DISTINCT trial_number), count(*) FROM sb_jobs WHERE told") == [
            (self.trials, self.trials)
        ]
        assert self.query("SELECT count(*) FROM sb_epochs") == [(self.trials * self.epochs,)]
        configs = dict(self.query("SELECT trial_number, config FROM sb_jobs"))
        curves = self.curves()
        assert sorted(curves) == list(range(self.trials))
        for trial, config in configs.items():
            omega = _plain(config)["loss"]["omega"]
            assert curves[trial] == walking_trainer.undisturbed(omega, self.epochs)

    def repeated(self) -> dict[int, list[int]]:
        """Return how many epochs of each trial every attempt after the first has begun again."""
        journals = self.runs.glob(f"trial_*/{walking_trainer.JOURNAL}")
        return {
            int(path.parent.name.removeprefix("trial_")): walking_trainer.repeated(path.parent) for path in journals
        }

    def attempts(self) -> dict[int, list[str]]:
        """Return the end reasons of each trial's attempts."""
        found: dict[int, list[str]] = {}
        for trial, reason in self.query(
            "SELECT trial_number, sb_attempts.end_reason FROM sb_attempts JOIN sb_jobs ON sb_jobs.id = job_id"
            " ORDER BY trial_number, sb_attempts.attempt"
        ):
            found.setdefault(trial, []).append(reason)
        return found


def lives(pid: int) -> bool:
    """Tell whether a process has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _plain(config: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(config) if isinstance(config, str) else config
    return loaded
