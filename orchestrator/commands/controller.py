"""`spikebench controller`: run a study whose workers are elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import OVERRIDES, StorageOption, overrides_of, require_writable
from orchestrator.commands.search import leave
from orchestrator.crew import Crew
from orchestrator.executors.absent import AbsentExecutor
from orchestrator.launch import run_study
from orchestrator.storage.database import Database, open_database, storage_url
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import Study, open_study, require_row
from orchestrator.tracking.targets import require_services
from search_spaces.load import load_space
from search_spaces.space import CheckedSpace

CONTEXT_SETTINGS = OVERRIDES


def command(
    ctx: typer.Context,
    space: Annotated[
        str | None, typer.Option("--space", "-s", help="Search space: a path, or the name of a shipped one.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study. Without --space it goes on with the space it has.")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="Trials in the study, in total.")] = None,
    storage: StorageOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder that this machine and all workers share.")] = Path("runs"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value on the base configuration.")] = None,
) -> None:
    """Run a study without workers of its own: it waits for `spikebench worker`, started on any machine.

    It needs no GPU. Ctrl-C: running trials write a checkpoint and are given back; the same command goes on.
    """
    console = Console(highlight=False)
    overrides = [*(set_ or []), *overrides_of(ctx)]
    if space is None and study is None:
        raise typer.BadParameter("say which study: --space SPACE, or --study NAME for one that is there")
    if space is None and overrides:
        raise typer.BadParameter(f"{overrides[0]}: a study that is there keeps its configuration; give --space as well")
    require_writable(runs_dir)
    database, opened = _opened(space, study, trials, storage, overrides)
    threads = opened.checked.space.workers.threads
    crew = Crew(
        AbsentExecutor(),
        f"waiting for `spikebench worker --study {opened.name}` from any machine",
        0 if threads == "auto" else threads,
    )
    leave(run_study(console, database, opened, crew, runs_dir))


def _opened(
    space: str | None, study: str | None, trials: int | None, storage: str | None, overrides: list[str]
) -> tuple[Database, Study]:
    if space is None:
        database = open_ready(storage)
        row = require_row(database, study)
        checked, study, trials = CheckedSpace.from_json(row.space_json), row.name, trials or row.budget_trials
    else:
        checked = load_space(space, overrides)
        database = open_database(storage_url(storage), create=True)
    require_services(checked.base.tracking)
    return database, open_study(database, checked, name=study, trials=trials)
