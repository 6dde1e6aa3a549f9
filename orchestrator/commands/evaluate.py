"""`spikebench evaluate`: measure the model of a checkpoint on a split."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from configs.layers import layer_of_overrides, merge
from configs.overrides import parse_overrides
from configs.problems import ConfigError, Problem
from orchestrator.commands.options import OVERRIDES, overrides_of
from orchestrator.errors import OutputError
from trainers.checkpoint import newest_valid
from trainers.evaluation import evaluate
from trainers.protocol import CheckpointError

CONTEXT_SETTINGS = OVERRIDES


def command(
    ctx: typer.Context,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="Checkpoint file, or the folder of a run.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    energy_table: Annotated[
        Path | None, typer.Option(help="CSV file for what each layer did: spikes, operations, energy.")
    ] = None,
) -> None:
    """Measure the model of a checkpoint on a split.

    The configuration is in the checkpoint; what differs on this machine can be set: --data.data_dir ~/data.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    path = checkpoint_of(checkpoint)
    if energy_table is not None:
        require_writable(energy_table)
    measured = evaluate(path, split, overrides=read_overrides(ctx), threads=threads, energy_table=energy_table)
    console = Console(highlight=False)
    console.print(f"{path}, split {split}", soft_wrap=True, markup=False)
    table = Table("metric", "value", box=None, pad_edge=False, header_style="bold")
    for name, value in measured.items():
        table.add_row(name, f"{value:.6f}")
    console.print(table)


def checkpoint_of(path: Path) -> Path:
    """Return the file itself, or the newest valid checkpoint of a run's folder.

    Raises:
        CheckpointError: the folder has none.
    """
    if not path.is_dir():
        return path
    if (newest := newest_valid(path)) is None:
        raise CheckpointError(f"there is no valid checkpoint (ckpt-<epoch>-<step>.pt) in {path}")
    return newest


def require_writable(path: Path) -> None:
    """Raise unless a file can be written, before anything is measured; it is left as it is.

    Raises:
        OutputError: it cannot be written.
    """
    existed = path.exists()
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give another --energy-table") from error
    if not existed:
        path.unlink()


def read_overrides(ctx: typer.Context) -> dict[str, object]:
    """Return the dotted keys of the command line with their values.

    Raises:
        ConfigError: a word is no override.
    """
    problems: list[Problem] = []
    merged = merge([layer_of_overrides(parse_overrides(overrides_of(ctx), problems))], problems)
    if problems:
        raise ConfigError(problems)
    return {key: entry.value for key, entry in merged.items()}
