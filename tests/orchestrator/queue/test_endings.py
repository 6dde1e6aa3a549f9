"""Every way in which a process may end is understood."""

from __future__ import annotations

import errno
import signal

import pytest
import torch

from orchestrator.queue.endings import kernel_kills, peak_memory_mb, peak_rss_mb, reason_of_error, reason_of_exit
from orchestrator.storage.tables import EndReason
from trainers.protocol import DeadSpikesError, DivergedError, SaturatedError, TrainerError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), EndReason.OOM),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), EndReason.OOM),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), EndReason.OOM),
        (RuntimeError("CUDA error: out of memory"), EndReason.OOM),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), EndReason.OOM),
        (OSError(errno.ENOSPC, "No space left on device"), EndReason.ERROR),
        (RuntimeError("the memory of an elephant"), EndReason.ERROR),
        (DivergedError("nan"), EndReason.NAN),
        (DeadSpikesError("silent"), EndReason.DEAD_SPIKES),
        (SaturatedError("loud"), EndReason.SATURATED),
        (TrainerError("no such device"), EndReason.ERROR),
    ],
)
def test_exceptions(error: Exception, reason: EndReason) -> None:
    assert reason_of_error(error) is reason


@pytest.mark.parametrize(
    ("code", "kernel_killed", "reason", "words"),
    [
        (-signal.SIGSEGV, False, EndReason.CRASH, "SIGSEGV"),
        (-signal.SIGABRT, True, EndReason.CRASH, "SIGABRT"),
        (-signal.SIGKILL, False, EndReason.LOST, "SIGKILL"),
        (-signal.SIGKILL, True, EndReason.OOM, "the kernel"),
        (-signal.SIGHUP, False, EndReason.LOST, "SIGHUP"),
        (-signal.SIGTERM, False, EndReason.PREEMPTED, "SIGTERM"),
        (1, True, EndReason.CRASH, "exit code 1"),
        (None, False, EndReason.CRASH, "exit code None"),
    ],
)
def test_exit_codes(code: int | None, kernel_killed: bool, reason: EndReason, words: str) -> None:
    found, detail = reason_of_exit(code, kernel_killed=kernel_killed)
    assert found is reason
    assert words in detail


def test_peaks_are_measured() -> None:
    before = peak_rss_mb()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_rss_mb() >= before
    assert peak_rss_mb() > 64
    assert peak_memory_mb() is None or torch.cuda.is_initialized()
    assert kernel_kills() >= 0
