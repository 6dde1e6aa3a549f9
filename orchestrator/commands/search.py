"""`spikebench-search`: create or continue a study over a search space, and run it to its end."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from orchestrator.commands.options import (
    OVERRIDES,
    GpuFractionOption,
    PerGpuOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    count_or_auto,
    overrides_of,
    require_writable,
    shares_of,
)
from orchestrator.crew import Request, in_words
from orchestrator.launch import Ended, Search, require_means, run_search
from orchestrator.queue.endings import EXIT_PREEMPTED
from orchestrator.storage.database import mask, open_database, storage_url
from orchestrator.storage.tables import StudyState
from orchestrator.terminal.preview import print_preview
from search_spaces.load import load_space
from search_spaces.space import CheckedSpace, Ray

CONTEXT_SETTINGS = OVERRIDES


class ExecutorName(StrEnum):
    """What runs trials."""

    LOCAL = "local"
    RAY = "ray"
    DEBUG = "debug"


def command(
    ctx: typer.Context,
    space: Annotated[str, typer.Option("--space", "-s", help="Search space: a path, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="Trials in the study, in total.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; the space's own name by default.")] = None,
    workers: WorkersOption = "",
    threads: ThreadsOption = "",
    per_gpu: PerGpuOption = None,
    gpu_fraction: GpuFractionOption = None,
    executor: Annotated[
        ExecutorName | None,
        typer.Option(help="What runs trials: local, ray or debug; the space's own by default.", show_default=False),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of a Ray cluster's head, auto for the one this machine is in.", show_default=False
        ),
    ] = None,
    storage: StorageOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and reports.")] = Path("runs"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value on the base configuration.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, print what would run, start nothing."),
    ] = False,
) -> None:
    """Create or continue a study over a search space.

    The same command again goes on with the study. Any key of the base configuration can be set: --training.epochs 3.
    """
    console = Console(highlight=False)
    typed = [*(set_ or []), *overrides_of(ctx)]
    checked = _with_executor(load_space(space, typed), executor, ray_address)
    shares = shares_of(per_gpu, gpu_fraction)
    section = checked.space.workers
    request = Request(
        count_or_auto(workers or str(section.count), "--workers"),
        count_or_auto(threads or str(section.threads), "--threads"),
        **(shares if any(shares.values()) else shares_of(section.per_gpu, section.gpu_fraction)),
    )
    url = storage_url(storage)
    if dry_run:
        name = study or checked.space.name
        print_preview(
            console,
            checked,
            name,
            typed=typed,
            trials=trials or checked.space.budget.trials,
            workers=in_words(checked.space, request),
            results=f"{runs_dir / name}, {mask(url)}",
        )
        return
    require_means(checked)
    require_writable(runs_dir / (study or checked.space.name))
    database = open_database(url, create=True)
    leave(run_search(console, database, Search(checked, request, study, trials, runs_dir)))


def _with_executor(checked: CheckedSpace, executor: ExecutorName | None, ray_address: str | None) -> CheckedSpace:
    """Lay what the command line says about executors over the space."""
    name = executor or checked.space.executor
    ray = checked.space.ray
    if ray_address is not None:
        if name != "ray":
            raise typer.BadParameter(f"--ray-address is for --executor ray, and the executor is {name}")
        try:
            ray = Ray.model_validate({**ray.model_dump(), "address": ray_address})
        except ValidationError:
            raise typer.BadParameter(
                f"--ray-address takes HOST:PORT, auto or local, got '{ray_address}'; "
                "a ray:// address is for clients, and Ray Tune has to be a driver"
            ) from None
    return replace(checked, space=checked.space.model_copy(update={"executor": str(name), "ray": ray}))


def leave(ended: Ended) -> None:
    """Leave with the exit code of how a study ended; 0 when it is complete.

    Raises:
        typer.Exit: with 75 after SIGTERM, else with 1 when the study is not complete or no trial has finished.
    """
    if ended.preempted:
        raise typer.Exit(EXIT_PREEMPTED)
    if ended.state is not StudyState.COMPLETE or not ended.finished:
        raise typer.Exit(1)
