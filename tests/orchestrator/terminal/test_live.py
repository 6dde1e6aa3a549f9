from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from seeded import OBJECTIVES, seed_study, seed_worker

from orchestrator.reading.snapshot import SnapshotReader, StudySnapshot
from orchestrator.storage.database import Database
from orchestrator.terminal.live import LiveView, LogView, View, make_view, progress_line
from orchestrator.terminal.panel import study_panel


def snapshot_of(database: Database, **changes: object) -> StudySnapshot:
    study = seed_study(database, **changes)
    seed_worker(database, study_id=study)
    return SnapshotReader(database, study).read()


def drawn(snapshot: StudySnapshot, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(study_panel(snapshot, console.size, 434.0))
    return console.file.getvalue().splitlines()


def log_of(view_of: type[View], snapshots: list[StudySnapshot]) -> str:
    console = Console(file=io.StringIO(), width=80)
    view = view_of(console)
    view.start()
    for snapshot in snapshots:
        view.update(snapshot)
    view.stop()
    return console.file.getvalue()


def test_a_terminal_gets_a_picture_and_a_pipe_gets_lines() -> None:
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True)), LiveView)
    assert isinstance(make_view(Console(file=io.StringIO())), LogView)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 50)])
def test_the_picture_fits_the_terminal(local: Database, width: int, height: int) -> None:
    lines = drawn(snapshot_of(local, trials=40, running=6, budget=60), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for expected in ("stal_loss", "40 of 60 trials", "3 failed", "6 running", "Front, ", "Last ended", "left"):
        assert expected in text


def test_the_picture_shows_running_trials(local: Database) -> None:
    snapshot = snapshot_of(local, trials=4, running=2, budget=60)
    running = replace(snapshot.running[0], epoch=6, epochs=10, attempt=3, metrics={"val_accuracy": 0.7526})
    lines = drawn(replace(snapshot, running=(running, snapshot.running[1])), 100, 40)
    row = next(line for line in lines if "6/10" in line)
    for expected in ("4", "75.26 %", "cuda:0@gpubox", "attempt 3"):
        assert expected in row


def test_the_picture_says_when_no_trial_is_feasible(local: Database) -> None:
    bounds = [{"metric": "val_accuracy", "min": 2.0}]
    assert "No trial keeps the constraints" in "\n".join(
        drawn(snapshot_of(local, trials=5, constraints=bounds), 80, 40)
    )


def test_the_picture_of_a_study_that_has_just_begun(local: Database) -> None:
    text = "\n".join(drawn(snapshot_of(local, trials=0, waiting=2, budget=8), 80, 24))
    assert "0 of 8 trials" in text
    assert "2 waiting" in text
    assert "Front" not in text


def test_one_objective_has_a_best_instead_of_a_front(local: Database) -> None:
    snapshot = snapshot_of(local, trials=6, objectives=OBJECTIVES[:1])
    assert "Best" in "\n".join(drawn(snapshot, 80, 40))
    assert "on the front" not in progress_line(snapshot)


def test_text_from_trials_is_not_read_as_markup(local: Database) -> None:
    snapshot = snapshot_of(local, name="[red]odd[/nothing]", trials=14)
    assert "[red]odd[/nothing]" in "\n".join(drawn(snapshot, 100, 40))
    failed = next(t for t in snapshot.ended if t.end_reason == "oom")
    begun = replace(snapshot, ended=())
    log = log_of(LogView, [begun, replace(snapshot, ended=(replace(failed, end_detail="[/] [bold]odd"),))])
    assert "[/] [bold]odd" in log


def test_every_end_of_a_trial_has_one_line(local: Database) -> None:
    snapshot = snapshot_of(local, trials=20, running=1, budget=40)
    steps = [replace(snapshot, ended=snapshot.ended[:count]) for count in (3, 3, 4, 15, 20, 20)]
    lines = log_of(LogView, steps).splitlines()
    ended = [line for line in lines if any(word in line for word in ("finished:", "failed after", "stopped early"))]
    assert [int(line.split("trial ")[1].split()[0]) for line in ended] == [t.number for t in snapshot.ended[3:]]


def test_a_failure_names_reason_and_log(local: Database) -> None:
    snapshot = snapshot_of(local, trials=13)
    line = next(x for x in log_of(LogView, [replace(snapshot, ended=()), snapshot]).splitlines() if "failed" in x)
    assert "trial 12 failed after 3 epochs" in line
    assert "out of memory: CUDA out of memory" in line
    assert line.endswith("log: /data/runs/stal_loss/trial_00012/trial.log")


def test_epochs_are_told_now_and_then(local: Database) -> None:
    snapshot = snapshot_of(local, trials=3, running=1)
    trial = replace(snapshot.running[0], epoch=0)
    steps = [replace(snapshot, running=(replace(trial, epoch=epoch),)) for epoch in range(1, 9)]
    lines = [line for line in log_of(LogView, steps).splitlines() if "epoch" in line and "/10" in line]
    assert len(lines) == 1
    assert "trial 3 epoch 1/10" in lines[0]


def test_progress_is_one_line(local: Database) -> None:
    line = progress_line(snapshot_of(local, trials=20, running=2, budget=60))
    assert line.startswith("stal_loss: 20 of 60 trials, 1 failed, 2 running, ")
    assert "about" in line


def test_the_live_view_redraws_and_notes() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    view = LiveView(console)
    view.start()
    view.note("trial 3 lost its [worker]")
    view.stop()
    view.note("after the end")
    assert "trial 3 lost its [worker]" in console.file.getvalue()
    assert "after the end" in console.file.getvalue()


def test_a_budget_in_hours_is_shown_with_the_time_used(local: Database) -> None:
    snapshot = snapshot_of(local)
    limited = replace(snapshot, study=replace(snapshot.study, budget_hours=12.0), device_seconds=1.03)
    assert ", 1.0 s of 12 h" in "\n".join(drawn(limited, 100, 40))
