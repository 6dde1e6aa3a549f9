"""What a process keeps of the memory of its tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from trainers.allocator import keep_freed_memory

_FAULTS = """
import resource, sys, torch
from trainers.allocator import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory(torch.device("cpu"))
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work(): torch.ones(2**24)
for _ in range(20): work()  # the heap grows until a block fits where one was
before = faults()
for _ in range(10): work()
print(int(kept), faults() - before)
"""


def _run(what: str, **variables: str) -> tuple[int, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", _FAULTS, what]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return int(kept), int(faults)


@pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="for glibc alone"
)
def test_large_tensors_get_the_same_pages_again() -> None:
    _, otherwise = _run("leave")
    kept, faults = _run("keep")
    assert kept
    assert faults * 10 < otherwise


def test_what_the_user_has_chosen_stays() -> None:
    assert _run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == 0


def test_a_run_on_a_gpu_changes_nothing() -> None:
    assert not keep_freed_memory(torch.device("cuda"))
