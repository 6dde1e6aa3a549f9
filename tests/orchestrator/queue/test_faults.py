"""The table of what follows, and the ladder out of memory."""

from __future__ import annotations

from typing import Any

import pytest

from configs.schema import RunConfig
from orchestrator.queue.faults import POLICIES, can_halve, with_smaller_batches
from orchestrator.storage.tables import EndReason


def config(batch: int, **more: Any) -> dict[str, Any]:
    sections = {"model": {"name": "stal_srnn"}, "training": {"batch_size": batch, "accumulation_steps": 3}, **more}
    return RunConfig.model_validate(sections).model_dump(mode="json")


def test_every_end_reason_has_a_policy() -> None:
    assert set(POLICIES) == set(EndReason)


@pytest.mark.parametrize(("batch", "ladder"), [(128, [64, 32, 16, 8, 4, 2]), (12, [6, 3]), (7, []), (2, []), (1, [])])
def test_batches_are_halved_as_long_as_normalisation_works_and_the_step_stays_the_same(
    batch: int, ladder: list[int]
) -> None:
    job = config(batch)
    halvings = 0
    while can_halve(job, halvings):
        halvings += 1
        smaller = RunConfig.model_validate(with_smaller_batches(job, halvings)).training
        assert smaller.batch_size == ladder[halvings - 1]
        assert smaller.batch_size * smaller.accumulation_steps == batch * 3
    assert halvings == len(ladder)
    assert with_smaller_batches(job, 0) == job


def test_mixing_in_pairs_needs_even_batches() -> None:
    assert can_halve(config(12), 1)
    assert not can_halve(config(12, augmentation={"mixup": 0.2}), 1)


def test_each_process_keeps_two_images() -> None:
    job = config(16, training={"batch_size": 16, "processes": 4})
    assert can_halve(job, 0)
    assert not can_halve(job, 1)


def test_evaluation_takes_smaller_batches_too() -> None:
    job = config(8, training={"batch_size": 8, "eval_batch_size": 3})
    assert with_smaller_batches(job, 1)["training"]["eval_batch_size"] == 1
    assert job["training"]["eval_batch_size"] == 3
