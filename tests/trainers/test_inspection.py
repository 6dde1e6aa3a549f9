from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.resolve import resolve
from trainers import train
from trainers.checkpoint import newest_valid
from trainers.evaluation import evaluate
from trainers.inspection import evenly_chosen, inspect


class Silent:
    """A reporter that listens to nothing."""

    def __getattr__(self, name: str) -> object:
        from trainers.protocol import Verdict

        return lambda *_: Verdict.CONTINUE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = resolve("stal/srnn_digits", ["--training.epochs", "1", "--training.device", "cpu"]).config
    train(config, Silent(), None, run_dir=folder, threads=1)
    found = newest_valid(folder)
    assert found is not None
    return found


def test_what_is_seen_is_what_was_measured(checkpoint: Path) -> None:
    seen = inspect(checkpoint, threads=1)
    measured = evaluate(checkpoint, "val", threads=1)
    assert seen.confusion is not None
    assert seen.samples == seen.available == int(seen.confusion.sum()) == 270
    assert float(seen.confusion.diagonal().sum() / seen.confusion.sum()) == pytest.approx(measured["val_accuracy"])
    rates = {f"val_firing_rate.{layer}": rate for layer, rate in seen.rates.items()}
    assert rates == pytest.approx({name: value for name, value in measured.items() if "firing_rate." in name}, rel=1e-5)
    assert (seen.epoch, len(seen.classes)) == (1, 10)


def test_the_raster_is_of_one_sample_with_time_first(checkpoint: Path) -> None:
    raster = inspect(checkpoint, threads=1, most=1).raster
    assert next(iter(raster)) == "encoder"
    assert {name for name in raster if name != "encoder"} == set(inspect(checkpoint, threads=1, most=1).rates)
    steps = {len(spikes) for spikes in raster.values()}
    assert len(steps) == 1
    assert steps.pop() > 1
    assert all(float(spikes.min()) >= 0.0 and float(spikes.max()) <= 1.0 for spikes in raster.values())


def test_a_slow_model_is_looked_at_for_so_long_only(checkpoint: Path) -> None:
    assert inspect(checkpoint, threads=1, seconds=0.0).samples == 32
    assert inspect(checkpoint, threads=1, most=40).samples == 40


def test_a_part_of_a_sorted_split_has_every_class() -> None:
    from trainers.data.bundle import Split

    split = Split(torch.zeros(1000, 1, 2, 2), torch.arange(1000) // 100)
    some = evenly_chosen(split, 200)
    assert len(some) == 200
    assert torch.bincount(some.labels).tolist() == [20] * 10
    assert len(some.labels[:40].unique()) == 10
    assert len(evenly_chosen(split, 5000)) == 1000
