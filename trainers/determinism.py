"""Random numbers and threads of one run: seeded at its start, kept in its checkpoints, given back at its end."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

RngState = dict[str, Any]


def derive_seed(*parts: int | str) -> int:
    """Return a seed that depends on all parts and on nothing else.

    Args:
        parts: what the seed is for, e.g. `(seed, "order", epoch)`.

    Returns:
        An integer in [0, 2**63).
    """
    digest = blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_stream(*parts: int | str) -> np.random.RandomState:
    """Return a NumPy generator of its own for `parts`; NumPy has frozen this generator's stream for good."""
    return np.random.RandomState(derive_seed(*parts) % 2**32)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture_rng(device: torch.device) -> RngState:
    """Return the state of every generator a run on `device` draws from, made of plain values and tensors only."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: RngState = {
        "python": random.getstate(),
        "numpy": (
            name,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: RngState, device: torch.device) -> None:
    """Set every generator back to a state of `capture_rng`.

    A state captured on another kind of device restores what both have; the GPU's generator then keeps its seed.
    """
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block on freshly seeded generators and put the former states back after it."""
    before = capture_rng(device)
    seed_everything(seed)
    try:
        yield
    finally:
        restore_rng(before, device)


@contextmanager
def image_rng(seed: int) -> Iterator[None]:
    """Run one image's augmentation on seeded CPU generators, cheaply, whatever process it runs in.

    The GPU's generator is left alone, so that a loader in the training process does not disturb it.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextmanager
def reproducible(seed: int, device: torch.device, *, deterministic: bool, threads: int | None) -> Iterator[None]:
    """Run a block so that the same seed and the same number of threads give the same bits on a CPU.

    Args:
        seed: seed of all generators; their former states come back after the block.
        device: where the run computes.
        deterministic: let torch refuse operations that have no reproducible form.
        threads: torch threads of the block; None leaves them as they are.
    """
    # cuBLAS reads this once, when the CUDA context is created; a value the user has set stays.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time
    torch.backends.cudnn.benchmark = not deterministic
    try:
        with isolated_rng(seed, device):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = before[3]
