"""`spikebench doctor`: say what is installed, what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.commands.options import StorageOption
from orchestrator.doctor import examine
from orchestrator.findings import Finding, Health

COLOURS = {Health.OK: "green", Health.NOTE: "yellow", Health.WRONG: "bold red"}


def command(
    storage: StorageOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and reports.")] = Path("runs"),
) -> None:
    """Check versions, devices, disk and databases; exit with 1 when something is wrong."""
    findings = examine(storage, runs_dir)
    Console().print(*render(findings), sep="\n")
    if any(finding.health is Health.WRONG for finding in findings):
        raise typer.Exit(1)


def render(findings: Sequence[Finding]) -> list[Table | str]:
    """Return a table of every finding, then one line of advice for each that needs it."""
    table = Table("what", "state", "found", box=None, pad_edge=False, header_style="bold")
    for finding in findings:
        colour = COLOURS[finding.health]
        table.add_row(finding.topic, f"[{colour}]{finding.health}[/]", escape(finding.found))
    advice = [
        f"[{COLOURS[finding.health]}]{finding.topic}[/]: {escape(finding.advice)}"
        for finding in findings
        if finding.advice
    ]
    wrong = sum(finding.health is Health.WRONG for finding in findings)
    verdict = "[green]Everything is well.[/]" if not wrong else f"[bold red]{wrong} wrong.[/]"
    return [table, "", *advice, verdict]
