"""How processes are started: the one from which workers and trials are forked, and without the main script."""

from __future__ import annotations

import signal
from multiprocessing import forkserver, resource_tracker

from trainers.processes import no_main_module

__all__ = ["accept_sigterm", "ensure_forkserver", "no_main_module"]


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
