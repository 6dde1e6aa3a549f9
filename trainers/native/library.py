"""Compile the C kernels once per machine and load them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("lif.c", "pool.c"))
HEADER = Path(__file__).with_name("common.h")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_TIMEOUT = 120.0


class NoCompilerError(OSError):
    """This machine has no C compiler."""


class Layer(ctypes.Structure):
    """The C structure of the same name; see lif.c."""

    _fields_ = (
        *[(name, ctypes.c_int64) for name in ("steps", "step_stride", "values", "block", "channels", "per_value")],
        *[(name, ctypes.c_int64) for name in ("threads", "hard_reset", "decay_input", "detach_reset", "surrogate")],
        *[(name, ctypes.c_double) for name in ("tau", "keep", "threshold", "rest", "alpha")],
    )


class Maps(ctypes.Structure):
    """The C structure of the same name; see pool.c."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "threads"))


@functools.cache
def load(double: bool) -> ctypes.CDLL:
    """Return the kernels for float or double, compiling them where this machine has not done so yet.

    The result is kept in the user's cache folder, under a name that holds source, compiler and processor.

    Args:
        double: for double instead of float.

    Raises:
        NoCompilerError: there is no C compiler.
        OSError: it fails, or its result cannot be loaded.
    """
    compiler = _compiler()
    flags = (*_FLAGS, "-DDOUBLE") if double else _FLAGS
    name = f"lif-{_fingerprint(compiler, flags)}.so"
    folder = _cache_folder()
    path = folder / name
    if not path.exists():
        _compile(compiler, flags, path)
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    for function, pointers in (("lif_forward", 5), ("lif_backward", 6), ("sum_channels", 2), ("denormalise", 5)):
        getattr(library, function).argtypes = (ctypes.POINTER(Layer), *[pointer] * pointers)
        getattr(library, function).restype = ctypes.c_int if function == "lif_backward" else None
    for function, pointers in (("pool_forward", 4), ("pool_backward", 7)):
        getattr(library, function).argtypes = (ctypes.POINTER(Maps), *[pointer] * pointers)
        getattr(library, function).restype = None
    return library


def _compiler() -> list[str]:
    """Return the command of the C compiler: $CC, or the first of the usual names."""
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise NoCompilerError("there is no C compiler (cc, gcc or clang; $CC names another)")


def _compile(compiler: list[str], flags: tuple[str, ...], path: Path) -> None:
    """Compile into a temporary file and rename it: another process may do the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        # Linked without an OpenMP library: torch has loaded the one whose threads are to be shared.
        units, result = [str(Path(scratch) / f"{source.stem}.o") for source in SOURCES], Path(scratch) / path.name
        for source, unit in zip(SOURCES, units, strict=True):
            _run([*compiler, *flags, "-fopenmp", "-c", str(source), "-o", unit])
        _run([*compiler, "-shared", *units, "-o", str(result), "-lm"])
        result.replace(path)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:]
        raise OSError(f"'{command[0]}' failed with code {error.returncode}: {' '.join(last)}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"'{command[0]}' took more than {_TIMEOUT:.0f} s") from error
    return done.stdout


def _fingerprint(compiler: list[str], flags: tuple[str, ...]) -> str:
    """Return a name that changes with whatever the compiled code depends on."""
    version = _run([*compiler, "--version"])
    code = [path.read_text(encoding="utf-8") for path in (HEADER, *SOURCES)]
    parts = (*code, " ".join(flags), version, platform.machine(), _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    """Return what the processor can do: code for another one may not run here (a home folder is often shared)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache_folder() -> Path:
    """Return a folder of the user's own for compiled code, or one of this process where there is none to write to."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "spikebench" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="spikebench-kernels-"))
