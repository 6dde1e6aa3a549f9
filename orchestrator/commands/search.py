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
from orchestrator.artifact_process import artifacts_beside, make_all
from orchestrator.artifacts import OUR_TRAINER, lacking
from orchestrator.ask_tell import AskTell
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
from orchestrator.controller import Controller
from orchestrator.crew import Crew, Request, hire
from orchestrator.database import Database, open_database, storage_url
from orchestrator.endings import EXIT_PREEMPTED
from orchestrator.live import make_view
from orchestrator.one_machine import refuse_other_machines
from orchestrator.study import Study, open_study
from orchestrator.summary import print_summary
from orchestrator.tables import StudyState
from orchestrator.targets import require_services, targets_of
from orchestrator.tracking import delivery
from orchestrator.trial_process import require_trainer
from search_spaces.load import load_space
from search_spaces.preview import sample
from search_spaces.space import CheckedSpace, Ray
from trainers.data_presence import require_data

CONTEXT_SETTINGS = OVERRIDES
DRY_RUN_SAMPLES = 3
ARTIFACTS = "artifacts"  # folder under the runs, as `spikebench dashboard` has it
ARTIFACT_SECONDS = 120.0  # how long a search that is complete waits for figures


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
    require_trainer(checked.space.trainer)
    require_data(checked.base.data)
    require_services(checked.base.tracking)
    database = open_database(storage_url(storage), create=True)
    crew = hire(checked.space, request, database.url, runs_dir / (study or checked.space.name))
    opened = open_study(database, checked, name=study, trials=trials)
    run_study(console, database, opened, crew(opened), runs_dir)


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


def run_study(console: Console, database: Database, study: Study, crew: Crew, runs_dir: Path) -> None:
    """Run a study to its end, deliver its numbers where the configuration says, and print what came out.

    Raises:
        typer.Exit: with 75 after SIGTERM, else with 1 when the study is not complete or no trial has finished.
    """
    try:
        state, preempted = _controlled(console, database, study, crew, runs_dir)
    finally:
        study.close()
    from orchestrator.report import write_report  # noqa: PLC0415 - plotly takes seconds to load: not before the first trial

    report = write_report(database, study.name, runs_dir / study.name / "report.html")
    finished = print_summary(console, database, study.name, report)
    if preempted:
        raise typer.Exit(EXIT_PREEMPTED)
    if state is not StudyState.COMPLETE or not finished:
        raise typer.Exit(1)
    if study.checked.space.trainer == OUR_TRAINER:
        _complete_artifacts(console, database, study.name, runs_dir / ARTIFACTS)


def _complete_artifacts(console: Console, database: Database, study: str, folder: Path) -> None:
    """Make what is missing beside the trials of the front, for a while."""
    if not (missing := lacking(database, study, folder)):
        return
    later = f"`spikebench artifacts {study}` makes the rest"
    many = f"{len(missing)} front trial{'s' if len(missing) > 1 else ''}"
    console.print(f"figures of {many} for `spikebench dashboard` (Ctrl-C: {later} later)", soft_wrap=True)
    try:
        made = make_all(database, study, folder, console.print, ARTIFACT_SECONDS)
    except KeyboardInterrupt:
        made = False
    if not made:
        console.print(f"not all figures are made: {later}", soft_wrap=True)


def _controlled(
    console: Console, database: Database, study: Study, crew: Crew, runs_dir: Path
) -> tuple[StudyState, bool]:
    """Return how the study ended and whether SIGTERM was why."""
    refuse_other_machines(database)
    ask_tell = AskTell(database, study, runs_dir.resolve(), crew.threads)
    console.print(
        f"study [bold]{study.name}[/]: {ask_tell.told} of {study.budget} trials done, "
        f"{crew.described}, {database.masked_url}",
        soft_wrap=True,
    )
    targets = targets_of(study.checked.base.tracking, runs_dir / study.name)
    view = make_view(console)
    with (
        delivery(database, study.id, targets, view.note),
        artifacts_beside(database, study.id, study.name, runs_dir / ARTIFACTS, view.note),
    ):
        controller = Controller(database, study, ask_tell, crew.executor, view)
        return controller.run(), controller.preempted


def show_samples(console: Console, checked: CheckedSpace) -> None:
    """Print configurations drawn from the space, as they would be trained."""
    for number, (params, config) in enumerate(sample(checked, DRY_RUN_SAMPLES)):
        console.rule(f"sample {number}: " + ", ".join(f"{key}={value}" for key, value in params.items()))
        text = mask_credentials(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"{checked.space.name}: the space is sound; nothing was started.")
