"""Stop rules: what they end, what they never end, and that the tables alone decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, update

from orchestrator.reading.front import pareto_front
from orchestrator.storage.database import Database
from orchestrator.storage.tables import EndReason, EpochRow, JobRow, JobState, MetricRow, StudyRow
from orchestrator.studies.stopping import StopRules, breaks, crowding_distances, is_behind, rung_epochs
from search_spaces.space import Constraint, HardConstraints, Rungs, Space
from trainers.protocol import Verdict

TWO = [{"metric": "accuracy", "direction": "maximize"}, {"metric": "density", "direction": "minimize"}]
ONE = TWO[:1]
HALF = {"rungs": {"first": 2, "factor": 2, "min_trials": 2}}


# --- the rules themselves ---------------------------------------------------------------------------------------------

values = st.floats(-10, 10).map(lambda value: round(value, 1))


@st.composite
def populations(draw: st.DrawFn) -> list[tuple[float, ...]]:
    """Draw trials' losses at a rung, with ties."""
    width = draw(st.integers(1, 3))
    return draw(st.lists(st.tuples(*[values] * width), min_size=1, max_size=25))


def survivors(losses: Sequence[tuple[float, ...]], rungs: Rungs) -> list[int]:
    return [index for index in range(len(losses)) if not is_behind(index, losses, rungs)]


@given(populations(), st.integers(2, 5))
def test_a_trial_that_nobody_dominates_is_never_behind(losses: list[tuple[float, ...]], factor: int) -> None:
    front = pareto_front(losses, ["minimize"] * len(losses[0]))
    assert set(front) <= set(survivors(losses, Rungs(factor=factor, min_trials=1)))


@given(populations(), st.integers(2, 5))
def test_at_least_one_in_factor_goes_on_and_without_ties_no_more_than_that_and_the_front(
    losses: list[tuple[float, ...]], factor: int
) -> None:
    share = math.ceil(len(losses) / factor)
    kept = survivors(losses, Rungs(factor=factor, min_trials=1))
    assert len(kept) >= share
    if len(losses[0]) == 1 and len(set(losses)) == len(losses):
        assert len(kept) == share


@given(populations(), st.integers(2, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_others_does_not_matter(losses: list[tuple[float, ...]], factor: int, random: Any) -> None:
    rungs = Rungs(factor=factor, min_trials=1)
    order = list(range(len(losses)))
    random.shuffle(order)
    shuffled = survivors([losses[index] for index in order], rungs)
    assert sorted(order[index] for index in shuffled) == survivors(losses, rungs)


@given(populations(), st.integers(2, 5))
def test_who_is_dominated_by_one_that_is_behind_is_behind(losses: list[tuple[float, ...]], factor: int) -> None:
    rungs = Rungs(factor=factor, min_trials=1)
    kept = set(survivors(losses, rungs))
    for index in kept:
        better = [other for other in range(len(losses)) if dominates(losses[other], losses[index])]
        assert set(better) <= kept


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(populations())
def test_few_trials_are_not_compared(losses: list[tuple[float, ...]]) -> None:
    assert survivors(losses, Rungs(min_trials=len(losses) + 1)) == list(range(len(losses)))


def test_within_a_front_the_lonely_go_on() -> None:
    losses = [(0.0, 0.0), *[(1.0 + step, 9.0 - step) for step in (0.0, 3.9, 4.0, 4.1, 8.0)]]
    assert survivors(losses, Rungs(factor=2, min_trials=1)) == [0, 1, 5]  # 3 places: the first front, then the ends


def test_crowding_is_the_distance_of_the_neighbours_as_a_share_of_the_extent() -> None:
    found = crowding_distances([(0.0, 4.0), (1.0, 2.0), (1.0, 2.0), (4.0, 0.0)])
    assert found == {(0.0, 4.0): math.inf, (1.0, 2.0): 2.0, (4.0, 0.0): math.inf}


def test_rungs_lie_before_the_last_epoch() -> None:
    assert rung_epochs(Rungs(first=2, factor=3), 18) == [2, 6]
    assert rung_epochs(Rungs(first=2, factor=3), 19) == [2, 6, 18]
    assert rung_epochs(Rungs(first=5), 5) == []


@pytest.mark.parametrize(
    ("curve", "rule", "broken"),
    [
        ([0.9, 0.9, 0.9], {"grace": 2, "epochs": 1}, True),
        ([0.9, 0.9, 0.1], {"grace": 2, "epochs": 1}, False),
        ([0.9, 0.9, 0.1, 0.9, 0.1], {"grace": 0, "epochs": 3}, False),
        ([0.1, 0.9, 0.9, 0.9, 0.1], {"grace": 0, "epochs": 3}, True),
        ([0.9, 0.9, 0.9], {"grace": 1, "epochs": 3}, False),
        ([0.5, 0.5, 0.5], {"grace": 0, "epochs": 1}, False),
    ],
)
def test_a_constraint_must_be_broken_in_a_row_after_the_grace(
    curve: list[float], rule: dict[str, int], broken: bool
) -> None:
    constraint = Constraint(metric="density", max=0.5, hard=True)
    assert breaks(constraint, dict(enumerate(curve, start=1)), HardConstraints(**rule)) is broken


# --- on a study in the database ---------------------------------------------------------------------------------------


def space(objectives: Sequence[Mapping[str, str]] = TWO, **changes: Any) -> Space:
    document = {
        "name": "s",
        "base": "b",
        "parameters": {"loss.omega": {"type": "float", "low": 0.0, "high": 1.0}},
        "objectives": objectives,
        **changes,
    }
    return Space.model_validate(document)


def add_study(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1, name="s", optuna_study_id=1, space_json="{}", space_hash="h", seed=1, budget_trials=9,
                created_at=0.0,
            )
        )  # fmt: skip


def add_trial(database: Database, number: int, state: JobState = JobState.LEASED, epochs: int = 8) -> int:
    with database.begin() as connection:
        job_id: int = connection.execute(
            insert(JobRow)
            .values(
                study_id=1, trial_number=number, optuna_trial_id=number, config={"training": {"epochs": epochs}},
                config_hash="c", params={}, trainer="t:t", threads=1, run_dir="/r", created_at=0.0, state=state,
                attempt=1,
            )
            .returning(JobRow.id)
        ).scalar_one()  # fmt: skip
    return job_id


def report(database: Database, job_id: int, epoch: int, at: float, **metrics: float) -> None:
    with database.begin() as connection:
        connection.execute(insert(EpochRow).values(job_id=job_id, epoch=epoch, attempt=1, seconds=1.0, reported_at=at))
        rows = [{"job_id": job_id, "epoch": epoch, "name": name, "value": value} for name, value in metrics.items()]
        connection.execute(insert(MetricRow), rows)


def change(database: Database, job_id: int, **columns: Any) -> None:
    with database.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == job_id).values(**columns))


