"""Configuration problems: every mistake in a file is collected, then all are shown at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class SpikebenchError(Exception):
    """Root of every error this project raises on purpose.

    SpikebenchError
    ├── ConfigError                a YAML file, an override or a search space is wrong (exit code 2)
    ├── trainers.protocol.TrainerError
    │   ├── DataNotFoundError      a data set is not where the configuration says
    │   ├── CheckpointError        a checkpoint is missing, corrupt or of another model
    │   └── DivergedError          the loss became NaN or infinite
    └── orchestrator.errors.OrchestratorError
        ├── StorageError           the database cannot be reached, written or read
        ├── StudyMismatchError     the study exists with another space
        ├── StudyBusyError         another controller holds the study
        └── LeaseLostError         this worker was replaced; its late writes are refused
    """


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a YAML file, or the command line when `file` is None."""

    file: Path | None
    line: int | None = None

    def __str__(self) -> str:
        if self.file is None:
            return "command line"
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what was expected and what came, and what to do next."""

    where: Where
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(SpikebenchError):
    """Report every problem of a configuration at once.

    Args:
        problems: at least one problem, in the order of file and line.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Sequence[str], limit: int = 3) -> str:
    """Return a hint naming the known words nearest to an unknown one.

    Args:
        word: what was written; for a dotted key both the whole key and its last part are compared.
        known: what would have been accepted.
        limit: at most so many suggestions.

    Returns:
        `did you mean 'a' or 'b'?`, or `known: ...` when nothing is near and the list is short, or "".
    """
    near = difflib.get_close_matches(word, known, n=limit, cutoff=0.6)
    if not near and "." in word:
        last = word.rsplit(".", 1)[1]
        near = [key for key in known if key.rsplit(".", 1)[-1] == last][:limit]
    if near:
        return "did you mean " + " or ".join(f"'{key}'" for key in near) + "?"
    if 0 < len(known) <= 12:
        return "known: " + ", ".join(sorted(known))
    return ""
