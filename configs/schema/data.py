"""Data sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Count, Section


class DataBase(Section):
    """Keys that every data set has."""

    split_seed: int = Field(42, description="seed of the train / validation / test split")
    image_size: int | None = Field(
        None, ge=4, description="resize images to this side in pixels; null keeps them, or takes the set's usual side"
    )
    workers: int = Field(0, ge=0, description="loader processes, where samples are read or augmented one by one")


class DigitsData(DataBase):
    """1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

    name: Literal["digits"] = "digits"
    val_fraction: float = Field(0.15, gt=0.0, lt=1.0, description="share kept for validation")
    test_fraction: float = Field(0.15, gt=0.0, lt=1.0, description="share kept for the final test")


class TorchvisionData(DataBase):
    """A data set of torchvision; its official test images are the test split."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    data_dir: str = Field("data", description="folder that holds the data set")
    download: bool = Field(False, description="fetch the data set when it is not there")
    val_fraction: float = Field(0.2, gt=0.0, lt=1.0, description="share of the training images kept for validation")


class MnistFilesData(DataBase):
    """The MNIST test files (`t10k-*-ubyte.gz`) of a folder, used as a small set with three splits of its own."""

    name: Literal["mnist_files"] = "mnist_files"
    data_dir: str = Field("data/mnist", description="folder with t10k-images-idx3-ubyte.gz and ...-labels-idx1-...")
    train_size: Count = Field(8000, description="training images")
    val_size: Count = Field(1000, description="validation images")
    test_size: Count = Field(1000, description="test images")


class FolderData(DataBase):
    """Images in one folder per class; the official validation images are the test split."""

    name: str
    data_dir: str
    val_fraction: float = Field(0.05, gt=0.0, lt=1.0, description="share of the training images kept for validation")
    crop_pct: float = Field(
        0.875, gt=0.0, le=1.0, description="evaluation resizes to image_size / crop_pct and cuts out the centre"
    )


class ImageFolderData(FolderData):
    """Any images in `train/<class>/` and `val/<class>/`; image_size is 224 unless it is given."""

    name: Literal["image_folder"] = "image_folder"
    data_dir: str = Field("data/images", description="folder with train/ and val/")


class ImageNetData(FolderData):
    """ImageNet-1k in `train/<class>/` and `val/<class>/`; image_size is 224 unless it is given."""

    name: Literal["imagenet"] = "imagenet"
    data_dir: str = Field("data/imagenet", description="folder with train/ and val/")


class TinyImageNetData(FolderData):
    """Tiny-ImageNet as it is unpacked, with `val/val_annotations.txt`; image_size is 64 unless it is given."""

    name: Literal["tiny_imagenet"] = "tiny_imagenet"
    data_dir: str = Field("data/tiny-imagenet-200", description="folder with train/ and val/")


class EventData(DataBase):
    """Clips of an event camera, `[frames, 2, H, W]` event counts; image_size is 128 unless it is given."""

    name: str
    data_dir: str
    frames: Count = Field(10, description="frames T of a clip, each with the same number of events")
    val_fraction: float = Field(0.1, gt=0.0, lt=1.0, description="share of the training clips kept for validation")


class Cifar10DvsData(EventData):
    """CIFAR10-DVS in spikingjelly's folders; the first 90 % of each class are for training, the others the test."""

    name: Literal["cifar10_dvs"] = "cifar10_dvs"
    data_dir: str = Field("data/cifar10_dvs", description="folder with frames_number_<T>_split_by_number or events_np")


class Dvs128GestureData(EventData):
    """DVS128 Gesture in spikingjelly's folders, with the official training and test clips."""

    name: Literal["dvs128_gesture"] = "dvs128_gesture"
    data_dir: str = Field(
        "data/dvs128_gesture", description="folder with frames_number_<T>_split_by_number or events_np"
    )


class NCaltech101Data(EventData):
    """N-Caltech101 in spikingjelly's folders; the first 90 % of each class are for training, the others the test."""

    name: Literal["n_caltech101"] = "n_caltech101"
    data_dir: str = Field("data/n_caltech101", description="folder with frames_number_<T>_split_by_number or events_np")


Data = Annotated[
    DigitsData
    | TorchvisionData
    | MnistFilesData
    | ImageFolderData
    | ImageNetData
    | TinyImageNetData
    | Cifar10DvsData
    | Dvs128GestureData
    | NCaltech101Data,
    Field(discriminator="name"),
]
