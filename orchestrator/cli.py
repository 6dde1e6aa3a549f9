"""The command line: `spikebench COMMAND ...`, and `spikebench-search` as a name of its own for the main one."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from configs.problems import ConfigError, SpikebenchError

COMMANDS = {  # name -> one line for --help; the module orchestrator.commands.<name> is only imported when it runs
    "search": "Create or continue a study over a search space.",
    "train": "Train one configuration.",
    "evaluate": "Evaluate a checkpoint on a split.",
    "worker": "Help running studies with the GPUs or cores of this machine.",
    "status": "Show studies, workers and failures.",
    "report": "Write the report of a study as one HTML file.",
    "dashboard": "Open a study's database in optuna-dashboard.",
    "validate": "Check configurations and search spaces.",
    "schema": "Write the JSON Schema of configurations or search spaces.",
    "doctor": "Check this machine, its packages and the database.",
}
EXIT_ERROR = 1
EXIT_WRONG_INPUT = 2


def load_command(name: str) -> click.Command:
    """Import one command and return it for click.

    Args:
        name: a key of `COMMANDS`.
    """
    module = importlib.import_module(f"orchestrator.commands.{name}")
    application = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings: dict[str, Any] | None = getattr(module, "CONTEXT_SETTINGS", None)
    application.command(name, help=module.command.__doc__, context_settings=settings)(module.command)
    return typer.main.get_command(application)


class LazyGroup(TyperGroup):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; for the overview only its name and its one line."""
        if cmd_name not in COMMANDS:
            return None
        if len(sys.argv) < 2 or sys.argv[1] != cmd_name:
            return click.Command(cmd_name, help=COMMANDS[cmd_name])
        return load_command(cmd_name)


def main(arguments: list[str] | None = None) -> None:
    """Run `spikebench`."""
    group = LazyGroup(name="spikebench", help="Hyperparameter search for spiking transformers.", no_args_is_help=True)
    run(group, "spikebench", arguments)


def search_main(arguments: list[str] | None = None) -> None:
    """Run `spikebench-search`, which is `spikebench search`."""
    run(load_command("search"), "spikebench-search", arguments)


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> None:
    """Run a command and turn what this project raises on purpose into one clear message and an exit code.

    Args:
        command: what to run.
        name: name of the program, for the usage line.
        arguments: command line without the program; None takes the process's own.
    """
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except ConfigError as error:
        fail(f"{len(error.problems)} problem{'s' * (len(error.problems) != 1)} found, nothing was started:\n{error}", 2)
    except SpikebenchError as error:
        fail(str(error), EXIT_ERROR)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = EXIT_WRONG_INPUT
    except click.ClickException as error:
        fail(error.format_message(), EXIT_WRONG_INPUT)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> None:
    """Print a message to stderr, without breaking lines that hold paths and commands, and leave with a code."""
    Console(stderr=True, highlight=False).print(message, style="red", soft_wrap=True, markup=False)
    sys.exit(code)
