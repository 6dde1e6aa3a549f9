"""What a process keeps of the memory of its tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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

_LARGE_PAGES = """
import torch
from trainers.allocator import keep_freed_memory
keep_freed_memory(torch.device("cpu"))
tensors = [torch.ones(2**24) for _ in range(4)]
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")))
"""
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


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


def test_a_run_on_a_cpu_asks_for_large_pages_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")  # so that it is put back
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    keep_freed_memory(torch.device("cuda"))
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ
    keep_freed_memory(torch.device("cpu"))
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    keep_freed_memory(torch.device("cpu"))
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.skipif(
    not _KERNEL.exists() or "[madvise]" not in _KERNEL.read_text(), reason="the kernel gives no large pages on request"
)
def test_tensors_lie_in_large_pages() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", _LARGE_PAGES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
