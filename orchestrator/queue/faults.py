"""What follows from each end of an attempt: the one table of retries, and the ladder out of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.storage.tables import EndReason, JobState


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a trial whose attempt ended for a reason.

    Args:
        after: state of the job when it is not tried again.
        retries: how many attempts that end so are followed by another, which goes on from the last checkpoint.
        smaller: the next attempt takes half as many images at once, for as long as their number can be halved.
    """

    after: JobState
    retries: float = 0
    smaller: bool = False


# A failure that the same configuration would repeat ends the trial. A kill from outside is nobody's fault, but a host
# whose kernel kills for memory unseen must not go on for ever.
POLICIES: dict[EndReason, Policy] = {
    EndReason.FINISHED: Policy(JobState.DONE),
    EndReason.RUNG: Policy(JobState.DONE),
    EndReason.DOMINATED: Policy(JobState.DONE),
    EndReason.CONSTRAINT: Policy(JobState.DONE),
    EndReason.DEAD_SPIKES: Policy(JobState.DONE),
    EndReason.SATURATED: Policy(JobState.DONE),
    EndReason.PREEMPTED: Policy(JobState.PENDING, math.inf),
    EndReason.LOST: Policy(JobState.FAILED, 20),
    EndReason.OOM: Policy(JobState.FAILED, smaller=True),
    EndReason.CRASH: Policy(JobState.FAILED, 2),
    EndReason.HANG: Policy(JobState.FAILED, 2),
    EndReason.NAN: Policy(JobState.FAILED),
    EndReason.ERROR: Policy(JobState.FAILED),
    EndReason.CANCELLED: Policy(JobState.FAILED),
}


def next_state(reason: EndReason, before: int) -> JobState:
    """Tell what becomes of a job whose attempt ended and whose batches are not halved for it.

    Args:
        reason: why the attempt ended.
        before: earlier attempts of this job that ended for the same reason.
    """
    policy = POLICIES[reason]
    return JobState.PENDING if before < policy.retries else policy.after


def can_halve(config: Mapping[str, Any], halvings: int) -> bool:
    """Tell whether the batches of a configuration can be halved once more than they have been.

    Args:
        config: a resolved configuration.
        halvings: how often they have been halved.
    """
    training = config.get("training", {})
    batch_size, processes = training.get("batch_size", 1), training.get("processes", 1)
    augmentation = config.get("augmentation", {})
    mixes_pairs = augmentation.get("mixup") or augmentation.get("cutmix")
    smallest = 2 ** (halvings + 1) * (2 if mixes_pairs else 1)
    least = 2 * processes  # normalisation needs two images
    return bool(batch_size % smallest == 0 and batch_size >= least * 2 ** (halvings + 1))


def with_smaller_batches(config: Mapping[str, Any], halvings: int) -> dict[str, Any]:
    """Return a configuration that needs less memory and takes the same optimiser steps.

    Batches are halved and as many more of them are added up for a step, so the images per step stay the same. What
    changes: batch normalisation sees smaller batches, and so do mixup's draws.

    Args:
        config: a resolved configuration, as it is stored.
        halvings: how often its batches are halved.
    """
    if not halvings:
        return dict(config)
    training = dict(config["training"])
    training["batch_size"] //= 2**halvings
    training["accumulation_steps"] *= 2**halvings
    if training.get("eval_batch_size"):
        training["eval_batch_size"] = max(1, training["eval_batch_size"] // 2**halvings)
    return {**config, "training": training}
