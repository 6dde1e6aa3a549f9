"""`spikebench schema`: write the JSON Schema by which editors complete and check the YAML files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.json_schema import config_schema
from orchestrator.errors import OutputError
from search_spaces.json_schema import space_schema


def command(
    space: Annotated[bool, typer.Option("--space", help="Of search spaces.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, else standard output.")] = None,
) -> None:
    """Write the JSON Schema of configurations, or of search spaces.

    Name the file in the first line of a YAML file: `# yaml-language-server: $schema=spikebench.schema.json`.
    """
    text = json.dumps(space_schema() if space else config_schema(), indent=2)
    if output is None:
        typer.echo(text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}; give another --output") from None
    Console(highlight=False).print(f"wrote {output}", soft_wrap=True, markup=False)
