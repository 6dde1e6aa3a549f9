"""From the `data` section of a configuration to a data set in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.schema import DigitsData, MnistFilesData
from trainers.data.bundle import DataBundle

if TYPE_CHECKING:
    from configs.schema import Data


def load_data(section: Data) -> DataBundle:
    """Load the data set a configuration names.

    Args:
        section: `data` of the configuration.

    Returns:
        Its splits, made on demand; the same section gives the same splits on every machine.

    Raises:
        DataNotFoundError: the data set is not in the folder named; the message says the ways to get it.
        TrainerError: its files are damaged.
    """
    if isinstance(section, DigitsData):
        from trainers.data.digits import load_digits  # noqa: PLC0415  (each kind is imported when it is used)

        return load_digits(section)
    if isinstance(section, MnistFilesData):
        from trainers.data.idx import load_mnist_files  # noqa: PLC0415

        return load_mnist_files(section)
    from trainers.data.torchvision_sets import load_torchvision  # noqa: PLC0415  (torchvision takes a second to load)

    return load_torchvision(section)
