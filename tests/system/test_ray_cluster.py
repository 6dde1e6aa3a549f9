"""A study on a Ray cluster of two nodes: whatever is killed, the same command goes on and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import searching
from ray_clusters import cluster, warnings_of_ray_are_ignored
from searching import PROGRAM, environment
from studies import DisturbedStudy

pytestmark = [pytest.mark.system, *warnings_of_ray_are_ignored]

TRIALS, EPOCHS = 4, 60
HELD, LATER = 10, 20  # epochs at which trials stand while something happens


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A head and another node, each with room for one trial."""
    with cluster({"num_cpus": 1}, {"num_cpus": 1}) as started:
        started.wait_for_nodes()
        yield started


def await_true(condition: Callable[[], object], what: str, timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.1)


def test_killing_a_worker_a_node_and_the_driver_loses_nothing(
    two_nodes: Any, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(searching.SUPPORT))
    study = DisturbedStudy(
        tmp_path,
        sqlite_url,
        trials=TRIALS,
        epochs=EPOCHS,
        executor="ray",
        ray={"address": two_nodes.address},
        workers={"count": "auto", "threads": 1},
    )
    study.tie(HELD)
    study.start()
    both_busy = (
        "SELECT count(*) = 2 FROM sb_jobs JOIN sb_workers ON sb_workers.id = owner AND sb_workers.ended_at IS NULL"
    )
    study.wait_for(both_busy)
    study.wait_for(f"SELECT count(*) = 2 FROM sb_epochs WHERE epoch = {HELD}")

    study.kill("worker")  # a process of Ray, with its trial
    study.wait_for("SELECT count(*) FROM sb_attempts WHERE end_reason = 'lost'")

    study.wait_for(both_busy)
    lost = study.query("SELECT count(*) FROM sb_attempts WHERE end_reason = 'lost'")[0][0]
    two_nodes.remove_node(next(iter(two_nodes.worker_nodes)), allow_graceful=False)
    study.wait_for(f"SELECT count(*) > {lost} FROM sb_attempts WHERE end_reason = 'lost'")
    assert study.running()
    two_nodes.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)

    study.tie(LATER)
    study.wait_for(f"SELECT count(*) FROM sb_epochs WHERE epoch = {LATER}")
    trials = [int(pid) for (pid,) in study.query("SELECT pid FROM sb_attempts WHERE ended_at IS NULL AND pid > 0")]
    study.kill("controller")
    await_true(lambda: not any(psutil.pid_exists(pid) for pid in trials), "the end of the trials of a dead controller")
    await_true(lambda: not _drivers(tmp_path), "the end of the driver")

    study.start()
    study.wait_for("SELECT count(*) FROM sb_attempts WHERE ended_at IS NULL AND pid > 0")
    for driver in _drivers(tmp_path):
        driver.kill()
    study.untie()
    assert "is complete" in study.finish()
    study.assert_whole()


def _drivers(folder: Path) -> list[psutil.Process]:
    """Return the processes that drive Tune for a study in a folder."""
    return [process for process in psutil.process_iter() if _writes(process, folder / "runs/tiny/ray/ray.log")]


def _writes(process: psutil.Process, path: Path) -> bool:
    try:
        return os.path.realpath(f"/proc/{process.pid}/fd/1") == str(path) and "spawn_main" in " ".join(
            process.cmdline()
        )
    except (psutil.Error, OSError):
        return False


def test_a_password_never_reaches_ray_and_every_node_brings_its_own(
    two_nodes: Any, tmp_path: Path, pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = pg_url.replace("postgres:@", "postgres:hunter2hunter@")
    assert secret != pg_url
    study = DisturbedStudy(
        tmp_path,
        pg_url,
        storage=secret,
        trials=1,
        epochs=2,
        executor="ray",
        ray={"address": two_nodes.address},
        workers={"count": 1, "threads": 1},
    )
    study.start()
    output = study.finish()
    assert study.process is not None
    assert study.process.returncode == 1
    assert "does not know the database: export SPIKEBENCH_STORAGE there before `ray start`" in " ".join(output.split())
    session = Path(two_nodes.head_node.get_session_dir_path())
    written = [*session.rglob("*"), *(tmp_path / "runs").rglob("*"), tmp_path / "output.txt"]
    assert not [path for path in written if path.is_file() and b"hunter2hunter" in path.read_bytes()]


def test_a_cluster_that_cannot_be_reached_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    space = searching.write_space(tmp_path, trainer="fake_trainers:quick")
    done = subprocess.run(
        [*PROGRAM, "--space", str(space), "--executor", "ray", "--ray-address", "127.0.0.1:9",
         "--storage", f"sqlite:///{tmp_path}/study.db"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Ray cluster can be reached at 127.0.0.1:9" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr


def test_ray_is_started_for_the_study_and_ends_with_it_after_ctrl_c(tmp_path: Path, sqlite_url: str) -> None:
    study = DisturbedStudy(
        tmp_path, sqlite_url, trials=2, epochs=EPOCHS, executor="ray", workers={"count": 2, "threads": 1}
    )
    study.tie(HELD)
    study.start()
    study.wait_for("SELECT count(*) FROM sb_epochs")
    assert study.process is not None
    driver = _drivers(tmp_path)[0]
    of_ray = driver.children(recursive=True)
    assert any("raylet" in process.name() for process in of_ray)
    os.killpg(study.process.pid, signal.SIGINT)
    output = study.finish()
    assert "interrupted" in output
    assert study.query("SELECT DISTINCT state FROM sb_jobs") == [("pending",)]
    assert study.query("SELECT DISTINCT end_reason FROM sb_attempts") == [("preempted",)]
    await_true(lambda: not any(process.is_running() for process in [driver, *of_ray]), "the end of Ray")
