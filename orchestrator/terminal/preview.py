"""What a dry run shows: everything about a search that a person wants to see before it starts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.problems import mask_credentials
from orchestrator.reading.labels import number_text
from search_spaces.preview import sample
from search_spaces.space import CheckedSpace, Constraint, described

SAMPLES = 3


def print_preview(
    console: Console,
    checked: CheckedSpace,
    study: str,
    *,
    typed: Sequence[str],
    trials: int,
    workers: str,
    results: str,
) -> None:
    """Print what would be searched, by whom and where to, with the parameters of some trials drawn at random.

    Args:
        console: where to print.
        checked: the space.
        study: name of the study.
        typed: overrides of the command line, as they were typed.
        trials: trials in the study, in total.
        workers: who would train.
        results: folder and database.

    Raises:
        ConfigError: drawn parameters do not fit together.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(checked, typed, trials, workers, results):
        table.add_row(name, Text(mask_credentials(text)))
    console.print(table)
    console.print()
    console.print(_samples(checked))
    console.print(
        f"\nthe space is sound; nothing was started. The whole configuration of a trial: "
        f"`spikebench export {study} NUMBER`, once it runs",
        soft_wrap=True,
        markup=False,
    )


def _lines(
    checked: CheckedSpace, typed: Sequence[str], trials: int, workers: str, results: str
) -> Iterator[tuple[str, str]]:
    space, base = checked.space, checked.base
    yield "space", f"{space.name}{f': {space.description}' if space.description else ''}"
    training = f"{base.training.epochs} epochs in batches of {base.training.batch_size}"
    yield "base", f"{space.base}: {base.model.name} on {base.data.name}, {base.loss.name}, {training}"
    if laid_over := [*_flat(space.overrides), *([shlex.join(typed)] if typed else [])]:
        yield "overrides", ", ".join(laid_over)
    yield "objectives", ", ".join(f"{item.direction} {item.metric}" for item in space.objectives)
    if space.constraints:
        yield "constraints", ", ".join(map(_bounds, space.constraints))
    if rules := [*_stop_rules(checked)]:
        yield "ends early", ", ".join(rules)
    hours = f", at most {space.budget.hours:g} h of all together" if space.budget.hours else ""
    yield "trials", f"{trials}, drawn by {space.sampler.name}{hours}"
    yield "workers", workers
    yield "results", results


def _stop_rules(checked: CheckedSpace) -> Iterator[str]:
    stop = checked.space.stop
    if stop.rungs is not None:
        first, factor = stop.rungs.first, stop.rungs.factor
        yield f"what is not among the best 1/{factor} at epoch {first}, {first * factor}, {first * factor**2}, ..."
    if any(item.hard for item in checked.space.constraints):
        yield "what breaks a hard constraint"


def _flat(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={number_text(value)}"


def _bounds(item: Constraint) -> str:
    """Return a constraint as people write it: `val_accuracy >= 0.5, hard`."""
    bounds = [f">= {item.min:g}" if item.min is not None else "", f"<= {item.max:g}" if item.max is not None else ""]
    return f"{item.metric} {' and '.join(filter(None, bounds))}{' (hard)' if item.hard else ''}"


def _samples(checked: CheckedSpace) -> Table:
    """Return the parameters as a table: what each may be, and what it is in some trials."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("parameter", overflow="fold")
    table.add_column("may be", overflow="fold")
    drawn = sample(checked, SAMPLES)
    for number in range(1, SAMPLES + 1):
        table.add_column(f"sample {number}", justify="right", no_wrap=True)
    for key, parameter in checked.space.parameters.items():
        values = [number_text(params[key]) if key in params else "-" for params, _ in drawn]
        table.add_row(key, Text(described(parameter)), *map(Text, values))
    return table
