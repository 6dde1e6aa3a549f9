"""`spikebench db`: make, migrate and check the tables of a database."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.doctor import render
from orchestrator.commands.options import StorageOption
from orchestrator.findings import Health
from orchestrator.reading.overview import read_studies
from orchestrator.storage.database import Database, open_database, storage_url
from orchestrator.storage.schema import NEWEST, create_or_upgrade, examine, open_ready, revision


class Action(StrEnum):
    """What to do with the database."""

    INIT = "init"
    UPGRADE = "upgrade"
    CHECK = "check"
    COPY = "copy"


def command(
    action: Annotated[
        Action,
        typer.Argument(
            help="init makes the tables, upgrade migrates them, check leaves with 1 if any is wrong, copy copies."
        ),
    ],
    studies: Annotated[list[str] | None, typer.Argument(help="copy: the studies; all by default.")] = None,
    storage: StorageOption = None,
    to: Annotated[
        str | None, typer.Option("--to", help="copy: the other database; write '${VARIABLE}' for its password.")
    ] = None,
) -> None:
    """Make, migrate or check the tables of a database, Optuna's and spikebench's own, or copy studies to another.

    A search does the first two by itself; do them beforehand where searches may not create tables.
    """
    console = Console(highlight=False)
    if action is Action.COPY:
        copy(console, storage, to, studies or [])
        return
    if studies or to:
        raise typer.BadParameter(f"studies and --to are for 'copy', not for '{action}'")
    database = open_database(storage_url(storage), create=action is Action.INIT, tables=False)
    try:
        if action is Action.CHECK:
            check(console, database)
        else:
            migrate(console, database)
    finally:
        database.engine.dispose()


def migrate(console: Console, database: Database) -> None:
    """Bring all tables to the newest revision and say what was done."""
    before = revision(database)
    create_or_upgrade(database)
    what = {None: f"tables made, revision {NEWEST}", NEWEST: f"up to date, revision {NEWEST}"}
    done = what.get(before, f"migrated from revision {before} to {NEWEST}")
    console.print(f"{database.masked_url}: {done}", soft_wrap=True)


def check(console: Console, database: Database) -> None:
    """Print everything that was looked at; leave with 1 when something is wrong."""
    findings = examine(database)
    console.print(*render(findings), sep="\n")
    if any(finding.health is Health.WRONG for finding in findings):
        raise typer.Exit(1)


def copy(console: Console, storage: str | None, to: str | None, names: list[str]) -> None:
    """Copy studies to another database and say what each had."""
    from orchestrator.studies.copying import copy_study  # noqa: PLC0415 - brings Optuna, which the other actions do without

    if to is None:
        raise typer.BadParameter("copy needs --to, the URL of the other database")
    source, target = open_ready(storage), open_database(storage_url(to), create=True)
    try:
        for name in names or [snapshot.study.name for snapshot in read_studies(source)]:
            copied = copy_study(source, target, name)
            console.print(
                f"study {copied.study}: {copied.trials} trials, {copied.metrics} numbers copied to {target.masked_url}",
                soft_wrap=True,
            )
    finally:
        source.engine.dispose()
        target.engine.dispose()
