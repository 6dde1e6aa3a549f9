"""From the `data` and `augmentation` sections of a configuration to a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from configs.schema import Augmentation, DigitsData, EventData, FolderData, MnistFilesData
from trainers.data.bundle import SPLITS, DataBundle, Split

if TYPE_CHECKING:
    from configs.schema import Data, TorchvisionData
    from trainers.data.normalization import Normalization


def load_data(section: Data, augmentation: Augmentation | None = None) -> DataBundle:
    """Load the data set a configuration names.

    Args:
        section: `data` of the configuration.
        augmentation: `augmentation` of the configuration; without it there is neither augmentation nor normalisation.

    Returns:
        Its splits, made on demand, and the transform of its training samples; the same section gives the same splits on
        every machine.

    Raises:
        DataNotFoundError: the data set is not in the folder named; the message says the ways to get it.
        TrainerError: its files are damaged, or the augmentation is not understood.
    """
    augmentation = augmentation or Augmentation()
    if isinstance(section, FolderData):
        from trainers.data.folders import load_folder  # noqa: PLC0415  (each kind is imported when it is used)

        return load_folder(section, augmentation)
    if isinstance(section, EventData):
        from trainers.data.events import load_events  # noqa: PLC0415

        return load_events(section, augmentation)
    return _finished(_in_memory(section), augmentation, section.name)


def _in_memory(section: DigitsData | MnistFilesData | TorchvisionData) -> DataBundle:
    if isinstance(section, DigitsData):
        from trainers.data.digits import load_digits  # noqa: PLC0415

        return load_digits(section)
    if isinstance(section, MnistFilesData):
        from trainers.data.idx import load_mnist_files  # noqa: PLC0415

        return load_mnist_files(section)
    from trainers.data.torchvision_sets import load_torchvision  # noqa: PLC0415  (torchvision takes a second to load)

    return load_torchvision(section)


def _finished(bundle: DataBundle, augmentation: Augmentation, name: str) -> DataBundle:
    """Return a set in memory with its normalisation and with the transform of its training images."""
    from trainers.data.augment import make_transform  # noqa: PLC0415  (timm takes a second to load)
    from trainers.data.normalization import choose_normalization  # noqa: PLC0415

    normalization = choose_normalization(augmentation, name)
    transform = make_transform(augmentation, bundle.shape, normalization)
    return DataBundle({split: _normalized(bundle, split, normalization) for split in SPLITS}, bundle.classes, transform)


def _normalized(bundle: DataBundle, name: str, normalization: Normalization | None) -> Callable[[], Split]:
    def make() -> Split:
        split = bundle.split(name)
        assert isinstance(split, Split)
        return replace(split, normalization=normalization)

    return make
