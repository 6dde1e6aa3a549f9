"""Order, position and augmentation of batches."""

import multiprocessing
import os
from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
import torch

from configs.schema import Augmentation
from trainers.data.augment import make_transform
from trainers.data.batches import Batch, TrainBatches, eval_batches
from trainers.data.bundle import Split
from trainers.data.lazy import allowed_workers
from trainers.protocol import TrainerError

CPU = torch.device("cpu")
AUGMENTED = Augmentation(
    horizontal_flip=0.5, crop_scale=(0.5, 1.0), rand_augment="rand-m9-n2-mstd0.5-inc1", random_erasing=0.5
)


def numbered(count: int, channels: int = 1, side: int = 8) -> Split:
    images = torch.randint(0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(0))
    return Split(images.to(torch.uint8), torch.arange(count))


def labels_of(batches: list[Batch]) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


def batches(count: int = 20, **settings: object) -> TrainBatches:
    return TrainBatches(numbered(count), **{"batch_size": 6, "seed": 1, "device": CPU, **settings})


def augmented(channels: int = 1, **settings: object) -> TrainBatches:
    split = numbered(20, channels, 16)
    transform = make_transform(AUGMENTED, (channels, 16, 16))
    return TrainBatches(split, **{"batch_size": 6, "seed": 1, "device": CPU, "transform": transform, **settings})


def test_every_image_comes_once_in_an_order_of_seed_and_epoch() -> None:
    first = labels_of(list(batches().epoch(0)))
    assert [len(labels) for labels in first] == [6, 6, 6, 2]
    assert sorted(chain.from_iterable(first)) == list(range(20))
    assert first == labels_of(list(batches().epoch(0)))
    assert first != labels_of(list(batches().epoch(1)))
    assert first != labels_of(list(batches(seed=2).epoch(0)))


@pytest.mark.parametrize("start", range(5))
def test_an_epoch_goes_on_from_any_position(start: int) -> None:
    assert labels_of(list(batches().epoch(3, start=start))) == labels_of(list(batches().epoch(3)))[start:]


@pytest.mark.parametrize("make", [batches, augmented])
@pytest.mark.parametrize("parts", [2, 3])
def test_processes_share_out_the_batches_that_one_would_have(make: Callable[..., TrainBatches], parts: int) -> None:
    whole = make()
    slices = [labels_of(list(make(part=part, parts=parts).epoch(2, start=1))) for part in range(parts)]
    kept = [labels for labels in labels_of(list(whole.epoch(2, start=1))) if len(labels) >= 2 * parts]
    assert [list(chain.from_iterable(pieces)) for pieces in zip(*slices, strict=True)] == kept
    assert all(len(labels) == 6 // parts for pieces in slices for labels in pieces)
    assert make(part=0, parts=parts).sizes == [size for size in whole.sizes if size >= 2 * parts]


@pytest.mark.parametrize("parts", [2, 3])
def test_images_that_are_mixed_in_pairs_stay_together(parts: int) -> None:
    """Mixing turns a batch round: the pairs of a slice are those of the whole batch."""
    (whole,) = labels_of(list(batches(14, batch_size=14, even=True).epoch(0)))
    pairs = {frozenset(pair) for pair in zip(whole, whole[::-1], strict=True)}
    seen = []
    for part in range(parts):
        (labels,) = labels_of(list(batches(14, batch_size=14, even=True, part=part, parts=parts).epoch(0)))
        assert {frozenset(pair) for pair in zip(labels, labels[::-1], strict=True)} <= pairs
        seen += labels
    assert sorted(seen) == sorted(whole)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 2])
