"""optuna-dashboard on the database of our studies, kept from changing what the controller owns."""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from orchestrator.errors import OrchestratorError
from orchestrator.storage.database import Database
from orchestrator.storage.study import optuna_storage

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Notes and attached files hurt nobody. Deleting, renaming or telling would part Optuna's record from our job table.
HARMLESS_WRITES = (
    ("PUT", re.compile(r"^/api/studies/\d+(/\d+)?/note$")),
    ("POST", re.compile(r"^/api/artifacts/")),
    ("DELETE", re.compile(r"^/api/artifacts/")),
)

ONE_STUDY = re.compile(r"^/api/studies/(\d+)/?$")


class DashboardError(OrchestratorError):
    """The dashboard cannot be served where it was asked to."""


class OpenToNetworkError(DashboardError):
    """It would be served to other machines, and nobody has said that this is meant."""

    wrong_input = True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about single requests."""


def make_dashboard(database: Database, host: str, port: int, artifacts: Path, *, open_to_network: bool) -> WSGIServer:
    """Return a server that is bound and waits for `serve_forever`.

    Args:
        database: an open database.
        host: address to bind to.
        port: port to bind to; 0 takes a free one.
        artifacts: folder for files that people attach; made when missing.
        open_to_network: the caller knows that the dashboard has no login.

    Raises:
        OpenToNetworkError: the address is reachable from other machines and `open_to_network` is false.
        DashboardError: the address is taken.
    """
    if not open_to_network and not is_loopback(host):
        raise OpenToNetworkError(
            f"--host {host} lets other machines in, and optuna-dashboard has no login: everybody who reaches the port "
            "sees every study. Bind to 127.0.0.1 and use an SSH tunnel or a proxy with a password, "
            "or add --no-login-is-fine"
        )
    from optuna.artifacts import FileSystemArtifactStore  # noqa: PLC0415 - seconds to import, after all checks
    from optuna_dashboard import wsgi  # noqa: PLC0415

    from orchestrator.reports.dashboard_storage import DashboardStorage  # noqa: PLC0415

    artifacts.mkdir(parents=True, exist_ok=True)
    storage = DashboardStorage(optuna_storage(database), database)
    application = opening(storage.open, wsgi(storage, artifact_store=FileSystemArtifactStore(str(artifacts))))
    try:
        return make_server(host, port, guarded(application), server_class=_Server, handler_class=_SilentHandler)
    except OSError as error:
        taken = " is taken: give another one with --port" if error.errno == errno.EADDRINUSE else f": {error.strerror}"
        raise DashboardError(f"cannot listen on {host}:{port}{taken}") from error


def opening(opened: Callable[[int | None], None], application: Wsgi) -> Wsgi:
    """Return an application that says which study each request shows, in the request's own thread.

    Args:
        opened: told Optuna's id of the study, or None.
        application: the dashboard.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        shown = ONE_STUDY.match(environ["PATH_INFO"])
        opened(int(shown[1]) if shown else None)
        return application(environ, start_response)

    return answer


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def guarded(application: Wsgi) -> Wsgi:
    """Return an application that reads everything and writes only notes and attached files.

    Args:
        application: the dashboard.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method in ("GET", "HEAD") or any(method == verb and rule.match(path) for verb, rule in HARMLESS_WRITES):
            return application(environ, start_response)
        reason = "studies are changed by spikebench alone: the dashboard shows them and takes notes"
        body = json.dumps({"reason": reason}).encode()
        start_response("403 Forbidden", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return answer
