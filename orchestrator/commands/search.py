"""`spikebench-search`: create or continue a study over a search space, and run it to its end."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from configs.problems import mask_credentials
from orchestrator.commands.options import (
    OVERRIDES,
    GpuFractionOption,
    PerGpuOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    count_or_auto,
    overrides_of,
    shares_of,
)
from orchestrator.crew import Request
from orchestrator.launch import Ended, Search, require_means, run_search
from orchestrator.queue.endings import EXIT_PREEMPTED
from orchestrator.storage.database import open_database, storage_url
from orchestrator.storage.tables import StudyState
from search_spaces.load import load_space
from search_spaces.preview import sample
from search_spaces.space import CheckedSpace, Ray

CONTEXT_SETTINGS = OVERRIDES
DRY_RUN_SAMPLES = 3


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
        bool, typer.Option("--dry-run", help="Check everything, print three samples, start nothing.")
    ] = False,
) -> None:
    """Create or continue a study over a search space.

    The same command again goes on with the study. Any key of the base configuration can be set: --training.epochs 3.
    """
    console = Console(highlight=False)
    checked = load_space(space, [*(set_ or []), *overrides_of(ctx)])
    if dry_run:
        show_samples(console, checked)
        return
    checked = _with_executor(checked, executor, ray_address)
    shares = shares_of(per_gpu, gpu_fraction)
    section = checked.space.workers
    request = Request(
        count_or_auto(workers or str(section.count), "--workers"),
        count_or_auto(threads or str(section.threads), "--threads"),
        **(shares if any(shares.values()) else shares_of(section.per_gpu, section.gpu_fraction)),
    )
    require_means(checked)
    database = open_database(storage_url(storage), create=True)
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


def show_samples(console: Console, checked: CheckedSpace) -> None:
    """Print configurations drawn from the space, as they would be trained."""
    for number, (params, config) in enumerate(sample(checked, DRY_RUN_SAMPLES)):
        console.rule(f"sample {number}: " + ", ".join(f"{key}={value}" for key, value in params.items()))
        text = mask_credentials(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"{checked.space.name}: the space is sound; nothing was started.")
