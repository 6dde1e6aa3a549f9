"""Whether a data set is where a configuration says, found out before a device is touched and without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import MnistFilesData, TorchvisionData
from trainers.protocol import DataNotFoundError

if TYPE_CHECKING:
    from configs.schema import Data

MNIST_TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LAYOUT = {  # what torchvision expects in data_dir
    "mnist": "MNIST/raw/*-ubyte",
    "fashion_mnist": "FashionMNIST/raw/*-ubyte",
    "cifar10": "cifar-10-batches-py/",
    "cifar100": "cifar-100-python/",
}


def require_data(section: Data) -> None:
    """Raise unless the files of a data set are there, or may be downloaded.

    Args:
        section: `data` of a configuration.

    Raises:
        DataNotFoundError: they are not; the message says where they were looked for and how to get them.
    """
    if isinstance(section, MnistFilesData):
        for name in MNIST_TEST_FILES:
            find_idx(Path(section.data_dir).expanduser(), name)
    elif isinstance(section, TorchvisionData) and not section.download:
        folder = Path(section.data_dir).expanduser()
        if not any(folder.glob(LAYOUT[section.name].rstrip("/") + "*")):
            raise missing(section, folder)


def find_idx(folder: Path, name: str) -> Path:
    """Return the file `name`, plain or gzipped, of a folder.

    Raises:
        DataNotFoundError: neither is there.
    """
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataNotFoundError(
        f"{name} or {name}.gz is not in {folder.resolve()} (data.data_dir): copy the MNIST test files there, "
        "or give the folder that has them with --data.data_dir"
    )


def missing(section: TorchvisionData, folder: Path) -> DataNotFoundError:
    """Return the error for a torchvision data set that is not in a folder, with the two ways to get it."""
    return DataNotFoundError(
        f"{section.name} is not, or not whole, in {folder.resolve()} (data.data_dir). Two ways to get it: let it be "
        f"downloaded with --data.download true, or put torchvision's files for it there ({LAYOUT[section.name]})"
    )
