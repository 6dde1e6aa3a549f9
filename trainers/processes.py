"""The other processes of a run that several train: started by the first one, heard by it, and gone when it is."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any

from trainers.protocol import ProcessLostError, TrainerError

BLAME_SECONDS = 2.0  # how long the first process looks for the failure of another behind its own
EXIT_SECONDS = 5.0  # how long a process that has nothing left to do may take to end
PRELOADED = "trainers.training"
_STARTING = threading.RLock()


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


@dataclass(frozen=True, slots=True)
class Ready:
    """A process has imported what it needs."""


@dataclass(frozen=True, slots=True)
class Done:
    """A process has done its work."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A process has failed.

    Args:
        at: when, by the clock that all processes of a machine share.
        error: why.
    """

    at: float
    error: Exception


@dataclass(slots=True)
class _Helper:
    number: int
    process: ForkServerProcess
    pipe: Connection
    ready: bool = False
    done: bool = False


@dataclass(slots=True)
class _Heard:
    """What the first process knows of the others' failures; a process that is gone without a word failed before all."""

    failures: list[Failure] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)


class Helpers:
    """The processes 1, 2, ... of a run, as process 0 holds them.

    Args:
        work: called in each; found by its module and name there.
        arguments: for it, of each process.
        failed: called, in a thread, when one fails.
    """

    def __init__(
        self, work: Callable[..., None], arguments: Sequence[Sequence[Any]], failed: Callable[[], None]
    ) -> None:
        self._heard = _Heard()
        self._failed = failed
        self._total = len(arguments) + 1
        self._closing = False
        self._helpers: list[_Helper] = []
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        try:
            for number, own in enumerate(arguments, start=1):
                ours, theirs = context.Pipe()
                process = context.Process(target=_main, args=(theirs, number, work, tuple(own)), daemon=False)
                with no_main_module():
                    process.start()
                theirs.close()
                self._helpers.append(_Helper(number, process, ours))
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._listen, name="helpers", daemon=True).start()

    def await_ready(self) -> None:
        """Wait until all processes have started.

        Raises:
            Exception: what one of them failed with meanwhile.
        """
        with self._heard.changed:
            self._heard.changed.wait_for(lambda: self._heard.failures or all(helper.ready for helper in self._helpers))
        if self._heard.failures:
            raise self._heard.failures[0].error

    def blame(self, error: Exception) -> Exception:
        """Return what a run really failed of: what the first of the other processes failed of, or this one's own error.

        Where one of them fails, all that wait for it fail too. Where this one fails, they wait until it leaves them.

        Args:
            error: what this process failed with.
        """
        with self._heard.changed:
            self._heard.changed.wait_for(lambda: self._heard.failures, BLAME_SECONDS)
            first = min(self._heard.failures, key=lambda failure: failure.at, default=None)
        return error if first is None else first.error

    def close(self) -> None:
        """End the processes that have not ended, and wait until all are gone."""
        self._closing = True
        for helper in self._helpers:
            if helper.done:
                helper.process.join(EXIT_SECONDS)
            helper.pipe.close()  # should it still live, it ends now
        for helper in self._helpers:
            helper.process.join(EXIT_SECONDS)
            if helper.process.is_alive():
                helper.process.kill()
                helper.process.join()

    def _listen(self) -> None:
        open_ones = {helper.pipe: helper for helper in self._helpers}
        while open_ones and not self._closing:
            try:
                ready = wait(list(open_ones), timeout=1.0)
            except OSError:  # closed meanwhile
                return
            for pipe in ready:
                if not self._hear(open_ones[pipe]):  # type: ignore[index]
                    del open_ones[pipe]  # type: ignore[arg-type]

    def _hear(self, helper: _Helper) -> bool:
        """Take one message; False when it was the last."""
        try:
            message = helper.pipe.recv()
        except (EOFError, OSError):
            message = None
        if self._closing:
            return False
        with self._heard.changed:
            if isinstance(message, Ready):
                helper.ready = True
            elif isinstance(message, Done):
                helper.done = True
            else:
                self._heard.failures.append(message if isinstance(message, Failure) else self._lost(helper))
            self._heard.changed.notify_all()
        if self._heard.failures:
            self._failed()
        return isinstance(message, Ready)

    def _lost(self, helper: _Helper) -> Failure:
        helper.process.join(EXIT_SECONDS)
        code = helper.process.exitcode
        return Failure(-1.0, ProcessLostError(helper.number, self._total, code))


def _main(pipe: Connection, number: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Work as one of the other processes of a run; whoever started it decides when the run ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    logging.disable(logging.ERROR)  # the first process says the same
    threading.Thread(target=_die_with_first, args=(pipe,), daemon=True).start()
    last: Done | Failure = Done()
    with contextlib.suppress(OSError):  # the first process has gone
        try:
            pipe.send(Ready())
            work(*arguments)
        except Exception as error:
            last = Failure(time.monotonic(), _portable(error, number))
        pipe.send(last)
    os._exit(0)


def _die_with_first(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def _portable(error: Exception, number: int) -> Exception:
    """Return an error that can be sent, with the place it happened at as a note."""
    where = f"in process {number} of the run:\n{''.join(traceback.format_exception(error))}"
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own class makes of it
        sent = TrainerError(f"{type(error).__name__}: {error}".splitlines()[0])
    sent.__cause__ = sent.__context__ = None
    sent.add_note(where)
    return sent
