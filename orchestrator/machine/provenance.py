"""The surroundings of a trial: code, packages and device, so that a number can be made again."""

from __future__ import annotations

import hashlib
import json
import platform
import runpy
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path

from orchestrator.machine.slots import Gpu, gpus

HERE = Path(__file__).resolve()
CODE = ("*.py", "*.yaml")  # files of a checkout that decide what a trial does


@dataclass(frozen=True)
class Provenance:
    """What an attempt ran on; the fields are the columns of `sb_environments`.

    Args:
        git_commit: revision of this code; None outside a checkout of it.
        git_dirty_hash: digest of what differs from that revision, new files included; None where nothing does.
        python: version.
        torch: version.
        packages: name -> version of everything installed.
        device_name: the GPU, or the processor.
        driver: of the GPU.
        platform: operating system, architecture and C library.
        cuda: version that torch was built with; None without one.
        cudnn: version of its package; None where it is not installed as one.
    """

    git_commit: str | None
    git_dirty_hash: str | None
    python: str
    torch: str
    packages: dict[str, str]
    device_name: str
    driver: str | None
    platform: str | None
    cuda: str | None
    cudnn: str | None

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
        device: "cpu", "cuda:N" or "cuda:N,M".
    """
    numbers = device.removeprefix("cuda:").split(",")
    used = [gpu for gpu in gpus() if gpu.device.removeprefix("cuda:") in numbers]
    gpu = used[0] if used else None
    packages = {item.metadata["Name"]: item.version for item in distributions()}
    commit = _commit()
    return Provenance(
        git_commit=commit,
        git_dirty_hash=_dirty_hash() if commit else None,
        python=platform.python_version(),
        torch=version("torch"),
        packages=packages,
        device_name=_name_of(used) if used else cpu_name(),
        driver=gpu.driver if gpu else None,
        platform=platform.platform(),
        cuda=_cuda(),
        cudnn=next((number for name, number in packages.items() if name.startswith("nvidia-cudnn-cu")), None),
    )


def _name_of(used: Sequence[Gpu]) -> str:
    """Return the names of GPUs, equal ones once: "2 x NVIDIA H100"."""
    counts = Counter(gpu.name for gpu in used)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def cpu_name() -> str:
    """Return the processor's name as the system knows it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cuda() -> str | None:
    """Return the CUDA version that torch was built with, without the seconds that importing torch takes."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found = runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda")
    return None if found is None else str(found)


def _commit() -> str | None:
    """Return the checked-out revision; None for an installed copy, even where it lies inside another checkout."""
    return _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", HERE.name) else None


def _dirty_hash() -> str | None:
    """Return a digest of changed files and of code that git does not know, or None in a clean tree."""
    changes = _git("diff", "HEAD")
    unknown = _git("ls-files", "--others", "--exclude-standard", "--", *(f":/{pattern}" for pattern in CODE))
    if not (changes or unknown):
        return None
    digest = hashlib.sha256((changes or "").encode())
    for name in (unknown or "").splitlines():
        digest.update(name.encode())
        path = HERE.parent / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """Run git in the folder the code lies in; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
