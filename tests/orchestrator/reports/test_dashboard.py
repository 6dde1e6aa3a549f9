from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from orchestrator.reports.dashboard import DashboardError, guarded, is_loopback, make_dashboard
from orchestrator.storage.database import Database
from orchestrator.storage.study import optuna_storage


def answer(method: str, path: str) -> str:
    """Return the status that the guarded application gives."""
    seen: list[str] = []

    def application(_: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [])  # type: ignore[operator]
        return [b""]

    guarded(application)({"REQUEST_METHOD": method, "PATH_INFO": path}, lambda status, _: seen.append(status))
    return seen[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/1/rename"),
        ("POST", "/api/trials/3/tell"),
        ("POST", "/api/trials/3/user-attrs"),
        ("PUT", "/api/studies/1/note/../rename"),
        ("POST", "/incompatible-rdb-schema"),
    ],
)
def test_what_the_controller_owns_cannot_be_changed(method: str, path: str) -> None:
    assert answer(method, path) == "403 Forbidden"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/studies"),
        ("HEAD", "/dashboard"),
        ("PUT", "/api/studies/1/note"),
        ("PUT", "/api/studies/1/7/note"),
        ("POST", "/api/artifacts/1/7"),
        ("DELETE", "/api/artifacts/1/7/ab-cd"),
    ],
)
def test_reading_notes_and_files_are_fine(method: str, path: str) -> None:
    assert answer(method, path) == "200 OK"


def test_only_this_machine_without_being_asked() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("no-such-host.invalid")


def test_an_open_address_is_refused_with_the_reason(local: Database, tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="no login"):
        make_dashboard(local, "0.0.0.0", 0, tmp_path, open_to_network=False)
    make_dashboard(local, "0.0.0.0", 0, tmp_path, open_to_network=True).server_close()


def test_a_taken_port_is_named(local: Database, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DashboardError, match=f"127.0.0.1:{port} is taken"):
            make_dashboard(local, "127.0.0.1", port, tmp_path, open_to_network=False)


def test_the_dashboard_serves_the_studies(local: Database, tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(storage=optuna_storage(local), study_name="stal_loss", directions=["maximize", "minimize"])
    server = make_dashboard(local, "127.0.0.1", 0, tmp_path / "new" / "artifacts", open_to_network=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{address}/api/studies", timeout=60) as reply:
            summaries = json.load(reply)["study_summaries"]
        assert [summary["study_name"] for summary in summaries] == ["stal_loss"]
        request = urllib.request.Request(f"{address}/api/studies/1", method="DELETE")
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request, timeout=60)
        refused.value.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
