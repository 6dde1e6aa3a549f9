"""The surroundings of a trial: code, packages and device, so that a number can be made again."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from importlib.metadata import distributions, version
from pathlib import Path

from orchestrator.slots import gpus


@dataclass(frozen=True)
class Provenance:
    """What an attempt ran on; the fields are the columns of `sb_environments`."""

    git_commit: str | None
    git_dirty_hash: str | None
    python: str
    torch: str
    packages: dict[str, str]
    device_name: str
    driver: str | None

    @cached_property
    def digest(self) -> str:
        """Digest of all fields; equal surroundings share one row."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def columns(self) -> dict[str, object]:
        """Return the fields as column values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@cache
def provenance(device: str) -> Provenance:
    """Describe this process's code, packages and device; computed once per worker.

    Args:
        device: "cpu" or "cuda:N".
    """
    gpu = next((gpu for gpu in gpus() if gpu.device == device), None)
    return Provenance(
        git_commit=_git("rev-parse", "HEAD"),
        git_dirty_hash=_dirty_hash(),
        python=platform.python_version(),
        torch=version("torch"),
        packages={item.metadata["Name"]: item.version for item in distributions()},
        device_name=gpu.name if gpu else cpu_name(),
        driver=gpu.driver if gpu else None,
    )


def cpu_name() -> str:
    """Return the processor's name as the system knows it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _dirty_hash() -> str | None:
    """Return a digest of uncommitted changes, or None in a clean tree or outside a checkout."""
    changes = _git("diff", "HEAD")
    return hashlib.sha256(changes.encode()).hexdigest() if changes else None


def _git(*arguments: str) -> str | None:
    """Run git in the folder the code lies in; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
