"""A trial's configuration as a file of its own, which `spikebench train` runs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import yaml

from configs.resolve import to_dict
from configs.schema import RunConfig
from orchestrator.errors import OutputError, OutputExistsError, TrialNotFoundError
from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reading.labels import end_text
from orchestrator.reading.views import TrialView
from orchestrator.reproduction.stored_trial import StoredTrial, read_trial
from orchestrator.storage.database import Database

RULE = "of the feasible front the trial that is best in the first objective"
WIDTH = 100


def export_trial(database: Database, study_name: str, number: int | None) -> tuple[int, str]:
    """Return a trial's number and its configuration as YAML, under a comment that says where it is from.

    Where numbers go (`tracking`) is left to whoever trains it, so no address and no secret of one is in it.

    Args:
        database: an open database.
        study_name: the study.
        number: of the trial; None takes the one of `RULE`.

    Raises:
        StudyNotFoundError: there is no such study.
        TrialNotFoundError: the study has no such trial, or none that keeps the constraints where none is named.
        ConfigError: this version of the program does not accept the stored configuration.
    """
    history = read_history(database, study_name)
    chosen = best_trial(history).number if number is None else number
    stored = read_trial(database, study_name, chosen)
    view = next(trial for trial in history.trials if trial.number == chosen)
    why = f"; {RULE}" if number is None else ""
    return chosen, f"{_header(history, view, stored, why)}\n{as_yaml(stored.config())}"


def best_trial(history: StudyHistory) -> TrialView:
    """Return the trial of `RULE`.

    Raises:
        TrialNotFoundError: no trial has finished, or none keeps the constraints.
    """
    name, front = history.study.name, history.front
    if not front.trials:
        raise TrialNotFoundError(f"no trial of study '{name}' has finished: give the number of a trial to export")
    if not front.feasible:
        nearest = ", ".join(str(trial.number) for trial in front.trials)
        raise TrialNotFoundError(
            f"no trial of study '{name}' keeps the constraints: give the number of a trial to export "
            f"(nearest to keeping them: {nearest})"
        )
    return front.trials[0]


def as_yaml(config: RunConfig) -> str:
    """Return a configuration as YAML that reads back as the same, without `tracking`."""
    data = to_dict(config)
    del data["tracking"]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def write_export(text: str, path: Path) -> None:
    """Write an exported configuration into a new file.

    Raises:
        OutputExistsError: the file is there already.
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if path.exists():
            raise OutputExistsError(f"{path} is there already: delete it, or give another --out") from error
        raise OutputError(f"cannot write {path}: {error.strerror}; give another --out") from error


def _header(history: StudyHistory, view: TrialView, stored: StoredTrial, why: str) -> str:
    study = history.study
    lines = [f"Trial {view.number} of study {study.name}{why}.", f"space {study.space}, hash {study.space_hash}"]
    lines.append(f"drawn: {', '.join(f'{key} = {value!r}' for key, value in stored.params.items())}")
    last = stored.curves.get(max(stored.curves, default=0), {})
    measured = [f"{o.metric} = {last[o.metric]!r} ({o.direction})" for o in study.objectives if o.metric in last]
    ended = end_text(stored.end_reason) if stored.end_reason else "not ended yet"
    lines.append(f"{', '.join(measured) or 'nothing measured'} after {view.epochs} epochs; {ended}")
    if study.constraints:
        kept = "kept" if view.violation <= 0 else "not kept"
        lines.append(f"constraints: {', '.join(map(str, study.constraints))}; {kept}")
    if stored.halvings:
        lines.append(f"memory ran out in the search: batches are halved {stored.halvings} times, their sum is the same")
    lines.append(f"configuration hash {stored.config_hash}")
    lines.append(f"the same numbers: spikebench train --config THIS_FILE --threads {stored.threads}")
    wrapped = (part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="  "))
    return "\n".join(f"# {part}" for part in wrapped)
