"""`spikebench dashboard`: optuna-dashboard on the database of the studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.reports.dashboard import make_dashboard
from orchestrator.storage.schema import open_ready


def command(
    storage: StorageOption = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    artifacts: Annotated[Path, typer.Option(help="Folder for files attached in the dashboard.")] = Path(
        "runs/artifacts"
    ),
    no_login_is_fine: Annotated[
        bool, typer.Option("--no-login-is-fine", help="Allow a --host that other machines reach, without any login.")
    ] = False,
) -> None:
    """Open the studies in optuna-dashboard, until Ctrl-C.

    It shows everything and takes notes; it cannot delete, rename or change a study.
    """
    console = Console(highlight=False)
    database = open_ready(storage)
    server = make_dashboard(database, host, port, artifacts, open_to_network=no_login_is_fine)
    shown = f"[{host}]" if ":" in host else host
    console.print(f"dashboard of {database.masked_url}", markup=False, soft_wrap=True)
    console.print(f"http://{shown}:{server.server_port}/  (Ctrl-C ends it)", markup=False, soft_wrap=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("dashboard ended; studies go on")
    finally:
        server.server_close()
