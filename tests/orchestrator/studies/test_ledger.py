from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection

from orchestrator.errors import OrchestratorError
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.study import optuna_storage
from orchestrator.studies.ledger import ForeignTrialError, Ledger
from orchestrator.studies.sampler import MAKERS, make_sampler
from search_spaces.space import Sampler

LENGTHS = {"nsga2": 160, "gp": 6}  # generations are of 50; a Gaussian process takes seconds to fit; 14 for the others


@pytest.fixture
def storage(database: Database) -> Iterator[RDBStorage]:
    opened = optuna_storage(database)
    yield opened
    opened.remove_session()
    opened.engine.dispose()


def study_of(storage: RDBStorage, directions: Sequence[StudyDirection] = (StudyDirection.MAXIMIZE,)) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", directions=directions)


def ledger_of(storage: RDBStorage) -> tuple[Ledger, optuna.Study]:
    ledger = Ledger(storage, storage.get_study_id_from_name("s"))
    return ledger, optuna.Study("s", ledger)


def save(database: Database, ledger: Ledger) -> None:
    ledger.written(database.write(ledger.write))


def test_what_is_written_is_what_optuna_reads(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    ledger, study = ledger_of(storage)
    trial = study.ask(
        {
            "rate": FloatDistribution(1e-3, 1.0, log=True),
            "width": IntDistribution(8, 64),
            "kind": CategoricalDistribution(("a", None, 3)),
        }
    )
    save(database, ledger)
    assert plain.get_trials() == study.get_trials(), "a running trial"
    trial = optuna.Trial(study, plain.trials[0]._trial_id)
    trial.report(0.5, 1)
    trial.report(math.inf, 2)
    trial.set_user_attr("end_reason", "finished")
    trial.set_constraint("density", -0.1)
    study.tell(trial, 0.75)
    study.tell(study.ask(), state=TrialState.FAIL)
    save(database, ledger)
    assert plain.get_trials() == study.get_trials()
    assert [trial.state.name for trial in plain.trials] == ["COMPLETE", "FAIL"]
    assert plain.best_trial.constraints == {"density": -0.1}
    assert Ledger(storage, plain._study_id).get_all_trials(0) == study.get_trials(), "read anew"


def test_nothing_is_written_before_it_is_asked_for(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    ledger, study = ledger_of(storage)
    study.ask().suggest_float("x", 0, 1)
    assert plain.get_trials() == []
    ledger.reload()
    assert study.get_trials() == []
    assert study.ask().number == 0
    save(database, ledger)
    assert len(plain.get_trials()) == 1


def test_a_transaction_that_is_tried_again_writes_once(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    ledger, study = ledger_of(storage)
    study.ask().suggest_float("x", 0, 1)

    def fail(connection: Connection) -> None:
        ledger.write(connection)
        raise RuntimeError("the connection was cut")

    with pytest.raises(RuntimeError):
        database.write(fail)
    save(database, ledger)
    save(database, ledger)
    assert plain.get_trials() == study.get_trials()


def test_a_trial_that_others_enqueue_is_asked_next_with_its_parameters(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    ledger, study = ledger_of(storage)
    study.ask()
    save(database, ledger)
    plain.enqueue_trial({"x": 0.25})
    assert ledger.next_number == 1
    with database.read() as connection:
        ledger.notice(connection)
    assert (ledger.asked, ledger.next_number) == (1, 1)
    trial = study.ask()
    assert trial.number == 1
    assert trial.suggest_float("x", 0, 1) == 0.25
    save(database, ledger)
    assert ledger.asked == 2
    assert plain.get_trials() == study.get_trials()
    assert [trial.state.name for trial in plain.trials] == ["RUNNING", "RUNNING"]


def test_two_trials_never_share_a_number(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    ledger, study = ledger_of(storage)
    study.ask()
    plain.enqueue_trial({"x": 0.25})
    with pytest.raises(ForeignTrialError):
        save(database, ledger)
    ledger.reload()
    assert [trial.state.name for trial in study.get_trials()] == ["WAITING"]


def test_a_finished_trial_is_not_changed_by_a_late_writer(database: Database, storage: RDBStorage) -> None:
    plain = study_of(storage)
    _, study = first = ledger_of(storage)
    trial = study.ask()
    save(database, first[0])
    late, late_study = ledger_of(storage)
    study.tell(trial.number, 1.0)
    save(database, first[0])
    late_study.tell(trial.number, state=TrialState.FAIL)
    save(database, late)
    assert plain.trials[0].state is TrialState.COMPLETE


def test_numbers_with_gaps_are_refused(database: Database, storage: RDBStorage) -> None:
    from orchestrator.storage.optuna_rows import TRIALS

    study_of(storage).ask()
    with database.begin() as connection:
        connection.execute(TRIALS.update().values(number=1))
    with pytest.raises(OrchestratorError, match="has no trial 0"):
        ledger_of(storage)


# --- the same parameters as by plain Optuna ---------------------------------------------------------------------------


def draw(trial: optuna.Trial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["adam", "sgd"])
    params = {"kind": kind, "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True)}
    if kind == "sgd":
        params["momentum"] = trial.suggest_float("momentum", 0.5, 0.99)
    return params | {"width": trial.suggest_int("width", 8, 64, log=True)}


def values_of(params: dict[str, Any], objectives: int) -> list[float]:
    return [-abs(math.log10(params["rate"]) + 2) - params.get("momentum", 0.3), float(params["width"])][:objectives]


def search(study: optuna.Study, section: Sampler, save: Callable[[], None]) -> list[dict[str, Any]]:
    """Ask two trials at a time and tell them the other way round, as two workers would."""
    drawn = []
    for first in range(0, LENGTHS.get(section.name, 14), 2):
        pair = []
        for number in (first, first + 1):
            study.sampler = make_sampler(section, 5, number)
            pair.append((study.ask(), number))
            drawn.append(draw(pair[-1][0]))
            save()
        for trial, number in reversed(pair):
            failed = number % 5 == 4
            state = TrialState.FAIL if failed else TrialState.COMPLETE
            study.tell(number, None if failed else values_of(trial.params, len(study.directions)), state)
        save()
    return drawn


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_sampler_draws_what_it_draws_without_the_ledger(tmp_path: Path, name: str, objectives: int) -> None:
    section = Sampler.model_validate({"name": name, "seed": 5, "startup_trials": 4})
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives]
    enqueued = {"kind": "sgd", "rate": 0.5, "momentum": 0.75}
    alone = optuna.create_study(directions=directions)
    alone.enqueue_trial(enqueued)
    expected = search(alone, section, lambda: None)
    database = open_database(f"sqlite:///{tmp_path}/s.db", create=True)
    storage = optuna_storage(database)
    plain = study_of(storage, directions)
    plain.enqueue_trial(enqueued)
    ledger, study = ledger_of(storage)
    found = search(study, section, lambda: save(database, ledger))
    assert found == expected
    assert plain.get_trials() == study.get_trials()
    assert [trial.params for trial in plain.get_trials()] == expected
    storage.remove_session()
    storage.engine.dispose()
    database.engine.dispose()
