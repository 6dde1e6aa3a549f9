"""Configuration problems: every mistake in a file is collected, then all are shown at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

_REFERENCE = r"\$\{\w+\}"  # to a variable of the environment: it names a password, but does not tell it
_CREDENTIALS = re.compile(rf"(?<=://)([^/@\s:]*):(?!{_REFERENCE}@)[^@\s]*(?=@)")
_QUERY = re.compile(rf"([?&](?:password|passwd|pwd|sslpassword|token|api_key|secret)=)(?!{_REFERENCE})[^&\s'\"]+", re.I)


class SpikebenchError(Exception):
    """Root of every error this project raises on purpose.

    Those marked * are about what a person typed or wrote (`wrong_input`): commands leave with exit code 2, else with 1.

    SpikebenchError
    ├── ConfigError *              a YAML file, an override or a search space is wrong
    ├── trainers.protocol.TrainerError
    │   ├── DataNotFoundError *    a data set is not where the configuration says
    │   ├── CheckpointError *      a checkpoint is missing, corrupt or of another model
    │   ├── DivergedError          the loss became NaN or infinite
    │   ├── DeadSpikesError        no spiking layer fires any more
    │   └── SaturatedError         every spiking layer fires all the time
    └── orchestrator.errors.OrchestratorError
        ├── StorageError           the database cannot be reached, written or read
        │   └── WrongStorageError *    what was given can be no database of studies: wrong URL, missing file
        │       └── NoTablesError *    the database has no tables of spikebench
        ├── StudyNotFoundError *   no study of that name is in the database
        ├── TrialNotFoundError *   the study has no trial of that number
        ├── ControlError *         what is asked of a study does not fit what it is doing
        ├── StudyMismatchError *   the study exists with another space
        ├── ReplayError *          a stored trial has no numbers to compare with
        ├── OutputError            a file cannot be written
        │   └── OutputExistsError * it is there already
        ├── StudyBusyError         another controller holds the study
        ├── TrainerNotFoundError * a space names a trainer that cannot be imported
        ├── TrackingError          a service to log to cannot be used here
        └── LeaseLostError         this worker was replaced; its late writes are refused
    """

    wrong_input: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Where:
    """A place where a value came from.

    Args:
        file: the YAML file, or None when the value came from none.
        line: 1-based line in the file.
        origin: what to call the place when there is no file.
    """

    file: Path | None
    line: int | None = None
    origin: str = "command line"

    def __str__(self) -> str:
        if self.file is None:
            return self.origin
        file = self.file
        if file.is_absolute() and file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        return f"{file}:{self.line}" if self.line else str(file)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Args:
        where: the place of the value.
        message: what was expected and what came.
        hint: what to do next.
        key: dotted key that the mistake is about; "" where it is about no single key.
    """

    where: Where
    message: str
    hint: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(SpikebenchError):
    """Report every problem of a configuration at once.

    Args:
        problems: at least one problem; repeated ones are dropped and the rest is put in the order of file and line,
            those of the command line last.
    """

    wrong_input = True

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(dict.fromkeys(problems), key=_order))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def _order(problem: Problem) -> tuple[bool, str, int]:
    where = problem.where
    return where.file is None, str(where.file), where.line or 0


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
    near.sort(key=lambda key: not key.startswith(word))  # a word cut short is the likeliest mistake
    if not near and "." in word:
        last = word.rsplit(".", 1)[1]
        near = [key for key in known if key.rsplit(".", 1)[-1] == last][:limit]
    if near:
        return suggested(near)
    if 0 < len(known) <= 12:
        return "known: " + ", ".join(sorted(known))
    return ""


def suggested(near: Sequence[str]) -> str:
    """Return `did you mean 'a' or 'b'?`, or "" for no name."""
    return "did you mean " + " or ".join(f"'{key}'" for key in near) + "?" if near else ""


def mask_credentials(text: str) -> str:
    """Replace the password of every URL in a text by `***`; a reference such as `${PASSWORD}` stays."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1:***", text))


def shown(value: object, width: int = 60) -> str:
    """Return a value the way a message shows it: text in quotes, `true`, `null`, sections by their name.

    Args:
        value: what was read.
        width: longer texts are cut to so many characters; passwords in URLs are masked.
    """
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, str):
        text = mask_credentials(value)
        return f"'{text if len(text) <= width else text[: width - 3] + '...'}'"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    text = mask_credentials(text)
    return text if len(text) <= width else text[: width - 3] + "..."
