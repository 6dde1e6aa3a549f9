"""No password ends up where it can be read: not on a command line, not in what is printed, written or stored."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import sqlalchemy
from searching import STARTED, environment, kill_group, write_space
from sqlalchemy.engine import make_url

pytestmark = pytest.mark.system

STORAGE_PASSWORD, PLAIN_PASSWORD, TRACKING_PASSWORD = "s3cr3t-storage", "s3cr3t-plain", "s3cr3t-tracking"
SECRET = "s3cr3t"
PROGRAM = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
LATE_FAILURE = """
import time
from fake_trainers import steady

def fails(config, report, resume_from=None, *, run_dir=None, threads=None):
    print(config.model_dump_json(), config.model_dump(), config.tracking)
    steady(config, report, resume_from, run_dir=run_dir, threads=threads)
    raise RuntimeError(f"the roof is leaking: {config.tracking.mlflow_uri}")
"""


def command_lines() -> list[str]:
    """Return the command lines of the processes that this test has started, and of all that those have started."""
    lines = []
    for process in psutil.Process().children(recursive=True):
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue  # it has ended meanwhile
    return lines


def run(folder: Path, storage: str, *arguments: str) -> str:
    """Run the program to its end, looking at command lines all the while; return what it printed and those lines."""
    output = folder / "output.txt"
    more = {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{folder}", "SPIKEBENCH_STORAGE": storage}
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=folder,
            env={**environment(), "TRACKING_PASSWORD": TRACKING_PASSWORD, **more},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    STARTED.append(process)
    seen: set[str] = set()
    deadline = time.monotonic() + 180.0
    while process.poll() is None:
        seen.update(command_lines())
        if time.monotonic() > deadline:
            kill_group(process)
            raise AssertionError(output.read_text())
        time.sleep(0.02)
    assert any("forkserver" in line for line in seen) or arguments[0] != "search"
    return output.read_text() + "\n".join(seen)


def dump(url: str) -> str:
    """Return every row of every table."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        rows = [row for table in metadata.tables.values() for row in connection.execute(sqlalchemy.select(table))]
    engine.dispose()
    assert any("sb_jobs" in name for name in metadata.tables)
    return "\n".join(map(repr, rows))


@pytest.mark.parametrize(
    "mlflow_uri",
    [
        "http://me:${TRACKING_PASSWORD}@127.0.0.1:1/",
        f"http://me:{PLAIN_PASSWORD}@127.0.0.1:1/",
        f"postgresql://127.0.0.1:1/mlflow?user=me&password={PLAIN_PASSWORD}",
    ],
    ids=["reference", "plain", "query"],
)
def test_a_failing_study_tells_no_password(pg_url: str, tmp_path: Path, mlflow_uri: str) -> None:
    (tmp_path / "failing.py").write_text(LATE_FAILURE)
    url = make_url(pg_url).set(username="postgres", password=STORAGE_PASSWORD).render_as_string(hide_password=False)
    space = write_space(
        tmp_path,
        trainer="failing:fails",
        overrides={
            "loss.name": "ce_ss",
            "training.epochs": 2,
            "tracking": {
                "mlflow": True,
                "mlflow_uri": mlflow_uri,
                "wandb": True,
                "wandb_offline": True,
            },
        },
    )
    printed = run(tmp_path, url, "search", "--space", str(space))
    assert "3 trials in a row failed" in printed
    assert "the roof is leaking" in dump(pg_url)
    for words in (["status"], ["report", "tiny"], ["export", "tiny", "0"], ["replay", "tiny", "0"], ["doctor"]):
        printed = run(tmp_path, url, *words)
    wrong = make_url(url).set(host="127.0.0.1", port=1, query={}).render_as_string(hide_password=False)
    printed += run(tmp_path, wrong, "status")
    assert "postgres:***@" in printed
    assert SECRET not in printed
    assert SECRET not in dump(pg_url)
    written = {path for path in tmp_path.rglob("*") if path.is_file() and path != space}
    assert {"config.yaml", "trial.log", "report.html", "tiny_trial_00000.yaml"} <= {path.name for path in written}
    assert [path for path in sorted(written) if SECRET.encode() in path.read_bytes()] == []
