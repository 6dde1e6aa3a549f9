"""Which machine and which boot a process belongs to, and whether it is gone."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import psutil


def host_identity() -> str:
    """Return the host's name with an id of its present boot; a process id means something only within one boot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    mark = boot.read_text().strip()[:8] if boot.exists() else f"{uuid.getnode():x}"[:8]
    return f"{socket.gethostname()}/{mark}"


def is_dead(host: str, pid: int, process_started: float) -> bool:
    """Tell whether a process is certainly gone; only this host's processes can be told."""
    if host != host_identity():
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - process_started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
