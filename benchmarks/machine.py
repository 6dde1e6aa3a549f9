"""The machine a number was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil
from rich.console import Console

from orchestrator.machine.provenance import cpu_name
from orchestrator.machine.slots import cpu_cores, gpus

PACKAGES = ("torch", "optuna", "sqlalchemy", "ray", "spikingjelly", "timm", "psycopg")


def machine_facts() -> dict[str, object]:
    """Return processor, memory, GPUs, load and versions, as plain JSON values."""
    return {
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": [gpu.name for gpu in gpus()],
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def describe(facts: dict[str, object]) -> str:
    """Return one line that names the machine."""
    return f"{facts['cores']} cores, {facts['cpu']}, {facts['memory_gib']} GiB, load {facts['load_average']}"


def wide_console() -> Console:
    """Return a console that does not break tables when its output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
