"""Scikit-learn's bundled handwritten digits: 1,797 real images of 8 x 8 pixels (Alpaydin and Kaynak, UCI, 1998)."""

from __future__ import annotations

import gzip
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainers.data.bundle import SPLITS, DataBundle, Split, split_indices
from trainers.protocol import DataNotFoundError

if TYPE_CHECKING:
    from configs.schema import DigitsData

_LEVELS = 16.0  # pixels count the dark dots of a 4 x 4 block


def load_digits(section: DigitsData) -> DataBundle:
    """Return the digits in three splits, pixels divided by 16.

    Raises:
        DataNotFoundError: scikit-learn or its data file is not installed.
    """
    everything = _read(_data_file())
    n_val, n_test = (round(len(everything) * share) for share in (section.val_fraction, section.test_fraction))
    parts = split_indices(len(everything), (len(everything) - n_val - n_test, n_val, n_test), section.split_seed)
    makers = {
        name: partial(everything.part, index, section.image_size) for name, index in zip(SPLITS, parts, strict=True)
    }
    return DataBundle(makers, [str(digit) for digit in range(10)])


def _data_file() -> Path:
    """Find the file beside the package: importing scikit-learn takes two seconds, reading its file 20 ms."""
    spec = find_spec("sklearn")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path("sklearn")
    path = folder / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataNotFoundError(
            f"the digits come with scikit-learn, but {path} is not there: install it with `pip install scikit-learn`"
        )
    return path


def _read(path: Path) -> Split:
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)  # [n, 64 pixels + 1 label]
    images = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 8, 8) / _LEVELS
    return Split(images, torch.from_numpy(table[:, -1].astype(np.int64)))
