"""How processes are started: the one from which workers and trials are forked, and without the main script."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from types import ModuleType

_STARTING = threading.RLock()


def ensure_forkserver() -> None:
    """Start this process's fork server if it does not run.

    It tells how its children end, and with it every one of them would seem to have died. Schedulers send SIGTERM to all
    processes of a job at once, and workers and trials then need time to write checkpoints. So the fork server has the
    signal blocked; its children take it again with `accept_sigterm`. It ends when its last client has.
    """
    resource_tracker.ensure_running()  # unblocks the signal itself when it starts, so it has to come before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_sigterm() -> None:
    """Take SIGTERM in a process that a fork server has made; one that came before its handler was set comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextlib.contextmanager
def no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running this program's main script again in a process that is started.

    Nothing of it is needed there, importing a command line anew costs each trial half a second, and a script without
    `if __name__ == "__main__"` would start its search once more. Threads that start processes wait for one another.
    """
    with _STARTING:
        main_module = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main_module
