import random
from contextlib import suppress

import numpy as np
import torch

from trainers.determinism import (
    capture_rng,
    derive_seed,
    image_rng,
    isolated_rng,
    numpy_stream,
    reproducible,
    restore_rng,
    seed_everything,
)

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_derived_seeds_depend_on_every_part() -> None:
    seeds = {derive_seed(*parts) for parts in [(1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "b", 2), (1, "a"), (12, "a")]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(42, "order", 3) == 8019350747492242944  # the data order of every stored run hangs on it


def test_numpy_stream_is_its_own() -> None:
    seed_everything(0)
    before = draw()
    seed_everything(0)
    first = numpy_stream(1, "order").permutation(5)
    assert draw() == before
    assert (numpy_stream(1, "order").permutation(5) == first).all()


def test_captured_state_survives_a_weights_only_file(tmp_path) -> None:
    seed_everything(3)
    np.random.standard_normal()  # leaves a cached second value in NumPy's state
    torch.save(capture_rng(CPU), tmp_path / "rng.pt")
    expected = draw(), np.random.standard_normal()
    seed_everything(4)
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True), CPU)
    assert (draw(), np.random.standard_normal()) == expected


def test_isolated_rng_puts_the_former_state_back_after_an_error() -> None:
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    with suppress(KeyError), isolated_rng(9, CPU):
        draw()
        raise KeyError
    assert draw() == expected


def test_image_rng_is_the_same_wherever_it_runs() -> None:
    seed_everything(1)
    expected_after = draw()
    seed_everything(1)
    with image_rng(77):
        inside = draw()
    assert draw() == expected_after
    with image_rng(77):
        assert draw() == inside


def test_reproducible_seeds_pins_threads_and_gives_everything_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with reproducible(8, CPU, deterministic=True, threads=1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        first = draw()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    with reproducible(8, CPU, deterministic=False, threads=None):
        assert draw() == first
