"""Run a study from its checks to its report: what the command line and Python have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from orchestrator.crew import Crew, Request, hire
from orchestrator.queue.one_machine import refuse_other_machines
from orchestrator.reports.artifact_process import artifacts_beside, make_all
from orchestrator.reports.artifacts import OUR_TRAINER, lacking
from orchestrator.storage.database import Database
from orchestrator.storage.study import Study, open_study
from orchestrator.storage.tables import StudyState
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.controller import Controller
from orchestrator.terminal.live import make_view
from orchestrator.terminal.summary import print_summary
from orchestrator.tracking.targets import require_services, targets_of
from orchestrator.tracking.tracking import delivery
from orchestrator.workers.trial_process import require_trainer
from search_spaces.space import CheckedSpace
from trainers.data_presence import require_data

REPORT = "report.html"  # in the study's folder
ARTIFACTS = "artifacts"  # folder under the runs, as `spikebench dashboard` has it
ARTIFACT_SECONDS = 120.0  # how long a search that is complete waits for figures


@dataclass(frozen=True, slots=True)
class Ended:
    """How a study ended.

    Args:
        state: COMPLETE, or STOPPED with the reason in the study's row.
        preempted: by SIGTERM.
        finished: at least one trial has finished.
    """

    state: StudyState
    preempted: bool
    finished: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A search to be run.

    Args:
        checked: the space.
        request: how trials share what is there.
        study: name of the study; the space's own name by default.
        trials: trials in the study, in total; the space's budget by default.
        runs_dir: folder for checkpoints, logs and reports.
    """

    checked: CheckedSpace
    request: Request
    study: str | None = None
    trials: int | None = None
    runs_dir: Path = Path("runs")


def require_means(checked: CheckedSpace) -> None:
    """Raise unless everything that the trials of a space need is there; to be called before a database is made.

    Args:
        checked: the space.

    Raises:
        OrchestratorError: the trainer or a service cannot be used.
        DataNotFoundError: the data set is not there.
    """
    require_trainer(checked.space.trainer)
    require_data(checked.base.data)
    require_services(checked.base.tracking)


def run_search(console: Console, database: Database, search: Search) -> Ended:
    """Create or continue a study with workers of its own and run it to its end; `require_means` comes before.

    Raises:
        OrchestratorError: a cluster cannot be used, or the study has another space.
    """
    space = search.checked.space
    crew = hire(search.checked, search.request, database.url, search.runs_dir / (search.study or space.name))
    opened = open_study(database, search.checked, name=search.study, trials=search.trials)
    return run_study(console, database, opened, crew(opened), search.runs_dir)


def run_study(console: Console, database: Database, study: Study, crew: Crew, runs_dir: Path) -> Ended:
    """Run an opened study to its end, deliver its numbers where the configuration says, and print what came out."""
    try:
        state, preempted = _controlled(console, database, study, crew, runs_dir)
    finally:
        study.close()
    finished = print_summary(console, database, study.name, runs_dir / study.name / REPORT)
    if state is StudyState.COMPLETE and finished and study.checked.space.trainer == OUR_TRAINER:
        _complete_artifacts(console, database, study.name, runs_dir / ARTIFACTS)
    return Ended(state, preempted, finished)


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
    report = runs_dir / study.name / REPORT
    with (
        delivery(database, study.id, targets, view.note, report),
        artifacts_beside(database, study.id, study.name, runs_dir / ARTIFACTS, view.note),
    ):
        controller = Controller(database, study, ask_tell, crew.executor, view)
        state = controller.run()
        from orchestrator.reports.report import write_report  # noqa: PLC0415 - plotly takes seconds to load: not before the first trial

        write_report(database, study.name, report)
        return state, controller.preempted
