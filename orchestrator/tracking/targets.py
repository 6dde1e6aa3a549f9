"""Which services a configuration asks for, and the process that talks to them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from configs.environment import reveal
from configs.problems import mask_credentials
from configs.schema import Tracking
from orchestrator.errors import TrackingError
from orchestrator.machine.forkserver import no_main_module
from orchestrator.tracking.mlflow_sink import MlflowSink
from orchestrator.tracking.sinks import Sink
from orchestrator.tracking.wandb_sink import WandbSink

STOP = "stop"
PATIENCE_SECONDS = 2.0
LAST_SECONDS = 30.0  # for what is left at the end
URI_KEY = "tracking.mlflow_uri"
_log = logging.getLogger(__name__)
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MlflowTarget:
    """MLflow, as a configuration asks for it."""

    uri: str = field(repr=False)
    experiment: str | None = None
    system_metrics: bool = False
    name = MlflowSink.name
    service = MlflowSink.service

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password in the address, as it is and as an address writes it."""
        return passwords_of(self.uri)

    def open(self, note: Note) -> Sink:
        """Open the service; only for the process that delivers."""
        return MlflowSink(self.uri, self.experiment, note, system_metrics=self.system_metrics)


@dataclass(frozen=True, slots=True)
class WandbTarget:
    """Weights & Biases, as a configuration asks for it."""

    project: str
    folder: Path
    offline: bool
    name = WandbSink.name
    service = WandbSink.service
    secrets = ()

    def open(self, note: Note) -> Sink:  # noqa: ARG002
        """Open the service; only for the process that delivers."""
        return WandbSink(self.project, self.folder, offline=self.offline)


Target = MlflowTarget | WandbTarget


def passwords_of(url: str) -> tuple[str, ...]:
    """Return the password in a URL in the forms in which a message may hold it."""
    with contextlib.suppress(ArgumentError):
        if (password := make_url(url).password) is not None:
            return tuple({str(password), quote(str(password), safe="")})
    return ()


def require_services(tracking: Tracking) -> None:
    """Raise unless every service that a configuration asks for can be used; warn of a password in plain text.

    Raises:
        TrackingError: the package of one is not installed, or the password for one was not stored.
        ConfigError: a variable in an address is not set.
    """
    if tracking.mlflow:
        _require_password(tracking.mlflow_uri)
    if tracking.wandb and importlib.util.find_spec("wandb") is None:
        raise TrackingError(
            "tracking.wandb is on, but the package wandb is not installed: "
            "pip install 'spikebench[wandb]', or add --tracking.wandb false"
        )


def _require_password(uri: str) -> None:
    """Raise where a stored address has lost its password; warn where one is about to."""
    if ":***@" in reveal(uri, URI_KEY) or "=***" in uri:
        raise TrackingError(
            f"{URI_KEY} is '{uri}', whose password was not stored: give the space or configuration that has it, "
            f"or --{URI_KEY}; write '${{VARIABLE}}' for a password, which is stored as it is written"
        )
    if mask_credentials(uri) != uri:
        _log.warning(
            "%s has its password in plain text, which is not stored; write '${VARIABLE}' for it, which is",
            URI_KEY,
        )


def targets_of(tracking: Tracking, folder: Path) -> list[Target]:
    """Return the services that a configuration asks for.

    Args:
        tracking: the configuration's section.
        folder: of the study or the run; services keep files of their own there.
    """
    found: list[Target] = []
    if tracking.mlflow:
        uri = reveal(tracking.mlflow_uri, URI_KEY)
        found.append(MlflowTarget(uri, tracking.mlflow_experiment, tracking.mlflow_system_metrics))
    if tracking.wandb:
        found.append(WandbTarget(tracking.wandb_project, folder.resolve(), tracking.wandb_offline))
    return found


def named(targets: Sequence[Target]) -> str:
    """Return the names of services for a sentence."""
    return " and ".join(target.service for target in targets)


@contextlib.contextmanager
def delivering(
    work: Callable[..., None], args: tuple[Any, ...], targets: Sequence[Target], note: Note
) -> Iterator[Connection]:
    """Run a process that delivers while the block runs, and for at most 30 s after.

    Args:
        work: called in the process with `args`, the targets and its end of the wire; it leaves when it receives `STOP`
            or when the other end is gone, and never stops receiving.
        args: what crosses to the process.
        targets: where to.
        note: told what the process sends, in one line each; called from another thread.

    Yields:
        This end of the wire.
    """
    # A fresh interpreter: the services' memory and threads stay out of this one and of the trials' forkserver.
    context = multiprocessing.get_context("spawn")
    wire, far_end = context.Pipe()
    process = context.Process(target=work, args=(*args, targets, far_end), name="delivery", daemon=True)
    with no_main_module():
        process.start()
    far_end.close()
    reader = threading.Thread(target=pass_on, args=(wire, note), daemon=True)
    reader.start()
    try:
        yield wire
    finally:
        with contextlib.suppress(OSError):
            wire.send(STOP)
        process.join(PATIENCE_SECONDS)
        if process.is_alive():
            note(f"delivering the last numbers to {named(targets)} (at most {LAST_SECONDS:.0f} s)")
            process.join(LAST_SECONDS + PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        reader.join(1.0)
        wire.close()


def pass_on(wire: Connection, note: Note) -> None:
    """Tell what comes through a wire, line by line, until its other end is gone.

    Args:
        wire: from another process.
        note: told each line.
    """
    with contextlib.suppress(EOFError, OSError):
        while True:
            note(str(wire.recv()))


def leave_signals_to_the_parent() -> None:
    """Ignore Ctrl-C and SIGTERM: they are for the process that started this one, which then says when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def noting(wire: Connection, targets: Sequence[Target], storage: str = "") -> Note:
    """Return a function that sends a line through the wire, without passwords; threads may share it.

    Args:
        wire: to the process that shows it.
        targets: the services, whose passwords are left out.
        storage: URL of the study's database, whose password is left out too.
    """
    secrets = [*passwords_of(storage), *(secret for target in targets for secret in target.secrets)]
    lock = threading.Lock()

    def note(text: str) -> None:
        for secret in secrets:
            text = text.replace(secret, "***")
        with lock, contextlib.suppress(OSError):
            wire.send(text)

    return note
