"""Examine this installation: what is here, what is wrong with it and what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import StorageError
from orchestrator.findings import Finding, Health
from orchestrator.machine.provenance import cpu_name
from orchestrator.machine.slots import Gpu, Slot, cpu_cores, gpus, slots
from orchestrator.storage.database import (
    NETWORK_FILE_SYSTEMS,
    URL_VARIABLE,
    file_system_of,
    first_line,
    open_database,
    storage_url,
)

DISTRIBUTION = "spikebench"
UNLISTED_EXTRAS = {"dev"}
GIB = 2**30
SCARCE_DISK = 5 * GIB
NO_DISK = GIB // 2


def examine(storage: str | None, runs: Path) -> list[Finding]:
    """Look at everything a search needs.

    Args:
        storage: database URL; None takes the one a search would take.
        runs: folder for checkpoints and logs; it need not exist yet.

    Returns:
        Every finding, good and bad, in the order a person reads them. A check that fails itself is a finding too.
    """
    found = gpus()
    return [
        *_guarded("python", lambda: [check_python(platform.python_version(), _metadata("Requires-Python"))]),
        *_guarded("packages", lambda: check_packages(_requirements(), installed_version)),
        *_guarded("torchvision operators", lambda: [check_torchvision()]),
        *_guarded("CPU", lambda: [check_cpu()]),
        *_guarded("GPU", lambda: check_gpus(found, torch_cuda())),
        *_guarded("workers", lambda: [check_slots(slots())]),
        *_guarded("neuron backend", lambda: [check_neurons("cuda" if torch_cuda().available else "cpu")]),
        *_guarded("disk", lambda: [check_disk(runs)]),
        *_guarded("database", lambda: [check_database(storage)]),
        *_guarded("MLflow", lambda: [check_mlflow(runs / "mlflow.db")]),
    ]


def _guarded(topic: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Turn whatever breaks inside a check into a finding: a broken installation is what this is for."""
    try:
        return check()
    except Exception as error:
        return [
            Finding(
                topic, Health.WRONG, f"{type(error).__name__}: {error}", "run `make clean install` to install afresh"
            )
        ]


# --- Python and packages ----------------------------------------------------------------------------------------------


def check_python(running: str, required: str) -> Finding:
    """Compare the running Python with the range the project supports."""
    if SpecifierSet(required).contains(running, prereleases=True):
        return Finding("python", Health.OK, running)
    return Finding("python", Health.WRONG, f"{running}, needs {required}", "make clean install PYTHON=python3.12")


def check_packages(requirements: Iterable[str], installed: Callable[[str], str | None]) -> list[Finding]:
    """Compare installed packages with the ranges the project asks for.

    Args:
        requirements: requirement strings with their markers, as a distribution's metadata lists them.
        installed: gives the version of an installed package, or None.
    """
    return [
        _check_package(requirement, extra, installed(requirement.name))
        for requirement, extra in map(_applicable, requirements)
        if extra is not None and extra not in UNLISTED_EXTRAS
    ]


def _applicable(line: str) -> tuple[Requirement, str | None]:
    """Return a requirement with the extra it belongs to: "" for none, None when it does not apply to this machine."""
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return requirement, ""
    extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return requirement, next((extra for extra in extras if requirement.marker.evaluate({"extra": extra})), None)


def _check_package(requirement: Requirement, extra: str, present: str | None) -> Finding:
    name, wanted = requirement.name, str(requirement.specifier)
    if present is None and extra:
        return Finding(name, Health.OK, f"not installed, optional: pip install '{DISTRIBUTION}[{extra}]'")
    if present is None:
        return Finding(name, Health.WRONG, f"not installed, needs {wanted or 'any version'}", "make install")
    if not requirement.specifier.contains(present, prereleases=True):
        return Finding(
            name, Health.WRONG, f"{present}, needs {wanted}", f"pip install '{name}{wanted}', or make clean install"
        )
    return Finding(name, Health.OK, present)


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    return metadata(DISTRIBUTION).get_all("Requires-Dist") or []


def _metadata(key: str) -> str:
    return str(metadata(DISTRIBUTION)[key])


def check_torchvision() -> Finding:
    """Import torchvision the way the trainers do."""
    from trainers import torchvision_ops  # noqa: PLC0415 - torch takes seconds and may be broken

    declared = torchvision_ops.operators_declared()
    how = "declared by us, for this torchvision was built for another torch" if declared else "its own"
    return Finding("torchvision operators", Health.OK, how)


# --- devices ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TorchCuda:
    """What torch says of CUDA."""

    version: str
    built_for: str | None
    available: bool
    devices: int


def torch_cuda() -> TorchCuda:
    """Ask torch what it can use."""
    import torch  # noqa: PLC0415 - takes seconds and may be broken

    available = torch.cuda.is_available()
    return TorchCuda(torch.__version__, torch.version.cuda, available, torch.cuda.device_count() if available else 0)


def check_cpu() -> Finding:
    """Describe the processor and the memory this process may use."""
    memory = psutil.virtual_memory()
    threads = f", OMP_NUM_THREADS={limit}" if (limit := os.environ.get("OMP_NUM_THREADS")) else ""
    free = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB memory free"
    if memory.available < GIB:
        return Finding(
            "CPU", Health.NOTE, f"{cpu_name()}, {cpu_cores()} cores, {free}{threads}", "trials may run out of memory"
        )
    return Finding("CPU", Health.OK, f"{cpu_name()}, {cpu_cores()} cores, {free}{threads}")


