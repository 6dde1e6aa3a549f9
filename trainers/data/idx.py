"""The MNIST test files (`t10k-*`) of a folder as a small set with three splits of its own."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainers.data.bundle import SPLITS, DataBundle, Split, split_indices
from trainers.data_presence import MNIST_TEST_FILES, find_idx
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from configs.schema import MnistFilesData

_UNSIGNED_BYTES = 0x08  # type code in the third byte of an idx file


def load_mnist_files(section: MnistFilesData) -> DataBundle:
    """Return the 10,000 images of the test files in three splits.

    Raises:
        DataNotFoundError: a file is not in the folder.
        TrainerError: a file is damaged, or holds fewer images than the three sizes add up to.
    """
    folder = Path(section.data_dir).expanduser()
    images, labels = (find_idx(folder, name) for name in MNIST_TEST_FILES)
    everything = Split(read_idx(images, 3)[:, None], read_idx(labels, 1).long())
    sizes = (section.train_size, section.val_size, section.test_size)
    if sum(sizes) > len(everything):
        raise TrainerError(
            f"data.train_size + val_size + test_size is {sum(sizes)}, but {folder.resolve()} holds "
            f"{len(everything)} images"
        )
    parts = split_indices(len(everything), sizes, section.split_seed)
    makers = {
        name: partial(everything.part, index, section.image_size) for name, index in zip(SPLITS, parts, strict=True)
    }
    return DataBundle(makers, [str(digit) for digit in range(10)])


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Args:
        path: the file; the ending `.gz` tells that it is gzipped.
        dimensions: how many the file must have (3 for images, 1 for labels).

    Returns:
        A uint8 tensor in the file's shape.

    Raises:
        TrainerError: the file is not an idx file of that kind, or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TrainerError(f"{path} is damaged ({error}): fetch it again") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)):
        raise TrainerError(f"{path} is not an idx file of unsigned bytes with {dimensions} dimension(s)")
    shape = [int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4)]
    expected = header + int(np.prod(shape))
    if len(data) != expected:
        raise TrainerError(f"{path} has {len(data)} bytes, but its header {shape} asks for {expected}: fetch it again")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy())
