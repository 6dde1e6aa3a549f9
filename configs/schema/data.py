"""Data sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import Count, Section


class DataBase(Section):
    """Keys that every data set has."""

    split_seed: int = Field(42, description="seed of the train / validation / test split")
    image_size: int | None = Field(None, ge=4, description="resize images to this side in pixels; null keeps them")
    workers: int = Field(0, ge=0, description="loader processes, used where images are augmented one by one")


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


Data = Annotated[DigitsData | TorchvisionData | MnistFilesData, Field(discriminator="name")]
