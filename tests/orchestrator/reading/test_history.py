from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from seeded import LAYERS, OBJECTIVES, PARAMETERS, seed_study
from sqlalchemy import event, insert, select, update

from orchestrator.errors import StudyNotFoundError
from orchestrator.reading.front import pareto_front
from orchestrator.reading.history import read_history
from orchestrator.reading.views import TrialState, spread
from orchestrator.storage.database import Database
from orchestrator.storage.tables import EpochRow, JobRow, JobState, MetricRow


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Collect the queries of a block."""
    seen: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def test_trials_are_put_together_from_all_tables(database: Database) -> None:
    seed_study(database, trials=20, running=2, waiting=1, epochs=5)
    seed_study(database, name="other", trials=3, epochs=5)
    history = read_history(database, "stal_loss")
    assert [trial.number for trial in history.trials] == list(range(23))
    assert [parameter.key for parameter in history.study.parameters] == list(PARAMETERS)
    first, stopped, failed, waiting = (history.trials[n] for n in (0, 16, 12, 22))
    assert (first.state, first.epochs, first.epochs_planned, first.attempts) == (TrialState.FINISHED, 5, 5, 1)
    assert first.values == (first.metrics["val_accuracy"], first.metrics["val_spike_density"])
    assert first.log_path.endswith("trial_00000/trial.log")
    assert first.seconds == pytest.approx(first.ended_at - first.started_at)
    assert (stopped.state, stopped.end_reason) == (TrialState.STOPPED, "dead_spikes")
    assert (failed.state, failed.end_reason, failed.epochs) == (TrialState.FAILED, "oom", 1)
    assert "out of memory" in failed.end_detail
    assert (waiting.state, waiting.values, waiting.metrics) == (TrialState.WAITING, None, {})
    assert history.trials[21].state is TrialState.RUNNING


def test_values_are_of_the_last_epoch(local: Database) -> None:
    seed_study(local, trials=4, epochs=5)
    with local.begin() as connection:
        connection.execute(insert(MetricRow).values(job_id=1, epoch=1, name="once", value=1.0))
    assert "once" not in read_history(local, "stal_loss").trials[0].metrics
    with local.read() as connection:
        query = (
            select(JobRow.trial_number, MetricRow.value)
            .join(MetricRow, MetricRow.job_id == JobRow.id)
            .where(MetricRow.name == "val_accuracy", MetricRow.epoch == 5)
        )
        expected = {row.trial_number: row.value for row in connection.execute(query)}
    assert {t.number: t.metrics["val_accuracy"] for t in read_history(local, "stal_loss").trials} == expected


def test_queries_do_not_grow_with_trials(database: Database) -> None:
    seed_study(database, trials=5, epochs=2)
    seed_study(database, name="large", trials=300, epochs=2)
    counts = []
    for name in ("stal_loss", "large"):
        with counted(database) as queries:
            history = read_history(database, name)
            assert history.front.trials
            history.curves("val_accuracy")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_front_holds_finished_trials_only(local: Database) -> None:
    seed_study(local, trials=40)
    history = read_history(local, "stal_loss")
    expected = pareto_front([t.values for t in history.finished], ["maximize", "minimize"])
    assert {t.number for t in history.front.trials} == {history.finished[i].number for i in expected}
    accuracies = [t.values[0] for t in history.front.trials]
    assert accuracies == sorted(accuracies, reverse=True)


def test_constraints_are_kept_by_the_front(local: Database) -> None:
    seed_study(local, trials=40, constraints=[{"metric": "val_spike_density", "max": 0.02}])
    seed_study(local, name="hopeless", trials=10, constraints=[{"metric": "val_accuracy", "min": 2.0}])
    seed_study(local, name="unmeasured", trials=10, constraints=[{"metric": "energy_mj", "max": 2.0}])
    kept = read_history(local, "stal_loss").front
    assert kept.feasible
    assert all(t.metrics["val_spike_density"] <= 0.02 for t in kept.trials)
    missed = read_history(local, "hopeless")
    assert not missed.front.feasible
    assert missed.front.trials[0].violation == min(t.violation for t in missed.finished)
    assert not read_history(local, "unmeasured").front.trials


def test_curves_and_layer_rates(database: Database) -> None:
    seed_study(database, trials=6, running=1, epochs=4, accidents=False)
    seed_study(database, name="other", trials=2, epochs=4)
    history = read_history(database, "stal_loss")
    curves = history.curves("val_accuracy")
    assert set(range(6)) <= set(curves) <= set(range(7))
    assert [epoch for epoch, _ in curves[3]] == [1, 2, 3, 4]
    assert curves[3][-1][1] == history.trials[3].metrics["val_accuracy"]
    assert set(history.curves("val_accuracy", history.trials[:2])) == {0, 1}
    assert history.curves("nothing") == {}
    rates = history.layer_rates(history.trials[:2])
    assert {number: set(found) for number, found in rates.items()} == {0: set(LAYERS), 1: set(LAYERS)}


def test_times_add_up(local: Database) -> None:
    seed_study(local, trials=6, accidents=False)
    history = read_history(local, "stal_loss")
    assert history.device_seconds == pytest.approx(sum(t.ended_at - t.started_at for t in history.trials))
    assert 0 < history.wall_seconds < history.device_seconds  # two ran at a time


def test_a_lost_epoch_row_does_not_hide_a_trial(local: Database) -> None:
    seed_study(local, trials=1, accidents=False)
    with local.begin() as connection:
        connection.execute(EpochRow.__table__.delete())
    trial = read_history(local, "stal_loss").trials[0]
    assert (trial.state, trial.values, trial.epochs) == (TrialState.FINISHED, None, 0)


def test_an_unknown_study_is_named_with_its_neighbours(local: Database) -> None:
    seed_study(local, trials=1)
    with pytest.raises(StudyNotFoundError, match="stal_loss"):
        read_history(local, "stal_los")


def test_the_stored_space_is_what_a_real_space_stores(local: Database) -> None:
    """The views read the space as plain JSON; its keys must be those that `CheckedSpace.to_json` writes."""
    from search_spaces.space import Space

    space = Space.model_validate(
        {
            "name": "s",
            "base": "b",
            "parameters": {key: {k: v for k, v in p.items() if v is not None} for key, p in PARAMETERS.items()},
            "objectives": OBJECTIVES,
            "constraints": [{"metric": "val_loss", "max": 1.0}],
        }
    )
    stored = json.loads(space.model_dump_json())
    seed_study(local, trials=2, parameters=stored["parameters"], constraints=stored["constraints"])
    study = read_history(local, "stal_loss").study
    assert {p.key: (p.kind, p.log) for p in study.parameters}["loss.omega"] == ("float", True)
    assert study.parameters[4].choices == ("adamw", "lamb")
    assert str(study.constraints[0]) == "val_loss <= 1"


def test_replay_command_quotes_paths(local: Database) -> None:
    seed_study(local, trials=1)
    with local.begin() as connection:
        connection.execute(update(JobRow).values(run_dir="/my runs/t0", state=JobState.DONE))
    command = read_history(local, "stal_loss").trials[0].replay_command
    assert command == "spikebench train --config '/my runs/t0/config.yaml'"


def test_spread_keeps_both_ends() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 5) == [1, 2]