def wishes(database: Database) -> dict[int, str]:
    """Return trial number -> reason for which it was asked to stop."""
    query = select(JobRow.trial_number, JobRow.verdict_reason).where(JobRow.verdict == Verdict.STOP)
    with database.read() as connection:
        return {row.trial_number: row.verdict_reason for row in connection.execute(query)}


def test_a_trial_that_is_behind_is_asked_to_stop_and_the_front_is_not(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(stop=HALF))
    for number, (accuracy, density) in enumerate([(0.9, 0.2), (0.5, 0.1), (0.4, 0.3), (0.8, 0.15)]):
        report(database, add_trial(database, number), 2, 10.0 + number, accuracy=accuracy, density=density)
    assert rules.apply() == [2]
    assert rules.apply() == []
    assert wishes(database) == {2: EndReason.DOMINATED}


def test_one_objective_goes_by_its_value(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(ONE, stop=HALF))
    for number, accuracy in enumerate([0.1, 0.9, 0.8, 0.5]):
        report(database, add_trial(database, number), 2, 10.0 + number, accuracy=accuracy)
        rules.apply()
    assert wishes(database) == {3: EndReason.RUNG}  # the first came alone, the third is second of three: 2 places


def test_trials_that_have_ended_count_and_epochs_between_rungs_do_not(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(ONE, stop=HALF))
    for number in range(2):
        report(database, add_trial(database, number, JobState.DONE), 2, 10.0, accuracy=0.9)
    rules.apply()
    job_id = add_trial(database, 2)
    report(database, job_id, 1, 11.0, accuracy=0.1)
    assert rules.apply() == []
    report(database, job_id, 2, 12.0, accuracy=0.1)
    assert rules.apply() == [2]


def test_a_trial_is_weighed_against_those_that_came_before_it_only(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(ONE, stop=HALF))
    for number, accuracy in enumerate([0.5, 0.4]):
        report(database, add_trial(database, number), 2, 10.0 + number, accuracy=accuracy)
    first = rules.apply()
    for number, accuracy in enumerate([0.9, 0.9], start=2):
        report(database, add_trial(database, number), 2, 20.0 + number, accuracy=accuracy)
    assert (first, rules.apply()) == ([1], [])


