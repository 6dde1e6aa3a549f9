"""The data sets: what they hold, how they are split, and what is said when they are not there."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import write_cifar
from pydantic import TypeAdapter
from sklearn import datasets as sklearn_datasets

from configs.schema import Data, DigitsData, MnistFilesData, TorchvisionData
from trainers.data import load_data
from trainers.data.bundle import Split, split_indices
from trainers.data.idx import read_idx
from trainers.data_presence import MNIST_TEST_FILES, require_data
from trainers.protocol import DataNotFoundError, TrainerError

IMAGES, LABELS = MNIST_TEST_FILES

DATA = TypeAdapter(Data)


def load(**section: object):
    return load_data(DATA.validate_python(section))


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist_files(
    folder: Path, count: int = 20, *, zipped: bool = True, prefixes: tuple[str, ...] = ("t10k",)
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix in prefixes:
        for name, array in (
            (IMAGES, rng.integers(0, 256, (count, 28, 28))),
            (LABELS, np.arange(count) % 10),
        ):
            path = folder / name.replace("t10k", prefix)
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx_bytes(array)))
            else:
                path.write_bytes(idx_bytes(array))


def test_digits_are_scikit_learns_divided_by_16() -> None:
    bundle = load(name="digits")
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (1257, 270, 270)
    assert (bundle.shape, bundle.num_classes) == ((1, 8, 8), 10)
    original = sklearn_datasets.load_digits()
    images = torch.cat([bundle.split(name).images for name in ("train", "val", "test")])[:, 0]
    labels = torch.cat([bundle.split(name).labels for name in ("train", "val", "test")])
    ours = sorted((*image.flatten().tolist(), label.item()) for image, label in zip(images * 16, labels, strict=True))
    theirs = sorted((*row, float(y)) for row, y in zip(original.data.tolist(), original.target.tolist(), strict=True))
    assert ours == theirs
    assert images.dtype == torch.float32
    assert images.min() == 0.0
    assert images.max() == 1.0


def test_split_depends_on_its_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = load(name="digits").val
    torch.manual_seed(2)
    again, other = load(name="digits", image_size=8).val, load(name="digits", split_seed=7).val
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.labels[:8].tolist() == [8, 4, 6, 3, 6, 7, 1, 9]  # every stored result hangs on this order


def test_split_parts_do_not_overlap() -> None:
    parts = split_indices(50, (30, 10, 5), seed=3)
    assert [len(part) for part in parts] == [30, 10, 5]
    assert len(set(torch.cat(parts).tolist())) == 45


def test_resizing_keeps_the_range_and_the_kind() -> None:
    small = load(name="digits", image_size=16)
    assert small.shape == (1, 16, 16)
    assert small.train.images.min() >= 0.0
    assert small.train.images.max() <= 1.0
    checker = Split(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8).repeat(1, 1, 4, 4), torch.zeros(1).long())
    shrunk = checker.resized(4).images
    assert shrunk.dtype == torch.uint8
    assert (shrunk.float() - 127.5).abs().max() < 3.0  # antialiased: the average, not a sample
    assert checker.resized(8) is checker


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_files_plain_or_zipped_home_or_relative(tmp_path: Path, monkeypatch, zipped: bool) -> None:
    write_mnist_files(tmp_path / "home" / "mnist", zipped=zipped)
    sizes = {"train_size": 10, "val_size": 6, "test_size": 4}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    at_home = load(name="mnist_files", data_dir="~/mnist", **sizes)
    relative = load(name="mnist_files", data_dir="home/mnist", **sizes)
    assert (len(at_home.train), len(at_home.val), len(at_home.test)) == (10, 6, 4)
    assert torch.equal(at_home.test.images, relative.test.images)
    assert (at_home.shape, at_home.train.images.dtype) == ((1, 28, 28), torch.uint8)


def test_missing_mnist_files_name_the_folder_and_the_option(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=rf"{IMAGES}.* not in {tmp_path}/data/mnist.*--data.data_dir"):
        load(name="mnist_files")


def test_damaged_mnist_files_are_named(tmp_path: Path) -> None:
    write_mnist_files(tmp_path)
    images = tmp_path / f"{IMAGES}.gz"
    whole = images.read_bytes()
    for data, words in [
        (whole[:200], "damaged"),
        (b"no gzip", "damaged"),
        (whole[:60] + b"xxxx" + whole[64:], "damaged"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x05"), "3 dimension"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "asks for"),
    ]:
        images.write_bytes(data)
        with pytest.raises(TrainerError, match=words) as caught:
            load(name="mnist_files", data_dir=str(tmp_path))
        assert str(images) in str(caught.value)


def test_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    write_mnist_files(tmp_path)
    with pytest.raises(TrainerError, match=r"is 10000, but .* holds 20 images"):
        load(name="mnist_files", data_dir=str(tmp_path))


def test_idx_reader_keeps_shape_and_values(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "x").write_bytes(idx_bytes(array))
    assert torch.equal(read_idx(tmp_path / "x", 3), torch.from_numpy(array).to(torch.uint8))


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_by_torchvision(tmp_path: Path, name: str, folder: str) -> None:
    write_mnist_files(tmp_path / folder / "raw", zipped=False, prefixes=("train", "t10k"))
    bundle = load(name=name, data_dir=str(tmp_path))
    assert (len(bundle.train), len(bundle.val), len(bundle.test)) == (16, 4, 20)
    assert (bundle.shape, bundle.num_classes) == ((1, 28, 28), 10)
    assert bundle.test.labels[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 40), ("cifar100", 100, 8)])
def test_cifar_by_torchvision(tmp_path: Path, monkeypatch, name: str, classes: int, train: int) -> None:
    write_cifar(tmp_path, monkeypatch, fine=classes == 100)
    bundle = load(name=name, data_dir=str(tmp_path), image_size=16)
    assert (len(bundle.train), len(bundle.test)) == (train, 10)
    assert (bundle.shape, bundle.num_classes, bundle.train.images.dtype) == ((3, 16, 16), classes, torch.uint8)


def test_training_does_not_read_the_test_images(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_mnist_files(folder, zipped=False, prefixes=("train", "t10k"))
    (folder / IMAGES).write_bytes(b"unreadable")
    bundle = load(name="mnist", data_dir=str(tmp_path))
    assert len(bundle.train) + len(bundle.val) == 20
    with pytest.raises(TrainerError, match="damaged"):
        _ = bundle.test


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_set_names_the_folder_and_both_ways(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match=rf"{name} is not.* in {tmp_path}") as caught:
        load(name=name, data_dir=str(tmp_path))
    assert "--data.download true" in str(caught.value)
    assert "put torchvision's files" in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing was fetched


def test_download_that_fails_says_why(tmp_path: Path, monkeypatch) -> None:
    from torchvision import datasets

    def unreachable(self: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    with pytest.raises(DataNotFoundError, match=r"could not be downloaded .*no route to host"):
        load(name="cifar10", data_dir=str(tmp_path), download=True)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_an_absent_set_is_noticed_before_anything_is_loaded(tmp_path, name: str) -> None:
    section = TorchvisionData(name=name, data_dir=str(tmp_path))
    with pytest.raises(DataNotFoundError, match=rf"{name} is not, or not whole, in {tmp_path}.*--data.download true"):
        require_data(section)
    require_data(section.model_copy(update={"download": True}))


def test_a_present_set_is_let_through(tmp_path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").touch()
    require_data(TorchvisionData(name="mnist", data_dir=str(tmp_path)))
    require_data(DigitsData())
    with pytest.raises(DataNotFoundError, match="t10k-images"):
        require_data(MnistFilesData(data_dir=str(tmp_path)))
