from __future__ import annotations

import copy
from typing import Any

import pytest

from configs.resolve import from_dict
from orchestrator.machine.placement import CONTEXT_MB, Room, Seat, need, room, shape_of

SEAT = Seat("GPU-a", memory_mb=10_000, share_mb=5_000)
SMALL, LARGE, NEW = ("small", 0), ("large", 0), ("new", 0)
PEAKS = {SMALL: 2_400.0, LARGE: 7_400.0}


def test_an_empty_gpu_takes_everything_even_what_cannot_fit() -> None:
    assert room(SEAT, [], {("huge", 0): 99_999.0}) == Room(True, frozenset())


def test_a_measured_trial_counts_for_its_peak_and_the_context_of_its_process() -> None:
    assert need(2_400.0, 5_000.0) == 2_400.0 + CONTEXT_MB
    assert need(None, 5_000.0) == 5_000.0


@pytest.mark.parametrize(
    ("running", "unmeasured", "refused"),
    [
        ([NEW], True, {LARGE}),  # 5,000 free
        ([SMALL], True, {LARGE}),  # 7,000 free
        ([SMALL, SMALL], False, {LARGE}),  # 4,000 free: less than a share
        ([SMALL, NEW], False, {SMALL, LARGE}),  # 2,000 free
        ([LARGE], False, {SMALL, LARGE}),  # 2,000 free
        ([NEW, NEW], False, {SMALL, LARGE}),
    ],
)
def test_what_fits_follows_from_what_runs(running: list[Any], unmeasured: bool, refused: set[Any]) -> None:
    found = room(SEAT, [(shape, 5_000.0) for shape in running], PEAKS)
    assert (found.unmeasured, found.refused) == (unmeasured, refused)


def test_a_trial_that_fits_exactly_fits() -> None:
    assert room(SEAT, [(NEW, 5_000.0)], {SMALL: 5_000.0 - CONTEXT_MB}).all_fit
    assert not room(SEAT, [(NEW, 5_000.0)], {SMALL: 5_000.1 - CONTEXT_MB}).all_fit


def test_a_running_trial_counts_for_the_share_of_its_own_worker() -> None:
    assert not room(SEAT, [(NEW, 6_000.0)], {}).unmeasured


def test_halved_batches_are_another_shape() -> None:
    assert room(SEAT, [(SMALL, 5_000.0)], {LARGE: 7_400.0, ("large", 1): 3_000.0, SMALL: 2_400.0}).refused == {LARGE}


CONFIG = {"model": {"name": "stal_spikformer"}, "encoder": {"name": "convstal"}}


def changed(key: str, value: object) -> str:
    config = from_dict(copy.deepcopy(CONFIG)).model_dump(mode="json")
    section, name = key.split(".")
    assert name in config[section]
    config[section][name] = value
    return shape_of(config, "trainers:train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.embed_dims", 256), ("model.mlp_ratio", 2.0), ("model.depth", 3), ("encoder.time_steps", 9),
        ("data.image_size", 64), ("training.batch_size", 7), ("training.eval_batch_size", 7),
        ("training.accumulation_steps", 2), ("training.amp", "fp16"), ("optimizer.name", "sgd"),
        ("neuron.backend", "triton"),
    ],
)  # fmt: skip
def test_what_decides_memory_decides_the_shape(key: str, value: object) -> None:
    assert changed(key, value) != changed("training.epochs", 10)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.learning_rate", 0.5), ("neuron.v_threshold", 0.7), ("training.seed", 7), ("training.epochs", 99),
        ("encoder.drop_p", 0.3), ("data.split_seed", 3), ("data.val_fraction", 0.2), ("training.device", "cpu"),
    ],
)  # fmt: skip
def test_what_does_not_leaves_it_alone(key: str, value: object) -> None:
    assert changed(key, value) == changed("training.epochs", 10)


def test_another_trainer_is_another_shape() -> None:
    assert shape_of({}, "a:b") != shape_of({}, "a:c")
