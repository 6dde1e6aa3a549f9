"""Which trials fit on a GPU next to those that run there; plain numbers in, plain answers out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.resolve import canonical_hash

CONTEXT_MB = 600.0  # what CUDA itself takes for a process, beside the memory that PyTorch reserves and reports
SIZED_SECTIONS = ("model", "neuron", "encoder", "data", "training")
KINDS_ONLY = ("optimizer", "loss")  # their kind decides how many tensors they keep, their numbers decide nothing
NEVER_SIZED = {
    "checkpoint", "data_dir", "deterministic", "device", "download", "epochs", "freeze", "keep_checkpoints", "seed",
    "split_seed", "workers",
}  # fmt: skip

Shape = tuple[str, int]  # the hash of what decides a trial's memory, and how often its batches were halved


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place on a GPU.

    Args:
        gpu: the GPU's UUID: two containers of one machine may both call theirs "cuda:0".
        memory_mb: all of the GPU's memory.
        share_mb: what a trial counts for whose need nobody has measured.
        gpus: GPUs of a trial there, of which this is the first; a group of several is one worker's alone.
    """

    gpu: str
    memory_mb: float
    share_mb: float
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Room:
    """What may start on a GPU now.

    Args:
        unmeasured: whether a trial may whose need nobody has measured.
        refused: measured shapes that do not fit.
    """

    unmeasured: bool
    refused: frozenset[Shape]

    @property
    def all_fit(self) -> bool:
        """Whether everything may start."""
        return self.unmeasured and not self.refused


def room(seat: Seat, running: Collection[tuple[Shape, float]], peaks: Mapping[Shape, float]) -> Room:
    """Tell what fits into the memory that the trials running on a GPU leave free.

    A trial counts for the most that any trial of its shape has taken, or for its worker's share as long as none has
    been measured. An empty GPU takes everything: what is too large for it would wait for ever, while running out of
    memory has an answer, smaller batches.

    Args:
        seat: the place that is free.
        running: shape of each trial that runs on that GPU, with the share of its worker in MB.
        peaks: shape -> most memory in MB that PyTorch has reserved for a trial of it.
    """
    if not running:
        return Room(True, frozenset())
    taken = sum(need(peaks.get(shape), share) for shape, share in running)
    free = seat.memory_mb - taken
    return Room(
        unmeasured=seat.share_mb <= free,
        refused=frozenset(shape for shape, peak in peaks.items() if need(peak, seat.share_mb) > free),
    )


def need(peak_mb: float | None, share_mb: float) -> float:
    """Return the memory in MB that a trial counts for.

    Args:
        peak_mb: the most that trials of its shape have reserved; None before one was measured.
        share_mb: its worker's share of the GPU.
    """
    return share_mb if peak_mb is None else peak_mb + CONTEXT_MB


def shape_of(config: Mapping[str, Any], trainer: str) -> str:
    """Return a hash of what decides how much memory a trial takes; equal ones take the same.

    Whole numbers, words and switches of model, neurons, encoder, data and training count: layers, widths, time steps,
    image and batch sizes, precision, options that trade memory for time. Real numbers change values, not sizes, and are
    left out, but for ratios of widths.

    Args:
        config: a resolved configuration as plain data.
        trainer: "module:function" that trains it.
    """
    sized = {section: dict(_sizes(config.get(section) or {})) for section in SIZED_SECTIONS}
    kinds = {section: (config.get(section) or {}).get("name") for section in KINDS_ONLY}
    return canonical_hash({**sized, **kinds, "trainer": trainer})


def _sizes(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield key, dict(_sizes(value))
        elif key not in NEVER_SIZED and (not _is_real(value) or key.endswith("ratio")):
            yield key, value


def _is_real(value: object) -> bool:
    items: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(item, float) for item in items)
