"""A trial on a leash stands still after an epoch that a test has chosen, so that no test has to race with it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from trainers.protocol import Reporter, Verdict

FILE = "leash.txt"
STANDING = "standing.txt"  # process and epochs of the trial that stands in a folder


def tie(folder: Path, epochs: int) -> None:
    """Let no trial go on that has done so many epochs; a longer leash lets it go on up to there.

    Args:
        folder: a trial's own, or the one above, for all trials in it that have no leash of their own.
        epochs: the leash's length.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / FILE, str(epochs))


def untie(folder: Path) -> None:
    """Let the trials of a folder go on to their end."""
    (folder / FILE).unlink(missing_ok=True)


def standing(run_dir: Path) -> tuple[int, int] | None:
    """Return the process of the trial that stood last in a folder, and how many epochs it had done."""
    with contextlib.suppress(FileNotFoundError):
        pid, epochs = (run_dir / STANDING).read_text().split()
        return int(pid), int(epochs)
    return None


def verdict_at(run_dir: Path, epochs: int, report: Reporter) -> Verdict:
    """Ask for the verdict, and stand still for as long as the leash is no longer and nothing else is wanted."""
    told = False
    while (verdict := report.verdict()) is Verdict.CONTINUE and epochs >= _length(run_dir):
        if not told:
            _write(run_dir / STANDING, f"{os.getpid()} {epochs}")
            told = True
        time.sleep(0.01)
    return verdict


def _length(run_dir: Path) -> float:
    for folder in (run_dir, run_dir.parent):
        with contextlib.suppress(FileNotFoundError):
            return int((folder / FILE).read_text())
    return float("inf")


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)