def test_augmented_images_depend_on_neither_position_nor_workers(start: int, workers: int) -> None:
    whole = list(augmented().epoch(1))
    part = list(augmented(workers=workers).epoch(1, start=start))
    assert len(part) == len(whole) - start
    for (images, labels), (expected, expected_labels) in zip(part, whole[start:], strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_a_daemon_process_augments_by_itself(monkeypatch, caplog) -> None:
    expected = list(augmented().epoch(0))
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert torch.equal(next(augmented(workers=2).epoch(0))[0], expected[0][0])
    assert "a daemon process may start none" in caplog.text


def test_there_are_no_more_loader_processes_than_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert [allowed_workers(workers) for workers in (0, 2, 8)] == [0, 2, 3]


def test_augmentation_differs_between_epochs_and_images_and_stays_in_range() -> None:
    loader = augmented(channels=3)
    by_epoch = [{int(y): x for xs, ys in loader.epoch(epoch) for x, y in zip(xs, ys, strict=True)} for epoch in (0, 1)]
    assert all(by_epoch[0][number].shape == (3, 16, 16) for number in range(20))
    assert sum(torch.equal(by_epoch[0][number], by_epoch[1][number]) for number in range(20)) == 0
    values = torch.stack(list(by_epoch[0].values()))
    assert values.min() >= 0.0
    assert values.max() <= 1.0


def test_each_image_of_an_epoch_draws_for_itself() -> None:
    same = Split(numbered(1, 3, 16).images.expand(12, -1, -1, -1), torch.arange(12))
    transform = make_transform(AUGMENTED, (3, 16, 16))
    images = next(TrainBatches(same, batch_size=12, seed=1, device=CPU, transform=transform).epoch(0))[0]
    assert len({tuple(image.flatten().tolist()) for image in images}) == 12


def test_loading_draws_nothing_from_the_runs_generators() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    for loader in (batches(), augmented(), augmented(workers=1)):
        list(loader.epoch(0))
    after = torch.rand(()), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert after == (torch.rand(()), np.random.rand())


def test_batches_are_unit_floats_and_free_to_change() -> None:
    loader = batches()
    first = next(loader.epoch(0))[0]
    assert first.dtype == torch.float32
    assert first.max() <= 1.0
    kept = first.clone()
    first.zero_()
    assert torch.equal(next(loader.epoch(0))[0], kept)
    floats = TrainBatches(Split(torch.rand(8, 1, 4, 4), torch.arange(8)), batch_size=4, seed=0, device=CPU)
    kept = next(floats.epoch(0))[0].clone()
    next(floats.epoch(0))[0].zero_()
    assert torch.equal(next(floats.epoch(0))[0], kept)


@pytest.mark.parametrize(
    ("count", "size", "even", "lengths"),
    [
        (13, 6, False, [6, 6]),
        (14, 6, False, [6, 6, 2]),
        (15, 6, True, [6, 6, 2]),
        (13, 5, True, [4, 4, 2]),
        (3, 1, False, [1, 1, 1]),
    ],
)
def test_batch_sizes(count: int, size: int, even: bool, lengths: list[int]) -> None:
    loader = batches(count, batch_size=size, even=even)
    assert [len(labels) for labels in labels_of(list(loader.epoch(0)))] == lengths
    assert len(loader) == len(lengths)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(TrainerError, match="no batch to train on: mixup and cutmix need"):
        batches(8, batch_size=1, even=True)


def test_no_augmentation_is_no_transform() -> None:
    assert make_transform(Augmentation(mixup=0.5, cutmix=1.0), (1, 8, 8)) is None


def test_unknown_policy_and_oblong_images_are_refused() -> None:
    with pytest.raises(TrainerError, match="rand_augment: timm does not understand 'rnd-x'"):
        make_transform(Augmentation(rand_augment="rnd-x"), (1, 8, 8))
    with pytest.raises(TrainerError, match="square images, not 8 x 9"):
        make_transform(Augmentation(horizontal_flip=0.5), (1, 8, 9))


def test_transform_alone_keeps_the_picture_where_nothing_is_drawn() -> None:
    image = numbered(1, 1, 16).images[0]
    transform = make_transform(Augmentation(horizontal_flip=1e-9), (1, 16, 16))
    assert transform is not None
    assert torch.equal((transform(image) * 255).round().to(torch.uint8), image)


def test_evaluation_takes_each_image_once_in_order() -> None:
    parts = list(eval_batches(numbered(10), 4))
    assert labels_of(parts) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
