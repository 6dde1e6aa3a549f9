"""Where trials can run on this machine: shares of its GPUs, or of its CPU cores."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from orchestrator.errors import OrchestratorError
from orchestrator.machine.placement import Seat

MOST_CPU_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine."""

    device: str  # "cuda:0", numbered as nvidia-smi does
    name: str
    memory_mb: int
    driver: str
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one worker.

    Args:
        device: "cpu", "cuda:N", or "cuda:N,M" for trials of two processes.
        threads: CPU threads of a trial there.
        seat: its share of the GPU; None on the CPU.
    """

    device: str
    threads: int
    seat: Seat | None = None


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
    found = tuple(
        Gpu(f"cuda:{index}", name, int(float(memory)), driver, uuid) for index, uuid, name, memory, driver in rows
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else _visible(found, visible)


def _visible(found: tuple[Gpu, ...], visible: str) -> tuple[Gpu, ...]:
    """Choose as CUDA does: by number or beginning of a UUID, in the order given, up to the first that is wrong."""
    chosen: list[Gpu] = []
    for part in (part.strip() for part in visible.split(",")):
        gpu = next((g for g in found if part and (g.device == f"cuda:{part}" or g.uuid.startswith(part))), None)
        if gpu is None or gpu in chosen:
            break
        chosen.append(gpu)
    return tuple(chosen)


def cpu_cores() -> int:
    """Return the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots(
    workers: int | Literal["auto"] = "auto",
    threads: int | Literal["auto"] = "auto",
    per_gpu: int | None = None,
    gpu_fraction: float | None = None,
    processes: int = 1,
) -> list[Slot]:
    """Share this machine out.

    Args:
        workers: how many trials at once; "auto" fills every GPU, or takes one per CPU core (at most 8) without a GPU.
        threads: CPU threads of each; "auto" shares the cores out so that nothing is oversubscribed.
        per_gpu: trials at once on each GPU; None takes one, or as many as `gpu_fraction` says.
        gpu_fraction: share of a GPU's memory that a trial counts for until one like it has been measured, in (0, 1].
        processes: that train a trial together; each has a whole GPU of its own where there are any.

    Returns:
        One slot per worker; with GPUs the workers go round them.

    Raises:
        OrchestratorError: there are fewer GPUs than processes, or such a trial shall have shares of GPUs.
    """
    found = gpus()
    if processes > 1 and found:
        return _groups(found, workers, threads, processes, shared=bool(per_gpu or gpu_fraction))
    on_each = per_gpu or (math.floor(1.0 / gpu_fraction + 1e-9) if gpu_fraction else 1)
    on_cores = max(1, min(cpu_cores() // processes, MOST_CPU_WORKERS))
    count = workers if workers != "auto" else len(found) * on_each or on_cores
    each = threads if threads != "auto" else max(1, cpu_cores() // max(count, 1))
    if not found:
        return [Slot("cpu", each)] * count
    fraction = gpu_fraction or 1.0 / (per_gpu or math.ceil(count / len(found)))
    chosen = [found[number % len(found)] for number in range(count)]
    return [Slot(gpu.device, each, Seat(gpu.uuid, gpu.memory_mb, fraction * gpu.memory_mb)) for gpu in chosen]


def _groups(
    found: Sequence[Gpu], workers: int | Literal["auto"], threads: int | Literal["auto"], size: int, *, shared: bool
) -> list[Slot]:
    """Return slots of several whole GPUs each; no GPU is in two of them."""
    if shared:
        raise OrchestratorError(refused_shares(size))
    whole = len(found) // size
    if not whole or (workers != "auto" and workers > whole):
        wanted = f"{workers} trials at once" if whole else "a trial"
        raise OrchestratorError(
            f"{wanted} of {size} processes (training.processes) need a GPU for each, and this machine has "
            f"{len(found)}: lower {'--workers or ' if whole else ''}training.processes"
        )
    count = whole if workers == "auto" else workers
    each = threads if threads != "auto" else max(1, cpu_cores() // count)
    groups = [found[number * size : (number + 1) * size] for number in range(count)]
    return [Slot(names_of(group), each, _seat_of(group)) for group in groups]


def names_of(group: Sequence[Gpu]) -> str:
    """Return GPUs as one device: "cuda:0,1"."""
    return f"cuda:{','.join(gpu.device.removeprefix('cuda:') for gpu in group)}"


def refused_shares(processes: int) -> str:
    """Return why trials of several processes take no shares of GPUs."""
    return (
        f"a trial of {processes} processes (training.processes) takes as many whole GPUs: "
        "leave out per_gpu and gpu_fraction"
    )


def _seat_of(group: Sequence[Gpu]) -> Seat:
    first = group[0]
    return Seat(first.uuid, first.memory_mb, float(first.memory_mb), len(group))


def described(places: Sequence[Slot]) -> str:
    """Return places in words: "4 workers (2 on cuda:0, 2 on cuda:1) with 8 threads each".

    Args:
        places: at least one, each with the same threads.
    """
    devices = Counter(place.device for place in places)
    where = ", ".join(f"{count} on {device}" for device, count in devices.items()) if len(devices) > 1 else ""
    threads, count = places[0].threads, len(places)
    return (
        f"{count} worker{'s' * (count > 1)} {f'({where})' if where else f'on {places[0].device}'} "
        f"with {threads} thread{'s' * (threads > 1)}{' each' * (count > 1)}"
    )


@cache
def host_identity() -> str:
    """Return the host's name with an id of its present boot; a process id means something only within one boot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    mark = boot.read_text().strip()[:8] if boot.exists() else f"{uuid.getnode():x}"[:8]
    return f"{socket.gethostname()}/{mark}"
