"""A search that is killed at random moments ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import leash
import pytest
from searching import (
    curves,
    finish,
    kill_group,
    printed,
    query,
    start,
    tie,
    untie,
    wait_for,
    wait_for_words,
    write_space,
)

from orchestrator.reading.front import pareto_front

pytestmark = pytest.mark.system

TRIALS, EPOCHS, KILLS = 5, 6, 3
STEADY = 20  # epochs of a trial without torch
HELD = STEADY // 2  # where it stands while something happens to it


def assert_sound(folder: Path, trials: int, epochs: int) -> None:
    """Check that the study has exactly its trials, each whole, and nothing is left running."""
    assert Counter(query(folder, "SELECT state FROM trials")) == {("COMPLETE",): trials}
    assert query(folder, "SELECT count(DISTINCT number), count(*) FROM trials") == [(trials, trials)]
    assert Counter(query(folder, "SELECT state, told FROM sb_jobs")) == {("done", 1): trials}
    rows = query(
        folder, "SELECT job_id, group_concat(epoch) FROM (SELECT * FROM sb_epochs ORDER BY 1, 2) GROUP BY job_id"
    )
    assert [epochs_of for _, epochs_of in rows] == [",".join(map(str, range(1, epochs + 1)))] * trials


def start_steady(folder: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """Start a search of two trials, and return its space and its process when both stand in their midst."""
    space = write_space(
        folder, trainer="fake_trainers:steady", overrides={"loss.name": "ce_ss", "training.epochs": STEADY}
    )
    tie(folder, HELD)
    process = start(folder, space, "--trials", "2")
    wait_for(folder, f"SELECT count(*) = 2 FROM sb_epochs WHERE epoch = {HELD}")
    return space, process


def timeless(values: dict[tuple[int, int, str], float]) -> dict[tuple[int, int, str], float]:
    return {key: value for key, value in values.items() if "seconds" not in key[2] and "memory" not in key[2]}


def test_kills_of_everything_lose_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("SPIKEBENCH_TEST_SEED", "0")) or random.randrange(1, 10**6)
    sys.stdout.write(f"SPIKEBENCH_TEST_SEED={seed}\n")  # shown when the test fails
    moments = random.Random(seed)
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    for folder in (killed, calm):
        folder.mkdir()
        space = write_space(folder, trainer="faulty_trainers:leashed", budget={"trials": TRIALS})
        space.write_text(space.read_text().replace("training.epochs: 4", f"training.epochs: {EPOCHS}"))
    last = killed / f"runs/tiny/trial_{TRIALS - 1:05d}"
    leash.tie(last, EPOCHS - 1)  # the study is not complete before all kills are done
    for _ in range(KILLS):
        process = start(killed, killed / "tiny.yaml")
        wait_for(
            killed,
            f"SELECT controller LIKE '% {process.pid} %' AND EXISTS"
            " (SELECT 1 FROM sb_attempts WHERE ended_at IS NULL AND pid IS NOT NULL) FROM sb_studies",
        )
        time.sleep(moments.uniform(0.0, 1.5))
        assert process.poll() is None, printed(killed)
        kill_group(process)
    leash.untie(last)
    output = finish(killed, start(killed, killed / "tiny.yaml"))
    assert "is complete" in output
    assert_sound(killed, TRIALS, EPOCHS)
    assert "is complete" in finish(calm, start(calm, calm / "tiny.yaml"))
    assert timeless(curves(killed)) == timeless(curves(calm))
    for folder in (killed, calm):  # of ended trials only the front and the latest keep checkpoints
        kept = {path.parent.name for path in folder.glob("runs/tiny/trial_*/ckpt-*")}
        assert kept == {f"trial_{number:05d}" for number in front_and_latest(folder)}


def front_and_latest(folder: Path) -> set[int]:
    rows = query(
        folder,
        "SELECT trial_number, a.value, d.value FROM sb_jobs JOIN sb_metrics a ON a.job_id = sb_jobs.id"
        " AND a.name = 'val_accuracy' JOIN sb_metrics d ON d.job_id = sb_jobs.id AND d.name = 'val_spike_density'"
        f" AND d.epoch = a.epoch WHERE a.epoch = {EPOCHS} ORDER BY sb_jobs.ended_at",
    )
    front = pareto_front([row[1:] for row in rows], ["maximize", "minimize"])
    return {rows[index][0] for index in (*front, -1)}


def test_the_same_command_after_the_end_says_that_the_study_is_complete(tmp_path: Path) -> None:
    space = write_space(tmp_path, trainer="fake_trainers:quick")
    assert "is complete: 4 of 4" in finish(tmp_path, start(tmp_path, space))
    before = query(tmp_path, "SELECT count(*) FROM sb_attempts")
    output = finish(tmp_path, start(tmp_path, space))
    assert "4 of 4 trials done" in output
    assert "is complete: 4 of 4" in output
    assert query(tmp_path, "SELECT count(*) FROM sb_attempts") == before
    assert "6 of 6" in finish(tmp_path, start(tmp_path, space, "--trials", "6"))


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(tmp_path: Path) -> None:
    space, process = start_steady(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output = finish(tmp_path, process)
    assert process.returncode == 1
    assert "interrupted" in output
    assert Counter(query(tmp_path, "SELECT state, attempt FROM sb_jobs")) == {("pending", 1): 2}
    assert query(tmp_path, "SELECT DISTINCT end_reason FROM sb_attempts") == [("preempted",)]
    untie(tmp_path)
    assert "is complete: 2 of 2" in finish(tmp_path, start(tmp_path, space, "--trials", "2"))
    assert_sound(tmp_path, 2, STEADY)


def test_ctrl_c_twice_ends_at_once_and_still_loses_nothing(tmp_path: Path) -> None:
    space = write_space(tmp_path, trainer="fake_trainers:deaf", overrides={"loss.name": "ce_ss", "training.epochs": 40})
    process = start(tmp_path, space, "--trials", "2")
    wait_for(tmp_path, "SELECT count(DISTINCT job_id) = 2 FROM sb_epochs")
    os.killpg(process.pid, signal.SIGINT)
    wait_for_words(tmp_path, "stopping: running trials write a checkpoint")
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    finish(tmp_path, process)  # the trials would be deaf for ten minutes
    assert Counter(query(tmp_path, "SELECT state FROM sb_jobs")) == {("pending",): 2}


@pytest.mark.parametrize("victim", ["worker", "trial"])
def test_a_killed_worker_or_trial_is_replaced_while_the_search_goes_on(tmp_path: Path, victim: str) -> None:
    _, process = start_steady(tmp_path)
    table = "sb_workers" if victim == "worker" else "sb_attempts"
    os.kill(query(tmp_path, f"SELECT pid FROM {table} WHERE ended_at IS NULL")[0][0], signal.SIGKILL)
    untie(tmp_path)
    assert "is complete: 2 of 2" in finish(tmp_path, process)
    assert_sound(tmp_path, 2, STEADY)
    reasons = Counter(row[0] for row in query(tmp_path, "SELECT end_reason FROM sb_attempts"))
    assert reasons == {"finished": 2, "lost": 1}


def test_a_killed_controller_leaves_no_process_and_its_trials_are_given_back(tmp_path: Path) -> None:
    space, process = start_steady(tmp_path)
    process.kill()
    process.wait()
    wait_for(tmp_path, "SELECT count(*) = 0 FROM sb_workers WHERE ended_at IS NULL")
    assert Counter(query(tmp_path, "SELECT state FROM sb_jobs")) == {("pending",): 2}
    untie(tmp_path)
    assert "is complete: 2 of 2" in finish(tmp_path, start(tmp_path, space, "--trials", "2"))
    assert_sound(tmp_path, 2, STEADY)


def test_a_second_controller_is_refused_with_one_line(tmp_path: Path) -> None:
    space, first = start_steady(tmp_path)
    second = start(tmp_path, space, "--trials", "2")
    output = finish(tmp_path, second)
    assert second.returncode == 1
    assert f"another controller (process {first.pid} on " in output
    assert first.poll() is None
    kill_group(first)
