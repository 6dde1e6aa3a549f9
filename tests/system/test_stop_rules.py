"""A search whose stop rules end trials early: they are told so, shown so, and leave the front to the others."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import leash
import pytest
from searching import finish, printed, query, start, tie, wait_for, write_space

from orchestrator.queue.timing import LEASE_VARIABLE
from orchestrator.reading.history import read_history
from orchestrator.reading.labels import END_REASONS
from orchestrator.reports.report import render_report
from orchestrator.storage.database import open_database
from orchestrator.storage.tables import EndReason

pytestmark = pytest.mark.system

EPOCHS = 60
BEHIND_ALL_RUNGS = 40  # where a trial stands until it has been weighed at every rung
RENEWAL = 1.0  # seconds between two signs of life of the controller


def let_go_who_may(folder: Path, search: subprocess.Popen[bytes]) -> None:
    """Let trials go on to their end once the controller has had the occasion to end them.

    A controller renews its lease, then applies the stop rules, then renews again: between two renewals that come after
    a trial's epochs it has weighed them all.
    """
    renewals, lease = 0, None
    stands_since: dict[int, int] = {}
    deadline = time.monotonic() + 240
    while search.poll() is None:
        assert time.monotonic() < deadline, printed(folder)
        standing = query(
            folder, f"SELECT trial_number FROM sb_jobs JOIN sb_epochs ON job_id = sb_jobs.id"
            f" WHERE epoch = {BEHIND_ALL_RUNGS} AND state = 'leased' AND verdict = 'continue'"
        )  # fmt: skip
        for (number,) in standing:
            if renewals >= stands_since.setdefault(number, renewals) + 2:
                leash.tie(folder / f"runs/tiny/trial_{number:05d}", EPOCHS)
        before, ((lease,),) = lease, query(folder, "SELECT controller_lease_until FROM sb_studies")
        renewals += lease != before
        time.sleep(0.1)


def test_rungs_and_a_hard_constraint_end_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, str(6 * RENEWAL))
    space = write_space(
        tmp_path,
        trainer="fake_trainers:steady",
        overrides={"loss.name": "ce_ss", "training.epochs": EPOCHS},
        parameters={"loss.omega": {"type": "categorical", "choices": [1e-6, 1e-5, 2e-4, 5e-4]}},
        objectives=[
            {"metric": "val_accuracy", "direction": "maximize"},
            {"metric": "val_loss", "direction": "minimize"},  # the same for all trials at the same epoch
        ],
        constraints=[{"metric": "val_spike_density", "max": 5.0, "hard": True}],
        stop={"rungs": {"first": 2, "factor": 2, "min_trials": 3}, "constraint": {"grace": 1, "epochs": 2}},
        budget={"trials": 12},
    )
    tie(tmp_path, BEHIND_ALL_RUNGS)
    search = start(tmp_path, space)
    wait_for(tmp_path, "SELECT count(*) FROM sb_epochs")
    let_go_who_may(tmp_path, search)
    output = finish(tmp_path, search)
    assert "is complete: 12 of 12" in output
    ended = query(
        tmp_path,
        "SELECT trial_number, end_reason, state, told, params, max(epoch) FROM sb_jobs JOIN sb_epochs"
        " ON job_id = sb_jobs.id GROUP BY job_id ORDER BY trial_number",
    )
    early = {number: reason for number, reason, *_ in ended if reason != EndReason.FINISHED}
    assert set(early.values()) == {EndReason.DOMINATED, EndReason.CONSTRAINT}, output
    for number, reason, state, told, params, epochs in ended:
        assert (state, told) == ("done", 1)
        assert (epochs < EPOCHS) == (number in early)
        assert (reason == EndReason.CONSTRAINT) == ("1e-06" in params)
    states = dict(query(tmp_path, "SELECT number, state FROM trials"))
    assert states == {number: "PRUNED" if number in early else "COMPLETE" for number, *_ in ended}
    assert f"stopped early: {END_REASONS[EndReason.DOMINATED].partition(': ')[2]}" in output
    database = open_database(f"sqlite:///{tmp_path}/study.db")
    history = read_history(database, "tiny")
    assert {trial.number for trial in history.front.trials} <= {number for number, *_ in ended} - early.keys()
    page = render_report(history)
    assert all(END_REASONS[reason] in page for reason in early.values())
    database.engine.dispose()
