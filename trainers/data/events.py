"""Clips of event cameras: CIFAR10-DVS, DVS128 Gesture and N-Caltech101 as frames of event counts."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import trainers.torchvision_ops  # noqa: F401  (makes torchvision importable)
from torchvision.datasets.folder import find_classes, make_dataset

from configs.data_fit import image_shape
from configs.schema import Dvs128GestureData
from trainers.data.bundle import DataBundle, split_indices
from trainers.data.clip_augment import make_clip_transform
from trainers.data.event_frames import frames_folder
from trainers.data.lazy import Files, LazySplit
from trainers.data_presence import EVENT_CLASS_COUNTS
from trainers.protocol import DataNotFoundError, TrainerError

if TYPE_CHECKING:
    from configs.schema import Augmentation, EventData

TRAIN_SHARE = 0.9  # of each class, where there is no official test split
FRAME_FILES = (".npz",)


def load_events(section: EventData, augmentation: Augmentation) -> DataBundle:
    """Return a set of clips `[T, 2, H, W]`, float32 event counts, read from files when they are asked for.

    DVS128 Gesture has official test clips. Of the other two, the first 90 % of each class, in the order of the file
    names, are for training and the rest is the test split, as in the published code (Spikformer, QKFormer, TIM). A
    share of the training clips, drawn by the split seed, is the validation split.

    Args:
        section: `data` of the configuration.
        augmentation: `augmentation` of the configuration.

    Raises:
        DataNotFoundError: neither frames nor events are there, or classes are missing.
        TrainerError: the frames cannot be made.
    """
    folder = frames_folder(section)
    official, test, classes = _gesture(folder) if isinstance(section, Dvs128GestureData) else _dealt(folder)
    if len(classes) != (expected := EVENT_CLASS_COUNTS[section.name]):
        raise DataNotFoundError(f"{section.name} has {expected} classes, {folder.resolve()} holds {len(classes)}")
    n_val = round(len(official) * section.val_fraction)
    train, val = split_indices(len(official), (len(official) - n_val, n_val), section.split_seed)
    shape = image_shape(section.model_dump())
    assert shape is not None
    lazy = partial(
        LazySplit,
        read=_ReadClip(section.frames, shape[1], augmentation.interpolation),
        prepare=_as_it_is,
        shape=shape,
        workers=section.workers,
    )
    return DataBundle(
        {
            "train": lambda: lazy(official.part(train)),
            "val": lambda: lazy(official.part(val)),
            "test": lambda: lazy(test()),
        },
        classes,
        make_clip_transform(augmentation),
    )


def _as_it_is(clip: Tensor) -> Tensor:
    return clip


def _gesture(folder: Path) -> tuple[Files, Callable[[], Files], list[str]]:
    """Return training files, a maker of test files, and classes, by the official split."""
    train, classes = _listed(folder / "train")
    return train, lambda: _listed(folder / "test")[0], classes


def _dealt(folder: Path) -> tuple[Files, Callable[[], Files], list[str]]:
    """Return training files, a maker of test files, and classes, by the first 90 % of each class."""
    everything, classes = _listed(folder)
    train, test = [], []
    for label in range(len(classes)):
        numbers = torch.nonzero(everything.labels == label).flatten()
        first = math.ceil(len(numbers) * TRAIN_SHARE)
        train.append(numbers[:first])
        test.append(numbers[first:])
    return everything.part(torch.cat(train)), lambda: everything.part(torch.cat(test)), classes


def _listed(folder: Path) -> tuple[Files, list[str]]:
    """Return the clips of a folder of classes, both in the order of their names."""
    try:
        classes, numbers = find_classes(str(folder))
        return Files.of(folder, make_dataset(str(folder), numbers, extensions=FRAME_FILES)), classes
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{folder.resolve()} is not a folder of classes with .npz files: {error}") from error


@dataclass(frozen=True, slots=True)
class _ReadClip:
    """Read the frames of one clip and resize them.

    Args:
        frames: how many a clip has.
        side: of the square frames in pixels.
        interpolation: by which other sizes are resized.
    """

    frames: int
    side: int
    interpolation: Literal["bilinear", "bicubic", "nearest", "random"]

    def __call__(self, path: Path) -> Tensor:
        try:
            with path.open("rb") as file, np.load(file) as content:
                clip = torch.from_numpy(content["frames"].astype(np.float32))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainerError(f"{path} is damaged ({error}): remove its folder and let it be made again") from error
        if clip.ndim != 4 or clip.shape[:2] != (self.frames, 2):
            raise TrainerError(f"{path} holds {tuple(clip.shape)}, expected ({self.frames}, 2, height, width)")
        if clip.shape[-2:] == (self.side, self.side):
            return clip
        if self.interpolation == "nearest":
            return F.interpolate(clip, size=(self.side, self.side), mode="nearest")
        mode = "bicubic" if self.interpolation == "bicubic" else "bilinear"
        resized = F.interpolate(clip, size=(self.side, self.side), mode=mode, antialias=True, align_corners=False)
        return resized.clamp_(min=0.0)  # bicubic weights may be negative, counts may not
