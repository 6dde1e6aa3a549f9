"""A trial on a leash stands still after an epoch that a test has chosen, so that no test has to race with it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainers.protocol import Reporter, Verdict

FILE = "leash.txt"
STANDING = "standing_*.txt"  # the epochs after which the process of that number stood last


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


def standing(run_dir: Path) -> dict[int, int]:
    """Return the processes that have stood in a trial's folder, and after how many epochs each stood last."""
    before, after = STANDING.split("*")
    return {
        int(path.name.removeprefix(before).removesuffix(after)): int(path.read_text())
        for path in run_dir.glob(STANDING)
    }


@contextlib.contextmanager
def held(run_dir: Path, epochs: int, then: Callable[[int], object]) -> Iterator[None]:
    """Do something, beside the block, to the trial that the block runs; untie it afterwards, or when that fails.

    Args:
        run_dir: the trial's folder.
        epochs: where it stands until then.
        then: given the trial's process; called from another thread.
    """
    tie(run_dir, epochs)
    for stale in run_dir.glob(STANDING):
        stale.unlink()
    ended = threading.Event()

    def act() -> None:
        try:
            while not (trial := standing(run_dir)):
                if ended.wait(0.01):
                    return
            then(*trial)
        except BaseException:
            untie(run_dir)
            raise

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(act)
        try:
            yield
        finally:
            ended.set()
            untie(run_dir)
    beside.result()


def verdict_at(run_dir: Path, epochs: int, report: Reporter) -> Verdict:
    """Ask for the verdict, and stand still for as long as the leash is no longer and nothing else is wanted."""
    told = False
    while (verdict := report.verdict()) is Verdict.CONTINUE and epochs >= _length(run_dir):
        if not told:
            _write(run_dir / STANDING.replace("*", str(os.getpid())), str(epochs))
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
