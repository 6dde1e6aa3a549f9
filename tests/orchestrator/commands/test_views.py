from __future__ import annotations

from pathlib import Path

import pytest
from seeded import seed_study, seed_worker
from sqlalchemy import update

from orchestrator.cli import main
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import WorkerRow


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, width: int = 110) -> int:
    """Run the program; return its exit code."""
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def filled(local: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("SPIKEBENCH_STORAGE", local.url)
    first = seed_study(local, trials=20, running=1, budget=60)
    seed_study(local, name="neuron_threshold", trials=10, state="complete")
    seed_worker(local, "w0", study_id=first, job_id=21)
    seed_worker(local, "w1")
    return local


def test_status_shows_studies_workers_and_failures(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status"], monkeypatch) == 0
    text = capsys.readouterr().out
    for expected in (
        "stal_loss",
        "20/60",
        "40 left",
        "1 running",
        "1 failed",
        "interrupted",
        "neuron_threshold",
        "complete",
        "accuracy 9",
        "days ago",
    ):
        assert expected in text
    worker = next(line for line in text.splitlines() if line.startswith("gpubox") and "stal_loss" in line)
    assert worker.split()[1:5] == ["4711", "cuda:0", "stal_loss", "20"]
    assert "just now" in worker
    assert any("idle" in line for line in text.splitlines())
    assert "stal_loss trial 12  out of memory" in text
    assert "log: /data/runs/stal_loss/trial_00012/trial.log" in text


def test_status_fits_a_narrow_terminal(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status"], monkeypatch, width=80) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_status_of_one_study(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with filled.begin() as connection:
        connection.execute(update(WorkerRow).where(WorkerRow.id == "w0").values(last_beat=database_now() - 300))
    assert run(["status", "stal_loss"], monkeypatch) == 0
    text = capsys.readouterr().out
    for expected in ("20 of 60 trials", "Front", "Last ended", "5 min ago", "trial 12"):
        assert expected in text
    assert "neuron_threshold" not in text


def test_a_wrong_name_gets_the_right_ones(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "report"):
        assert run([command, "stal_lss"], monkeypatch) == 2
        assert "stal_loss" in capsys.readouterr().err


def test_report_is_written_where_asked(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["report", "stal_loss", "--output", "out/r.html"], monkeypatch) == 0
    assert run(["report", "neuron_threshold"], monkeypatch) == 0
    assert str(tmp_path / "out" / "r.html") in capsys.readouterr().out
    assert (tmp_path / "out" / "r.html").stat().st_size > 1e6
    assert (tmp_path / "runs" / "neuron_threshold" / "report.html").exists()


def test_report_asks_which_study(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report"], monkeypatch) == 2
    assert "stal_loss, neuron_threshold" in capsys.readouterr().err


def test_an_empty_database_says_what_to_do(
    local: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--storage", local.url], monkeypatch) == 0
    assert "spikebench-search" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "report", "dashboard"])
def test_a_missing_database_is_one_clear_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([command, "--storage", f"sqlite:///{tmp_path}/none.db"], monkeypatch) == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        f"no database at {tmp_path}/none.db: run a search first, or give --storage / set SPIKEBENCH_STORAGE"
    ]
    assert not (tmp_path / "none.db").exists()


def test_the_dashboard_stays_at_home(
    filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dashboard", "--host", "0.0.0.0"], monkeypatch) == 2
    assert "--no-login-is-fine" in capsys.readouterr().err