def test_a_controller_that_takes_over_decides_the_same(database: Database) -> None:
    """One reads tick by tick, the other all at once at the end; verdicts are wiped in between."""
    add_study(database)
    rules = StopRules(database, 1, space(stop=HALF))
    stopped = []
    for number in range(24):
        job_id = add_trial(database, number)
        at, x = 10.0 + number, (number * 7 % 24) / 24
        report(database, job_id, 2, at, accuracy=x, density=x * x + (number % 3) / 9)
        stopped += rules.apply()
    assert 0 < len(stopped) < 24
    with database.begin() as connection:
        connection.execute(update(JobRow).values(verdict=Verdict.CONTINUE, verdict_reason=None))
    assert sorted(StopRules(database, 1, space(stop=HALF)).apply()) == sorted(stopped)


def test_a_trial_whose_attempt_was_lost_is_asked_again(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(ONE, stop=HALF))
    ids = [add_trial(database, number) for number in range(2)]
    for job_id, accuracy in zip(ids, (0.9, 0.1), strict=True):
        report(database, job_id, 2, 10.0 + job_id, accuracy=accuracy)
    assert rules.apply() == [1]
    change(database, ids[1], state=JobState.PENDING)
    assert rules.apply() == []
    change(database, ids[1], state=JobState.LEASED, attempt=2, verdict=Verdict.CONTINUE, verdict_reason=None)
    assert rules.apply() == [1]
    assert wishes(database) == {1: EndReason.RUNG}


def test_the_wish_of_a_person_stands(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(ONE, stop=HALF))
    for number, accuracy in enumerate((0.9, 0.1)):
        job_id = add_trial(database, number)
        report(database, job_id, 2, 10.0 + number, accuracy=accuracy)
    change(database, job_id, verdict=Verdict.STOP, verdict_reason=EndReason.CANCELLED)
    assert rules.apply() == []
    assert wishes(database) == {1: EndReason.CANCELLED}


def test_a_trial_without_an_objective_at_the_rung_is_left_alone(database: Database) -> None:
    add_study(database)
    rules = StopRules(database, 1, space(stop=HALF))
    for number in range(3):
        report(database, add_trial(database, number), 2, 10.0 + number, accuracy=0.9 - number / 10)
    assert rules.apply() == []


def test_a_hard_constraint_ends_a_trial_and_a_soft_one_does_not(database: Database) -> None:
    add_study(database)
    constraints = [{"metric": "density", "max": 0.5, "hard": True}, {"metric": "accuracy", "min": 0.8}]
    rules = StopRules(database, 1, space(constraints=constraints, stop={"constraint": {"grace": 1, "epochs": 2}}))
    dense, sparse = add_trial(database, 0), add_trial(database, 1)
    for epoch in (1, 2, 3):
        assert rules.apply() == []
        report(database, dense, epoch, 10.0 + epoch, density=0.9, accuracy=0.9)
        report(database, sparse, epoch, 10.0 + epoch, density=0.2, accuracy=0.1)
    assert rules.apply() == [0]
    assert wishes(database) == {0: EndReason.CONSTRAINT}


def test_nothing_is_decided_at_the_last_epoch(database: Database) -> None:
    add_study(database)
    constraints = [{"metric": "density", "max": 0.5, "hard": True}]
    rules = StopRules(database, 1, space(constraints=constraints, stop=HALF))
    for number, accuracy in enumerate((0.9, 0.1)):
        job_id = add_trial(database, number, epochs=2)
        report(database, job_id, 2, 10.0 + number, density=0.9, accuracy=accuracy)
    assert rules.apply() == []


def test_other_studies_are_left_alone(database: Database) -> None:
    add_study(database)
    for number, accuracy in enumerate((0.9, 0.1)):
        report(database, add_trial(database, number), 2, 10.0 + number, accuracy=accuracy)
    assert StopRules(database, 2, space(ONE, stop=HALF)).apply() == []


@pytest.mark.parametrize("trials", [20, 200])
def test_a_tick_reads_open_trials_only(local: Database, trials: int) -> None:
    """However many trials have ended, a tick takes three short queries."""
    add_study(local)
    constraints = [{"metric": "density", "max": 0.5, "hard": True}]
    rules = StopRules(local, 1, space(constraints=constraints, stop=HALF))
    for number in range(trials):
        job_id = add_trial(local, number, JobState.DONE if number < trials - 2 else JobState.LEASED)
        report(local, job_id, 2, 10.0 + number, density=0.1, accuracy=0.5)
    rules.apply()
    read: list[Any] = []
    event.listen(local.engine, "before_cursor_execute", lambda *given: read.append(given[3]))
    assert rules.apply() == []
    assert len(read) == 4  # BEGIN and three queries
    assert max(map(len, read)) < 12  # variables: two open trials, not all


def test_without_a_rule_nothing_is_read() -> None:
    no_database: Any = None
    assert StopRules(no_database, 1, space(constraints=[{"metric": "density", "max": 0.5}])).apply() == []
