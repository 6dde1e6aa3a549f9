"""`spikebench-search`: create or continue a study over a search space, and run it to its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from configs.problems import mask_credentials
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
from orchestrator.database import Database, open_database, storage_url
from orchestrator.endings import EXIT_PREEMPTED
from orchestrator.executors.base import Executor
from orchestrator.executors.local import LocalExecutor
from orchestrator.live import make_view
from orchestrator.one_machine import refuse_other_machines
from orchestrator.slots import described, slots
from orchestrator.study import Study, open_study
from orchestrator.summary import print_summary
from orchestrator.tables import StudyState
from orchestrator.targets import require_services, targets_of
from orchestrator.tracking import delivery
from orchestrator.trial_process import modules_of, require_trainer
from search_spaces.load import load_space
from search_spaces.preview import sample
from search_spaces.space import CheckedSpace
from trainers.data_presence import require_data

CONTEXT_SETTINGS = OVERRIDES
DRY_RUN_SAMPLES = 3


def command(
    ctx: typer.Context,
    space: Annotated[str, typer.Option("--space", "-s", help="Search space: a path, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="Trials in the study, in total.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; the space's own name by default.")] = None,
    workers: WorkersOption = "",
    threads: ThreadsOption = "",
    per_gpu: PerGpuOption = None,
    gpu_fraction: GpuFractionOption = None,
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
    shares = shares_of(per_gpu, gpu_fraction)
    section = checked.space.workers
    places = slots(
        count_or_auto(workers or str(section.count), "--workers"),
        count_or_auto(threads or str(section.threads), "--threads"),
        **(shares if any(shares.values()) else shares_of(section.per_gpu, section.gpu_fraction)),
    )
    require_trainer(checked.space.trainer)
    require_data(checked.base.data)
    require_services(checked.base.tracking)
    database = open_database(storage_url(storage), create=True)
    opened = open_study(database, checked, name=study, trials=trials)
    executor = LocalExecutor(database.url, opened.id, places, modules_of(checked.space.trainer))
    run_study(console, database, opened, Crew(executor, described(places), places[0].threads), runs_dir)


@dataclass(frozen=True, slots=True)
class Crew:
    """Who trains the trials of a study.

    Args:
        executor: starts the workers.
        described: for people, who and where they are.
        threads: CPU threads of each trial; 0 leaves them to the worker that starts it.
    """

    executor: Executor
    described: str
    threads: int


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
    with delivery(database, study.id, targets, view.note):
        controller = Controller(database, study, ask_tell, crew.executor, view)
        return controller.run(), controller.preempted


def show_samples(console: Console, checked: CheckedSpace) -> None:
    """Print configurations drawn from the space, as they would be trained."""
    for number, (params, config) in enumerate(sample(checked, DRY_RUN_SAMPLES)):
        console.rule(f"sample {number}: " + ", ".join(f"{key}={value}" for key, value in params.items()))
        text = mask_credentials(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"{checked.space.name}: the space is sound; nothing was started.")
