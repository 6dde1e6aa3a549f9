"""`spikebench validate`: check configurations and search spaces without training anything."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.catalog import ROOT, absent, find_config, shipped_configs
from configs.problems import ConfigError, Problem
from configs.resolve import config_hash, resolve
from configs.sources import load_yaml
from search_spaces.catalog import find_space, shipped_spaces
from search_spaces.load import load_space

SPACE_KEYS = {"parameters", "objectives", "base", "sampler", "budget"}


def command(
    files: Annotated[list[str], typer.Argument(help="YAML files, or names of shipped configurations and spaces.")],
) -> None:
    """Check configurations and search spaces: prints a line for each that is sound, and every problem of the others."""
    problems: list[Problem] = []
    console = Console(highlight=False)
    for file in files:
        try:
            console.print(check(file), style="green", soft_wrap=True, markup=False)
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)


def check(file: str) -> str:
    """Check one file and return a line that says what is in it.

    Args:
        file: path or shipped name; whether it is a space or a configuration is seen from its keys.

    Raises:
        ConfigError: with everything that is wrong with it.
    """
    path = _path_of(file)
    if SPACE_KEYS & load_yaml(path).data.keys():
        checked = load_space(path)
        objectives = " and ".join(f"{item.direction} {item.metric}" for item in checked.space.objectives)
        return f"{file}: search space over {', '.join(checked.space.parameters)} to {objectives}: OK"
    config = resolve(path).config
    return f"{file}: configuration of {config.model.name} on {config.data.name}, {config_hash(config)[:12]}: OK"


def _path_of(file: str) -> Path:
    for find in (find_config, find_space):
        with suppress(ConfigError):
            return find(file)
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in shipped_configs()]
    names += [path.stem for path in shipped_spaces()]
    raise ConfigError([absent(file, Path(), names, "configuration or search space")])
