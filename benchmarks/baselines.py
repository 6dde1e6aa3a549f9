"""The same trivial search with raw Optuna and with Ray Tune, to set spikebench's overhead beside theirs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import warnings
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from benchmarks.problem import EPOCHS, RANGES, score, trainable
from orchestrator.storage.database import harden_sqlite

STUDY = "overhead"


# --- raw Optuna -------------------------------------------------------------------------------------------------------


def run_optuna(url: str, workers: int, trials: int, *, hardened: bool) -> float:
    """Return the seconds that forked workers take for a number of trials, from a common start to the last end.

    Args:
        url: an empty database.
        workers: processes that ask, report and tell on one study.
        trials: trials in all.
        hardened: SQLite with write-ahead log and `BEGIN IMMEDIATE`, as spikebench opens it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name=STUDY, storage=_storage(url, hardened), direction="maximize")
    fork = multiprocessing.get_context("fork")
    left = fork.Value("i", trials)
    start = fork.Barrier(workers + 1)
    processes = [fork.Process(target=_optuna_worker, args=(url, hardened, left, start)) for _ in range(workers)]
    for process in processes:
        process.start()
    start.wait(timeout=120)
    begun = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - begun
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise RuntimeError(f"{len(failed)} raw Optuna workers failed, exit codes {failed}")
    return seconds


def _storage(url: str, hardened: bool) -> RDBStorage:
    arguments: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    storage = RDBStorage(url, engine_kwargs=arguments)
    if hardened and url.startswith("sqlite"):
        storage.engine.dispose()  # connections made before the listeners would stay soft
        harden_sqlite(storage.engine)
    return storage


def _optuna_worker(url: str, hardened: bool, left: Synchronized[int], start: Barrier) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=STUDY, storage=_storage(url, hardened))
    _ = study.trials
    start.wait(timeout=120)
    while _take(left):
        trial = study.ask()
        point = {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in RANGES.items()}
        value = 0.0
        for epoch in range(1, EPOCHS + 1):
            value = score(point, epoch)
            trial.report(value, epoch)
        study.tell(trial, value)


def _take(left: Synchronized[int]) -> bool:
    with left.get_lock():
        left.value -= 1
        return left.value >= 0


# --- Ray Tune ---------------------------------------------------------------------------------------------------------


def start_ray(cores: int) -> float:
    """Start a local Ray of so many CPU slots and return the seconds it took."""
    import ray  # noqa: PLC0415

    begun = time.perf_counter()
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return time.perf_counter() - begun


def stop_ray() -> None:
    """Stop the Ray that `start_ray` started."""
    import ray  # noqa: PLC0415

    ray.shutdown()


def run_ray(url: str, workers: int, trials: int, folder: Path, *, reuse_actors: bool) -> float:
    """Return the seconds of `Tuner.fit` with OptunaSearch on an SQL study; Ray itself runs already.

    Args:
        url: an empty database.
        workers: trials at once.
        trials: trials in all.
        folder: for Ray's own files.
        reuse_actors: keep a process for the next trial instead of starting one for each.
    """
    from ray import tune  # noqa: PLC0415
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    warnings.simplefilter("ignore")  # Ray's deprecation notes are not what is measured
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {name: optuna.distributions.FloatDistribution(low, high, log=True) for name, (low, high) in RANGES.items()}
    search = OptunaSearch(
        space=space, metric="value", mode="max", storage=_storage(url, hardened=False), study_name=STUDY
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=trials, max_concurrent_trials=workers, reuse_actors=reuse_actors
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    begun = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        results = tuner.fit()
    seconds = time.perf_counter() - begun
    if len(results) != trials or results.num_errors:
        raise RuntimeError(f"Ray Tune finished {len(results)} of {trials} trials with {results.num_errors} errors")
    return seconds