def check_gpus(found: tuple[Gpu, ...], cuda: TorchCuda) -> list[Finding]:
    """Compare the GPUs the driver shows with what torch can use."""
    if not found and cuda.available:
        advice = "install nvidia-smi, which comes with the driver: workers are placed by what it lists"
        return [Finding("GPU", Health.NOTE, f"torch sees {cuda.devices}, nvidia-smi lists none", advice)]
    if not found:
        return [Finding("GPU", Health.OK, "none, trials run on the CPU")]
    shown = [f"{gpu.name}, {gpu.memory_mb / 1024:.0f} GiB, driver {gpu.driver}" for gpu in found]
    if cuda.available:
        return [Finding(gpu.device, Health.OK, text) for gpu, text in zip(found, shown, strict=True)]
    advice = (
        "this torch is a CPU build: install the CUDA build of the same version"
        if cuda.built_for is None
        else f"update the driver to one for CUDA {cuda.built_for}, or install a torch built for an older CUDA"
    )
    return [
        Finding(gpu.device, Health.WRONG, f"{text}; torch {cuda.version} cannot use it", advice)
        for gpu, text in zip(found, shown, strict=True)
    ]


def check_slots(places: list[Slot]) -> Finding:
    """Say how a search with `workers: auto` would share this machine out."""
    devices = ", ".join(dict.fromkeys(place.device for place in places))
    each = f"{places[0].threads} CPU thread{'s' * (places[0].threads != 1)} each"
    return Finding("workers", Health.OK, f"{len(places)} at once on {devices}, {each}")


def check_neurons(device: str) -> Finding:
    """Name the kernel that `neuron.backend: auto` takes on a device, after its comparison with plain torch."""
    import torch  # noqa: PLC0415 - takes seconds and may be broken

    from trainers.neuron_backends import choose_backend  # noqa: PLC0415

    return Finding("neuron backend", Health.OK, f"{choose_backend('auto', torch.device(device))} on {device}")


# --- disk and databases -----------------------------------------------------------------------------------------------


def existing_parent(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def check_disk(runs: Path) -> Finding:
    """Tell whether checkpoints can be written and for how long there is room."""
    folder = existing_parent(runs)
    free = shutil.disk_usage(folder).free
    shown = f"{free / GIB:.1f} GiB free for {runs.absolute()}"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            "disk", Health.WRONG, f"{folder} cannot be written", "make it writable, or search from another folder"
        )
    if free < NO_DISK:
        return Finding("disk", Health.WRONG, shown, "free some space: checkpoints will fail")
    if free < SCARCE_DISK:
        return Finding("disk", Health.NOTE, shown, "large models may fill it: lower training.keep_checkpoints")
    return Finding("disk", Health.OK, shown)


def check_database(storage: str | None) -> Finding:
    """Open the database a search would use, and see whether it may be written."""
    try:
        url = storage_url(storage)
        path = _sqlite_path(url)
        if path is not None and not path.exists():
            return _check_missing_sqlite(path)
        database = open_database(url)
    except StorageError as error:
        return Finding("database", Health.WRONG, "not usable", str(error))
    try:
        server = database.write(_try_writing, patience=0)
        return Finding("database", Health.OK, f"{database.masked_url}, {server}")
    except Exception as error:
        return Finding(
            "database", Health.WRONG, f"{database.masked_url}: {first_line(error)}", "give this user the right to write"
        )
    finally:
        database.engine.dispose()


def _sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for any other URL, good or bad."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _try_writing(connection: Connection) -> str:
    """Name the server, or raise; on SQLite beginning the transaction already fails when the file is read-only."""
    if connection.dialect.name == "postgresql":
        may = connection.execute(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar_one()
        if not may:
            raise StorageError("no right to create tables in this schema")
        return "PostgreSQL " + str(connection.execute(text("SHOW server_version")).scalar_one())
    return "SQLite " + sqlite3.sqlite_version


def _check_missing_sqlite(path: Path) -> Finding:
    folder = existing_parent(path)
    if (kind := file_system_of(folder)) in NETWORK_FILE_SYSTEMS:
        advice = f"SQLite loses data there: use a local path, or PostgreSQL through {URL_VARIABLE}"
        return Finding("database", Health.WRONG, f"{path} would be on a network file system ({kind})", advice)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            "database", Health.WRONG, f"{path} cannot be created", f"make {folder} writable, or give another --storage"
        )
    return Finding("database", Health.OK, f"{path}, made by the first search")


def check_mlflow(path: Path) -> Finding:
    """Tell whether the default MLflow database can be written."""
    if not path.exists():
        folder = existing_parent(path)
        if os.access(folder, os.W_OK):
            return Finding("MLflow", Health.OK, f"{path}, made when tracking.mlflow is on")
        return Finding(
            "MLflow", Health.NOTE, f"{path} cannot be created", f"make {folder} writable, or set tracking.mlflow_uri"
        )
    try:
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return Finding("MLflow", Health.NOTE, f"{path}: {error}", "searches run without MLflow; make the file writable")
    return Finding("MLflow", Health.OK, str(path))
