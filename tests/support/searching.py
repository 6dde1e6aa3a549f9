"""Run the real command line on a small space, and read what it left in the database."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import leash
import yaml

SUPPORT = Path(__file__).parent
STARTED: list[subprocess.Popen[bytes]] = []  # ended by a fixture, whatever a test forgets
PROGRAM = [sys.executable, "-c", "from orchestrator.cli import search_main; search_main()"]


def write_space(folder: Path, **changes: Any) -> Path:
    """Write a space over omega and c of a tiny run on digits; `changes` replace its top-level keys."""
    space: dict[str, Any] = {
        "name": "tiny",
        "base": "stal/srnn_digits",
        "overrides": {
            "loss.name": "ce_ss",
            "training.epochs": 4,
            "encoder.hidden_channels": 4,
            "tracking.mlflow": False,
        },
        "parameters": {
            "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
            "loss.c": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
        },
        "objectives": [
            {"metric": "val_accuracy", "direction": "maximize"},
            {"metric": "val_spike_density", "direction": "minimize"},
        ],
        "sampler": {"name": "random", "seed": 5},
        "budget": {"trials": 4},
        "workers": {"count": 2, "threads": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**space, **changes}, sort_keys=False))
    return path


def start(folder: Path, space: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `spikebench-search` in a process group of its own, with its database and runs under a folder."""
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, "--space", str(space), "--storage", f"sqlite:///{folder}/study.db",
             "--runs-dir", str(folder / "runs"), *arguments],
            cwd=folder,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    STARTED.append(process)
    return process


def environment(**more: str) -> Mapping[str, str]:
    """Return an environment in which the fake trainers can be imported."""
    return {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", **more}


def finish(folder: Path, process: subprocess.Popen[bytes], timeout: float = 240.0) -> str:
    """Wait for a search to end by itself and return what it printed."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise AssertionError(f"the search did not end:\n{printed(folder)}") from None
    return (folder / "output.txt").read_text()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the search and everything it started, as a power cut would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the study's database."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def wait_for(folder: Path, sql: str, timeout: float = 120.0) -> None:
    """Wait until a query returns a first column that is true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if (rows := query(folder, sql)) and rows[0][0]:
                return
        except sqlite3.OperationalError:
            pass  # the database is not there yet
        time.sleep(0.05)
    raise AssertionError(f"never became true: {sql}\n{printed(folder)}")


def printed(folder: Path) -> str:
    """Return what all processes of a folder have printed."""
    return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in sorted(folder.glob("*.txt")))


def wait_for_words(folder: Path, words: str, timeout: float = 120.0) -> None:
    """Wait until some process of a folder has printed something."""
    deadline = time.monotonic() + timeout
    while words not in printed(folder):
        assert time.monotonic() < deadline, f"nobody says '{words}':\n{printed(folder)}"
        time.sleep(0.05)


def exit_code(folder: Path, process: subprocess.Popen[bytes], timeout: float = 120.0) -> int:
    """Wait until a process has ended by itself, and return its exit code."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{process.args!r} did not end:\n{printed(folder)}") from None


def tie(folder: Path, epochs: int) -> None:
    """Let no trial of the study go on beyond so many epochs."""
    leash.tie(folder / "runs" / "tiny", epochs)


def untie(folder: Path) -> None:
    """Let the study's trials go on to their end."""
    leash.untie(folder / "runs" / "tiny")


def curves(folder: Path) -> dict[tuple[int, int, str], float]:
    """Return {(trial, epoch, metric): value}."""
    rows = query(
        folder,
        "SELECT trial_number, epoch, name, value FROM sb_metrics JOIN sb_jobs ON sb_jobs.id = job_id",
    )
    return {(trial, epoch, name): value for trial, epoch, name, value in rows}
