"""The commands of the compose file, run as plain processes beside one PostgreSQL server, carry a study to its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml
from searching import STARTED, environment, exit_code, kill_group
from sqlalchemy.engine import make_url

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
TRIALS, EPOCHS = 3, 2
SPACE = {
    "name": "tiny",
    "base": "stal/srnn_digits",
    "overrides": {"training.epochs": EPOCHS, "training.device": "cpu"},
    "parameters": {"loss.omega": {"type": "float", "low": 1e-6, "high": 1e-4, "log": True}},
    "objectives": [
        {"metric": "val_accuracy", "direction": "maximize"},
        {"metric": "val_spike_density", "direction": "minimize"},
    ],
    "budget": {"trials": TRIALS},
    "workers": {"threads": 1},
}


@dataclass
class Stage:
    """Processes in one folder, with the addresses that containers would know each other by."""

    folder: Path
    storage: str
    mlflow: str
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, service: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a service's own command; only hosts, ports and folders are those of this machine."""
        script, *arguments = SERVICES[service]["command"]
        here = {
            "0.0.0.0": "127.0.0.1",
            "8080": str(self.ports["dashboard"]),
            "5000": str(self.ports["mlflow"]),
            "http://mlflow:5000": f"http://127.0.0.1:{self.ports['mlflow']}",
            "/work/mlflow": str(self.folder / "mlflow"),
            "${SPACE:-stal_loss.yaml}": str(self.folder / "tiny.yaml"),
            "${CPU_WORKERS:-auto}": "1",
        }
        words = [here.get(word, word) for word in arguments]
        assert not any("$" in word or "/work" in word for word in words), words
        with (self.folder / f"{service}.txt").open("ab") as output:
            process = subprocess.Popen(
                [BIN / script, *words, *more],
                cwd=self.folder,
                env=environment(SPIKEBENCH_STORAGE=self.storage, MLFLOW_BACKEND_STORE_URI=self.mlflow, **QUIET),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        STARTED.append(process)
        return process

    def said(self, service: str) -> str:
        return (self.folder / f"{service}.txt").read_text(errors="replace")

    def ask(self, service: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[service]}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return bytes(reply.read())

    def wait_for(self, service: str, path: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers(service, path):
            assert time.monotonic() < deadline, self.said(service)
            time.sleep(0.2)

    def answers(self, service: str, path: str) -> bool:
        try:
            self.ask(service, path)
        except OSError:
            return False
        return True


QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def stage(pg_url: str, tmp_path: Path) -> Stage:
    """Two databases of one server, as the compose file has them."""
    other = make_url(pg_url).set(database=f"{make_url(pg_url).database}_mlflow")
    admin = sqlalchemy.create_engine(pg_url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {other.database}"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SPACE))
    ports = {"dashboard": free_port(), "mlflow": free_port()}
    yield Stage(tmp_path, pg_url, other.render_as_string(hide_password=False), ports)
    while STARTED:  # they hold connections to the databases
        kill_group(STARTED.pop())
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {other.database} WITH (FORCE)"))
    admin.dispose()


def test_a_study_runs_through_all_services(stage: Stage) -> None:
    mlflow = stage.start("mlflow")
    assert exit_code(stage.folder, stage.start("database")) == 0, stage.said("database")
    workers = [stage.start("worker-cpu") for _ in range(2)]
    stage.start("dashboard")
    stage.wait_for("mlflow", "/health")
    controller = stage.start("controller")
    assert exit_code(stage.folder, controller, 240) == 0, stage.said("controller") + stage.said("worker-cpu")
    assert f"is complete: {TRIALS} of {TRIALS}" in stage.said("controller")
    assert "has not taken" not in stage.said("controller")  # MLflow has everything
    assert "View run" not in stage.said("controller")  # which MLflow's own client says of every trial

    check_mlflow(stage)
    check_dashboard(stage)
    for worker in workers:  # as `docker compose down` does
        worker.send_signal(signal.SIGINT)
    assert [exit_code(stage.folder, worker) for worker in workers] == [0, 0], stage.said("worker-cpu")
    assert mlflow.poll() is None


def check_mlflow(stage: Stage) -> None:
    asked = stage.ask("mlflow", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=tiny")
    experiment = json.loads(asked)["experiment"]["experiment_id"]
    runs = json.loads(stage.ask("mlflow", "/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment]}))["runs"]
    tags = {run["info"]["run_id"]: {tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs}
    (study,) = (run_id for run_id, of in tags.items() if "mlflow.parentRunId" not in of)
    children = [run for run in runs if tags[run["info"]["run_id"]].get("mlflow.parentRunId") == study]
    assert sorted(int(tags[run["info"]["run_id"]]["spikebench.trial"]) for run in children) == list(range(TRIALS))
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    assert stored_files(stage, study) == ["report.html"]
    for run in children:
        run_id = run["info"]["run_id"]
        path = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=val_accuracy"
        assert [point["step"] for point in json.loads(stage.ask("mlflow", path))["metrics"]] == [1, 2][:EPOCHS]
        assert stored_files(stage, run_id) == ["config.yaml"]


def stored_files(stage: Stage, run_id: str) -> list[str]:
    files = json.loads(stage.ask("mlflow", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}"))["files"]
    return [file["path"] for file in files]


def check_dashboard(stage: Stage) -> None:
    stage.wait_for("dashboard", "/api/meta")
    (summary,) = json.loads(stage.ask("dashboard", "/api/studies"))["study_summaries"]
    study = json.loads(stage.ask("dashboard", f"/api/studies/{summary['study_id']}"))
    assert study["objective_names"] == ["Validation accuracy", "Validation spike density"]
    curves = {"learning-curves-val_accuracy", "learning-curves-val_spike_density"}
    assert {plot["id"] for plot in study["plotly_graph_objects"]} == curves
    front = [trial for trial in study["trials"] if trial["artifacts"]]
    assert {trial["number"] for trial in front} == {trial["number"] for trial in study["best_trials"]}
    for trial in front:
        files = {file["filename"]: file for file in trial["artifacts"]}
        names = {"confusion_matrix.png", "firing_rates.png", "spike_raster.png", "config.yaml"}
        assert {name for name in files if not name.startswith("ckpt-")} == names
        assert len(files) == len(names) + 1
        for name, start in {"spike_raster.png": b"\x89PNG", "config.yaml": b"compat: none"}.items():
            place = f"/artifacts/{summary['study_id']}/{trial['trial_id']}/{files[name]['artifact_id']}"
            assert stage.ask("dashboard", place).startswith(start), name
    refused = urllib.request.Request(f"http://127.0.0.1:{stage.ports['dashboard']}/api/studies/1", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="403") as error:
        urllib.request.urlopen(refused, timeout=60)
    error.value.close()
