"""Images in one folder per class: ImageNet, Tiny-ImageNet and sets of one's own, decoded when they are asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

import trainers.torchvision_ops  # noqa: F401  (makes torchvision importable)
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from configs.data_fit import image_shape
from configs.schema import TinyImageNetData
from trainers.data.augment import make_transform
from trainers.data.bundle import DataBundle, split_indices
from trainers.data.lazy import Files, LazySplit, Transform
from trainers.data.normalization import Normalization, choose_normalization
from trainers.data_presence import ANNOTATIONS, FOLDER_CLASS_COUNTS, require_data
from trainers.protocol import DataNotFoundError, TrainerError

if TYPE_CHECKING:
    from configs.schema import Augmentation, FolderData


def load_folder(section: FolderData, augmentation: Augmentation) -> DataBundle:
    """Return a set of images in folders: a share of `train/` drawn by the split seed is val, `val/` is the test split.

    Args:
        section: `data` of the configuration.
        augmentation: `augmentation` of the configuration.

    Raises:
        DataNotFoundError: a folder, or a class of a set whose classes are known, is not there.
        TrainerError: the augmentation is not understood.
    """
    require_data(section)
    root = Path(section.data_dir).expanduser()
    classes, numbers = find_classes(str(root / "train"))
    expected = FOLDER_CLASS_COUNTS.get(section.name, len(classes))
    if len(classes) != expected:
        raise DataNotFoundError(f"{section.name} has {expected} classes, {root.resolve()}/train holds {len(classes)}")
    official = _listed(root / "train", numbers)
    n_val = round(len(official) * section.val_fraction)
    train, val = split_indices(len(official), (len(official) - n_val, n_val), section.split_seed)

    shape = image_shape(section.model_dump())
    assert shape is not None
    normalization = choose_normalization(augmentation, section.name)
    lazy = partial(
        LazySplit,
        read=read_picture,
        prepare=_evaluation(section, augmentation, shape[1], normalization),
        shape=shape,
        workers=section.workers,
    )
    list_test = _annotated if isinstance(section, TinyImageNetData) else _listed
    return DataBundle(
        {
            "train": lambda: lazy(official.part(train)),
            "val": lambda: lazy(official.part(val)),
            "test": lambda: lazy(list_test(root / "val", numbers)),
        },
        classes,
        make_transform(augmentation, shape, normalization),
    )


def read_picture(path: Path) -> Image.Image:
    """Decode one picture as RGB.

    Raises:
        TrainerError: it is damaged or gone.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise TrainerError(f"{path} cannot be decoded ({error}): fetch it again or remove it") from error


def _evaluation(
    section: FolderData, augmentation: Augmentation, size: int, normalization: Normalization | None
) -> Transform:
    """Return timm's transform for evaluation: resize the shorter side to size / crop_pct, cut out the centre."""
    transform: Transform = transforms_imagenet_eval(
        size,
        crop_pct=section.crop_pct,
        interpolation="bicubic" if augmentation.interpolation == "random" else augmentation.interpolation,
        mean=normalization.mean if normalization else (0.0, 0.0, 0.0),
        std=normalization.std if normalization else (1.0, 1.0, 1.0),
    )
    return transform


def _listed(folder: Path, numbers: dict[str, int]) -> Files:
    """Return the images below the folders of the classes."""
    try:
        return Files.of(folder, make_dataset(str(folder), numbers, extensions=IMG_EXTENSIONS))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{folder.resolve()} is not whole: {error}") from error


def _annotated(folder: Path, numbers: dict[str, int]) -> Files:
    """Return Tiny-ImageNet's official validation images, whose classes stand in a table beside them."""
    table = folder / ANNOTATIONS
    samples = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in numbers:
            raise TrainerError(f"{table.resolve()}:{number}: expected a file and one of the classes, got {line!r}")
        samples.append((str(folder / "images" / name), numbers[label]))
    return Files.of(folder, samples)
