"""The doctor sees what is wrong, says what to do, and survives a broken installation."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from orchestrator import doctor
from orchestrator.commands.doctor import render
from orchestrator.doctor import TorchCuda
from orchestrator.findings import Finding, Health
from orchestrator.machine.slots import Gpu, Slot
from orchestrator.storage.database import open_database

H100 = Gpu("cuda:0", "NVIDIA H100", 81559, "580.1")
CPU_TORCH = TorchCuda("2.13.0+cpu", None, available=False, devices=0)
OLD_DRIVER = TorchCuda("2.13.0", "13.0", available=False, devices=0)
GPU_TORCH = TorchCuda("2.13.0", "13.0", available=True, devices=1)


def test_python_outside_the_range_is_wrong() -> None:
    assert doctor.check_python("3.12.1", ">=3.11,<3.14").health is Health.OK
    finding = doctor.check_python("3.10.4", ">=3.11,<3.14")
    assert finding.health is Health.WRONG
    assert "3.10.4, needs <3.14,>=3.11" in finding.found or "3.10.4, needs >=3.11,<3.14" in finding.found


def test_packages_are_compared_with_their_ranges() -> None:
    lines = ["torch>=2.11", "optuna<6,>=5", "timm", 'ray[tune]>=2.50; extra == "ray"', 'ruff; extra == "dev"']
    lines.append('triton>=3; sys_platform == "nowhere" and extra == "gpu"')
    versions = {"torch": "2.13.0+cpu", "optuna": "4.9.0", "ruff": "0.1"}
    found = {finding.topic: finding for finding in doctor.check_packages(lines, versions.get)}
    assert set(found) == {"torch", "optuna", "timm", "ray"}, "the dev extra and other platforms are not listed"
    assert found["torch"].health is Health.OK
    assert found["optuna"].health is Health.WRONG
    assert found["optuna"].found.startswith("4.9.0, needs")
    assert "optuna" in found["optuna"].advice
    assert found["timm"].health is Health.WRONG
    assert found["ray"].health is Health.OK
    assert "spikebench[ray]" in found["ray"].found


def test_an_extra_that_is_too_old_is_wrong() -> None:
    (finding,) = doctor.check_packages(['ray[tune]>=2.50; extra == "ray"'], {"ray": "2.9.0"}.get)
    assert finding.health is Health.WRONG


@pytest.mark.parametrize(
    ("gpus", "cuda", "health", "words"),
    [
        ((), CPU_TORCH, Health.OK, "none"),
        ((), GPU_TORCH, Health.NOTE, "nvidia-smi"),
        ((H100,), GPU_TORCH, Health.OK, "NVIDIA H100, 80 GiB, driver 580.1"),
        ((H100,), CPU_TORCH, Health.WRONG, "CPU build"),
        ((H100,), OLD_DRIVER, Health.WRONG, "CUDA 13.0"),
    ],
)
def test_gpus_are_compared_with_what_torch_can_use(
    gpus: tuple[Gpu, ...], cuda: TorchCuda, health: Health, words: str
) -> None:
    (finding,) = doctor.check_gpus(gpus, cuda)
    assert finding.health is health
    assert words in finding.found + finding.advice


def test_workers_are_described() -> None:
    assert doctor.check_slots([Slot("cuda:0", 4), Slot("cuda:1", 4)]).found == (
        "2 at once on cuda:0, cuda:1, 4 CPU threads each"
    )


def test_disk_is_judged_by_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "not" / "yet"
    for free, health in ((100 * doctor.GIB, Health.OK), (2 * doctor.GIB, Health.NOTE), (2**20, Health.WRONG)):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: type("Usage", (), {"free": free})())
        assert doctor.check_disk(runs).health is health


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file stands where the folder should be")
    finding = doctor.check_disk(tmp_path / "runs")
    assert finding.health is Health.WRONG
    assert "cannot be written" in finding.found


def test_a_missing_sqlite_file_is_fine_where_it_can_be_made(tmp_path: Path) -> None:
    finding = doctor.check_database(f"sqlite:///{tmp_path}/runs/new.db")
    assert finding.health is Health.OK
    assert "made by the first search" in finding.found
    assert not (tmp_path / "runs").exists(), "looking must not create anything"


def test_an_existing_database_is_opened_and_tried(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    open_database(url, create=True).engine.dispose()
    finding = doctor.check_database(url)
    assert (finding.health, finding.advice) == (Health.OK, "")
    assert "SQLite" in finding.found


def test_a_file_that_is_no_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, but long enough to be read as one" * 40)
    assert doctor.check_database(f"sqlite:///{tmp_path}/study.db").health is Health.WRONG


def test_sqlite_on_a_network_file_system_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = type("Mount", (), {"mountpoint": str(tmp_path.resolve()), "fstype": "nfs4"})()
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [mount])
    finding = doctor.check_database(f"sqlite:///{tmp_path}/new.db")
    assert finding.health is Health.WRONG
    assert "nfs4" in finding.found
    assert "PostgreSQL" in finding.advice


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/nothing",
        "mysql://me:s3cr3t@127.0.0.1/nothing",
        "me:s3cr3t@nowhere",
    ],
)
def test_a_database_out_of_reach_is_wrong_and_its_password_stays_hidden(url: str) -> None:
    finding = doctor.check_database(url)
    assert finding.health is Health.WRONG
    assert finding.advice
    assert "s3cr3t" not in finding.found + finding.advice


def test_an_unset_variable_in_the_url_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    finding = doctor.check_database("postgresql+psycopg://me:${NO_SUCH_PASSWORD}@host/name")
    assert finding.health is Health.WRONG
    assert "NO_SUCH_PASSWORD" in finding.advice


def test_mlflow_database_that_cannot_be_written_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert doctor.check_mlflow(path).health is Health.OK
    sqlite3.connect(path).close()
    assert doctor.check_mlflow(path).health is Health.OK
    path.write_text("not a database, but long enough to be read as one" * 40)
    assert doctor.check_mlflow(path).health is Health.NOTE


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> TorchCuda:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "torch_cuda", broken)
    monkeypatch.setattr(doctor, "gpus", lambda: (H100,))
    found = {finding.topic: finding for finding in doctor.examine(f"sqlite:///{tmp_path}/new.db", tmp_path)}
    assert found["GPU"].health is Health.WRONG
    assert "libcudart" in found["GPU"].found
    assert found["database"].health is Health.OK, "the other checks go on"


def test_this_installation_is_well(tmp_path: Path) -> None:
    findings = doctor.examine(f"sqlite:///{tmp_path}/new.db", tmp_path / "runs")
    assert [finding for finding in findings if finding.health is Health.WRONG] == []
    assert {"python", "torch", "torchvision operators", "neuron backend", "database", "MLflow"} <= {
        finding.topic for finding in findings
    }


def test_the_table_shows_findings_and_the_advice_below() -> None:
    findings = [
        Finding("python", Health.OK, "3.12.1"),
        Finding("optuna", Health.WRONG, "4.9.0, needs [5, 6)", "pip install 'optuna>=5'"),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(*render(findings), sep="\n")
    text = console.file.getvalue()
    assert "4.9.0, needs [5, 6)" in text, "brackets are shown as they are"
    assert text.index("optuna: pip install 'optuna>=5'") > text.index("4.9.0")
    assert "1 wrong." in text
