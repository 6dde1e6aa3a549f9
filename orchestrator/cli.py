"""The command line: `spikebench COMMAND ...`, and `spikebench-search` as a name of its own for the main one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from configs.problems import ConfigError, SpikebenchError

COMMANDS = {  # name -> one line for --help; the module is only imported when its command runs
    "search": "Create or continue a study over a search space.",
    "train": "Train one configuration.",
    "evaluate": "Evaluate a checkpoint on a split.",
    "convert-checkpoint": "Turn a published checkpoint into one that can be evaluated.",
    "worker": "Help running studies with the GPUs or cores of this machine.",
    "controller": "Run a study whose workers are elsewhere.",
    "status": "Show studies, budgets, workers and failures.",
    "pause": "Let a study rest: its trials write checkpoints and wait.",
    "resume": "Go on with a paused study.",
    "stop": "End the work on a study; the same search command goes on.",
    "cancel": "End one trial of a study for good.",
    "enqueue": "Have a study try parameters of your choice.",
    "replay": "Train a trial again and compare its curves digit by digit.",
    "export": "Write a trial's configuration as a file that `spikebench train` runs.",
    "report": "Write the report of a study as one HTML file.",
    "db": "Make, migrate or check the tables of a database.",
    "dashboard": "Open a study's database in optuna-dashboard.",
    "artifacts": "Put figures of front trials into the dashboard.",
    "validate": "Check configurations and search spaces.",
    "schema": "Write the JSON Schema of configurations or search spaces.",
    "doctor": "Check this machine, its packages and the database.",
}
NOT_DONE = {"enqueue": ", nothing was enqueued", "validate": ""}  # command -> what did not happen for wrong input
EXIT_ERROR = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def application(arguments: list[str]) -> typer.Typer:
    """Build `spikebench` with the one command that is asked for; the others are only names in the overview.

    Args:
        arguments: command line without the program.
    """
    built = typer.Typer(
        help="Hyperparameter search for spiking transformers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    asked = arguments[0] if arguments else ""
    for name, line in COMMANDS.items():
        if name == asked:
            add_command(built, name)
        else:
            built.command(name, help=line)(_not_loaded)
    return built


def add_command(built: typer.Typer, name: str) -> None:
    """Import the module of a command and add it.

    Args:
        built: where to add it.
        name: a key of `COMMANDS`.
    """
    module = importlib.import_module(f"orchestrator.commands.{name.replace('-', '_')}")
    settings: dict[str, Any] | None = getattr(module, "CONTEXT_SETTINGS", None)
    built.command(name, context_settings=settings)(module.command)


def main(arguments: list[str] | None = None) -> None:
    """Run `spikebench`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    run(lambda: application(arguments), "spikebench", arguments)


def search_main(arguments: list[str] | None = None) -> None:
    """Run `spikebench-search`, which is `spikebench search`."""
    run(search_application, "spikebench-search", sys.argv[1:] if arguments is None else arguments)


def search_application() -> typer.Typer:
    """Build `spikebench-search`."""
    built = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    add_command(built, "search")
    return built


def run(build: Callable[[], typer.Typer], name: str, arguments: list[str]) -> None:
    """Run an application and turn what this project raises on purpose into one clear message and an exit code.

    Args:
        build: makes the application; that takes seconds, in which somebody may press Ctrl-C.
        name: name of the program, for the usage line.
        arguments: command line without the program.
    """
    try:
        build()(arguments, prog_name=name)
    except KeyboardInterrupt:  # once the application is built, typer sees to it, with the same code
        sys.exit(EXIT_INTERRUPTED)
    except ConfigError as error:
        count = len(error.problems)
        so = NOT_DONE.get(arguments[0] if arguments else "", ", nothing was started")
        fail(f"{count} problem{'s' if count > 1 else ''} found{so}:\n{error}", EXIT_WRONG_INPUT)
    except SpikebenchError as error:
        fail(str(error), EXIT_WRONG_INPUT if error.wrong_input else EXIT_ERROR)


def fail(message: str, code: int) -> None:
    """Print a message to stderr, without breaking lines that hold paths and commands, and leave with a code."""
    Console(stderr=True, highlight=False).print(message, style="red", soft_wrap=True, markup=False)
    sys.exit(code)


def _not_loaded() -> None:
    """Stand for a command in the overview; never runs, because the command that is asked for is loaded."""
