"""Memory of tensors on a CPU: kept between the steps of a training run, and in large pages."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_BLOCK = 2**30
_LARGEST_REST = 2**31 - 1  # mallopt takes an int
_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # read by torch's allocator for CPUs; nothing happens where it does not know it
_CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory(device: torch.device) -> bool:
    """Let the process keep freed memory for the next tensors, where they are on a CPU and the C library is glibc.

    By default glibc returns large blocks to the system at once, and every step of training then pays for having the
    same pages mapped and zeroed again. The setting holds until the process ends; what the user has chosen in the
    environment stays. Elsewhere this does nothing.

    Torch is asked for large pages (2 MiB) as well, unless its own variable in the environment says otherwise: fewer
    misses in the translation of addresses. It looks once, at the first tensor of the process, so call this before.

    Args:
        device: where the run computes.

    Returns:
        Whether freed memory is kept because of this call or an earlier one.
    """
    if device.type != "cpu":
        return False
    os.environ.setdefault(_LARGE_PAGES, "1")
    return _set_thresholds()


@cache
def _set_thresholds() -> bool:
    if any(name in os.environ for name in _CHOSEN_BY_USER):
        return False
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return False
    if not hasattr(library, "gnu_get_libc_version"):  # musl, macOS
        return False
    # An older glibc refuses so large a value. Its own rule for the threshold must then stay: any setting ends it.
    if not library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK):
        return False
    return bool(library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_REST))
