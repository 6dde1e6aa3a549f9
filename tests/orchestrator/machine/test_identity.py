"""Which process is certainly gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from orchestrator.machine.identity import host_identity, is_dead


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_the_identity_is_the_name_and_the_boot() -> None:
    name, _, boot = host_identity().partition("/")
    assert name
    assert boot
    assert host_identity() == host_identity()


def test_a_process_that_runs_is_not_dead(child: psutil.Process) -> None:
    assert not is_dead(host_identity(), child.pid, child.create_time())


def test_a_process_that_has_ended_is_dead_collected_or_not(child: psutil.Process) -> None:
    started = child.create_time()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert is_dead(host_identity(), child.pid, started)


def test_another_process_under_the_same_number_is_not_the_one_that_was() -> None:
    assert is_dead(host_identity(), os.getpid(), psutil.Process().create_time() - 100)


def test_nothing_is_known_of_another_machine() -> None:
    assert not is_dead("elsewhere/12345678", 2**22, 0.0)
