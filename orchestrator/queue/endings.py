"""What the end of a trial's process means: of its exception, of its exit code, and what memory it had until then."""

from __future__ import annotations

import contextlib
import errno
import resource
import signal
import sys
from pathlib import Path

from orchestrator.storage.tables import EndReason
from trainers.protocol import DeadSpikesError, DivergedError, SaturatedError

EXIT_PREEMPTED = 75
EXIT_OOM = 70

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
# What libraries say instead of raising MemoryError or torch.OutOfMemoryError.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "std::bad_alloc",
)


def reason_of_error(error: Exception) -> EndReason:
    """Return the end reason of what a trainer raised."""
    if is_out_of_memory(error):
        return EndReason.OOM
    for kind, reason in (
        (DivergedError, EndReason.NAN),
        (DeadSpikesError, EndReason.DEAD_SPIKES),
        (SaturatedError, EndReason.SATURATED),
    ):
        if isinstance(error, kind):
            return reason
    return EndReason.ERROR


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an exception says that the memory of a GPU or of the host ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def reason_of_exit(code: int | None, *, kernel_killed: bool) -> tuple[EndReason, str]:
    """Return the end reason of a process that ended without a word, and how it ended.

    Args:
        code: its exit code; negative for a signal.
        kernel_killed: the kernel has lately killed something on this host because memory ran out.
    """
    if code is None or code >= 0:
        return EndReason.CRASH, f"exit code {code}"
    number = signal.Signals(-code)
    if number is signal.SIGKILL and kernel_killed:
        return EndReason.OOM, "killed by the kernel because the host's memory, or its limit, ran out"
    if number is signal.SIGTERM:
        return EndReason.PREEMPTED, "ended by SIGTERM before it could write a checkpoint"
    reason = EndReason.LOST if number in _FROM_OUTSIDE else EndReason.CRASH
    return reason, f"killed by {number.name}"


def kernel_kills() -> int:
    """Return how many processes the kernel of this host has killed for memory so far; 0 where it does not count."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def peak_memory_mb() -> float | None:
    """Return the most GPU memory that torch has reserved in this process, in MiB; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    with contextlib.suppress(RuntimeError):  # after a fault of the device nothing can be asked of it
        return float(torch.cuda.max_memory_reserved()) / 2**20
    return None


def peak_rss_mb() -> float:
    """Return the most host memory that this process has had, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
