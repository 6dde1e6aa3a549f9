"""Images in folders: splits, lazy decoding, transforms, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from configs.schema import Augmentation, Data
from trainers.data import load_data
from trainers.data.batches import TrainBatches, eval_batches
from trainers.data.folders import read_picture
from trainers.data_presence import FOLDER_CLASS_COUNTS, require_data
from trainers.protocol import DataNotFoundError, TrainerError

DATA = TypeAdapter(Data)
CPU = torch.device("cpu")
QKFORMER = Augmentation(
    normalize="dataset",
    horizontal_flip=0.5,
    crop_scale=(0.08, 1.0),
    interpolation="bicubic",
    rand_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.25,
    random_erasing_mode="pixel",
)


def section(folder: Path, name: str = "image_folder", **keys: object) -> Data:
    values = {"name": name, "data_dir": str(folder), "image_size": 24, "val_fraction": 0.25, **keys}
    return DATA.validate_python(values)


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=95)


def write_folders(root: Path, classes: int = 3, train: int = 8, val: int = 2) -> None:
    for label in range(classes):
        for split, count in (("train", train), ("val", val)):
            for number in range(count):
                write_picture(root / split / f"n{label:04}" / f"{number}.JPEG", (80 * label, 25 * number, 128))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_folders(root)
    rng = np.random.default_rng(0)
    for path in (root / "train").rglob("*.JPEG"):  # a structure that augmentation shows on
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return root


def test_a_share_of_train_is_val_and_official_validation_is_test(folders: Path) -> None:
    bundle = load_data(section(folders))
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (18, 6, 6)
    assert (bundle.shape, bundle.classes) == ((3, 24, 24), ("n0000", "n0001", "n0002"))
    names = [split.files[number] for split in (bundle.train, bundle.val) for number in range(len(split))]
    assert sorted(names) == sorted((folders / "train").rglob("*.JPEG"))
    assert [name.parent.name for name in names] == [
        f"n{label:04}" for split in (bundle.train, bundle.val) for label in split.labels.tolist()
    ]
    assert bundle.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    again, other = load_data(section(folders)).val, load_data(section(folders, split_seed=3)).val
    assert [again.files[n] for n in range(6)] == [bundle.val.files[n] for n in range(6)]
    assert [other.files[n] for n in range(6)] != [bundle.val.files[n] for n in range(6)]


def test_evaluation_cuts_out_the_centre_and_normalises(tmp_path: Path) -> None:
    write_folders(tmp_path, train=4)
    for name in (tmp_path / "val").rglob("*.JPEG"):
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[4:28, 20:44] = 255  # the centre of 24 x 24, white
        Image.fromarray(picture).save(name, quality=95)
    images, labels = next(eval_batches(load_data(section(tmp_path, crop_pct=0.75)).test, 6))
    assert (images.shape, images.dtype) == ((6, 3, 24, 24), torch.float32)
    assert images.min() > 0.9
    assert images.max() <= 1.0
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    whole = next(eval_batches(load_data(section(tmp_path, crop_pct=0.5)).test, 6))[0]
    assert whole.min() == 0.0 or whole.shape == images.shape
    normalised = next(eval_batches(load_data(section(tmp_path, crop_pct=0.75), QKFORMER).test, 6))[0]
    expected = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    assert torch.allclose(normalised, expected, atol=0.1)  # bicubic there, bilinear here


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 2])
def test_images_depend_on_neither_position_nor_workers(folders: Path, start: int, workers: int) -> None:
    bundle = load_data(section(folders), QKFORMER)

    def batches(workers: int) -> TrainBatches:
        return TrainBatches(bundle.train, batch_size=5, seed=1, device=CPU, transform=bundle.transform, workers=workers)

    whole = list(batches(0).epoch(1))
    assert [images.shape for images, _ in whole] == [(5, 3, 24, 24)] * 3 + [(3, 3, 24, 24)]
    resumed = batches(workers)
    list(resumed.epoch(0))  # the workers have lived through another epoch
    part = list(resumed.epoch(1, start=start))
    assert len(part) == len(whole) - start
    for (images, labels), (expected, expected_labels) in zip(part, whole[start:], strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_each_image_once_whatever_the_workers(folders: Path, workers: int) -> None:
    bundle = load_data(section(folders, workers=workers))
    state = torch.get_rng_state()
    parts = list(eval_batches(bundle.val.to(CPU), 4))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(torch.cat([labels for _, labels in parts]), bundle.val.labels)
    alone = torch.stack([bundle.val.prepare(bundle.val.sample(number)) for number in range(6)])
    assert torch.equal(torch.cat([images for images, _ in parts]), alone)


def test_without_augmentation_training_images_are_those_of_evaluation(folders: Path) -> None:
    bundle = load_data(section(folders))
    assert bundle.transform is None
    images, labels = next(TrainBatches(bundle.train, batch_size=18, seed=0, device=CPU).epoch(0))
    evaluated = next(eval_batches(bundle.train, 18))
    assert sorted(images.sum((1, 2, 3)).tolist()) == sorted(evaluated[0].sum((1, 2, 3)).tolist())
    assert sorted(labels.tolist()) == sorted(evaluated[1].tolist())


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FOLDER_CLASS_COUNTS, "tiny_imagenet", 3)
    for label in range(3):
        (tmp_path / "train" / f"n{label}").mkdir(parents=True)
        (tmp_path / "train" / f"n{label}" / f"n{label}_boxes.txt").touch()
        for number in range(4):
            write_picture(tmp_path / "train" / f"n{label}" / "images" / f"n{label}_{number}.JPEG", (0, 0, 0), (64, 64))
    lines = []
    for number, label in enumerate((2, 0, 1, 2)):
        write_picture(tmp_path / "val" / "images" / f"val_{number}.JPEG", (100 * label, 0, 0), (64, 64))
        lines.append(f"val_{number}.JPEG\tn{label}\t0\t0\t62\t62\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    bundle = load_data(section(tmp_path, "tiny_imagenet", image_size=None))
    assert (len(bundle.train), len(bundle.val), bundle.shape) == (9, 3, (3, 64, 64))
    images, labels = next(eval_batches(bundle.test, 4))
    assert labels.tolist() == [2, 0, 1, 2]
    assert (images[:, 0].mean((1, 2)) * 2.55).round().tolist() == [2.0, 0.0, 1.0, 2.0]
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\t0\n")
    with pytest.raises(TrainerError, match=r"val_annotations.txt:1: expected a file and one of the classes"):
        _ = load_data(section(tmp_path, "tiny_imagenet")).test


@pytest.mark.parametrize(("name", "count"), [("imagenet", 1000), ("tiny_imagenet", 200)])
def test_the_classes_of_known_sets_are_counted(tmp_path: Path, name: str, count: int) -> None:
    write_folders(tmp_path, train=1, val=1)
    (tmp_path / "val" / "val_annotations.txt").touch()
    with pytest.raises(DataNotFoundError, match=rf"{name} has {count} classes, .* holds 3"):
        load_data(section(tmp_path, name))


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=1, train=8)
    for path in (tmp_path / "train").rglob("*.JPEG"):
        path.write_bytes(path.read_bytes()[:100])
    bundle = load_data(section(tmp_path), Augmentation(horizontal_flip=0.5))
    batches = TrainBatches(bundle.train, batch_size=2, seed=0, device=CPU, transform=bundle.transform)
    with pytest.raises(TrainerError, match=r"^/.*\.JPEG cannot be decoded"):
        list(batches.epoch(0))


def test_pictures_of_any_mode_are_rgb(tmp_path: Path) -> None:
    for mode in ("L", "CMYK", "RGBA", "P"):
        Image.new(mode, (5, 4)).save(tmp_path / "a.tiff")
        assert (read_picture(tmp_path / "a.tiff").mode, read_picture(tmp_path / "a.tiff").size) == ("RGB", (5, 4))


def test_training_does_not_look_for_the_test_images(tmp_path: Path) -> None:
    write_folders(tmp_path, val=1)
    next((tmp_path / "val").rglob("*.JPEG")).unlink()
    bundle = load_data(section(tmp_path))
    assert len(bundle.train) + len(bundle.val) == 24
    with pytest.raises(DataNotFoundError, match=r"val is not whole"):
        _ = bundle.test


@pytest.mark.parametrize("name", ["image_folder", "imagenet", "tiny_imagenet"])
def test_an_absent_set_is_told_with_its_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match=rf"{name} is not in {tmp_path}.*no train and no val") as caught:
        require_data(section(tmp_path, name))
    assert "train/<class>/*.JPEG" in str(caught.value)
    assert ("val_annotations.txt" in str(caught.value)) == (name == "tiny_imagenet")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").touch()
    with pytest.raises(DataNotFoundError, match="train has no folder of a class"):
        load_data(section(tmp_path, name))
    (tmp_path / "train" / "n0").mkdir()
    require_data(section(tmp_path, name))
