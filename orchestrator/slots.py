"""Where trials can run on this machine: one slot per GPU, or shares of the CPU cores."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

MOST_CPU_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine."""

    device: str  # "cuda:0", numbered as nvidia-smi does
    name: str
    memory_mb: int
    driver: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one worker.

    Args:
        device: "cpu" or "cuda:N".
        threads: CPU threads of a trial there.
    """

    device: str
    threads: int


@cache
def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs this process may use, respecting `CUDA_VISIBLE_DEVICES`, without starting CUDA."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 4]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if visible is None else [part.strip() for part in visible.split(",") if part.strip()]
    return tuple(
        Gpu(f"cuda:{index}", name, int(float(memory)), driver)
        for index, identity, name, memory, driver in rows
        if wanted is None or index in wanted or any(identity.startswith(part) for part in wanted)
    )


def cpu_cores() -> int:
    """Return the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots(workers: int | Literal["auto"] = "auto", threads: int | Literal["auto"] = "auto") -> list[Slot]:
    """Share this machine out.

    Args:
        workers: how many trials at once; "auto" is one per GPU, or one per CPU core (at most 8) without a GPU.
        threads: CPU threads of each; "auto" shares the cores out so that nothing is oversubscribed.

    Returns:
        One slot per worker; with GPUs the workers go round them.
    """
    found = gpus()
    count = workers if workers != "auto" else len(found) or min(cpu_cores(), MOST_CPU_WORKERS)
    each = threads if threads != "auto" else max(1, cpu_cores() // max(count, 1))
    return [Slot(found[number % len(found)].device if found else "cpu", each) for number in range(count)]


@cache
def host_identity() -> str:
    """Return the host's name with an id of its present boot; a process id means something only within one boot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    mark = boot.read_text().strip()[:8] if boot.exists() else f"{uuid.getnode():x}"[:8]
    return f"{socket.gethostname()}/{mark}"
