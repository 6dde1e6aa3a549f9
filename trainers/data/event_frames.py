"""Frames of event recordings: made from raw events by spikingjelly's classes, once for each number of frames."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import trainers.torchvision_ops  # noqa: F401  (spikingjelly imports torchvision)

from trainers.data_presence import EVENT_CLASSES, EVENTS_FOLDER, frames_folder_name, require_data
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from configs.schema import EventData

_log = logging.getLogger(__name__)


def frames_folder(section: EventData) -> Path:
    """Return the folder of a set's frames; where only the events are there, the frames are made first.

    They are made beside their place and moved there when they are whole, by one process at a time, so neither a kill
    nor several runs that begin together leave half a set behind.

    Args:
        section: `data` of the configuration.

    Raises:
        DataNotFoundError: neither frames nor events are there.
        TrainerError: another program is making the frames or was killed at it, or they cannot be made.
    """
    require_data(section)
    root = Path(section.data_dir).expanduser()
    folder = root / frames_folder_name(section.frames)
    marker = folder.with_name(f"{folder.name}.building")  # spikingjelly's own
    if marker.exists():
        raise TrainerError(
            f"{marker.resolve()} says that a program is filling {folder.name}, or was killed at it: wait for its end, "
            "or remove both"
        )
    if not folder.is_dir():
        try:
            with _alone(root / f".{folder.name}.lock"):
                if not folder.is_dir():
                    _make(section, root, folder)
        except OSError as error:
            raise TrainerError(f"the frames of {section.name} cannot be made in {root.resolve()}: {error}") from error
    return folder


def _make(section: EventData, root: Path, folder: Path) -> None:
    _log.warning("making %s from the events in %s, once; this may take minutes", folder.name, root.resolve())
    staging = root / f".{folder.name}.making"
    shutil.rmtree(staging, ignore_errors=True)  # what a killed process has left
    staging.mkdir()
    (staging / EVENTS_FOLDER).symlink_to((root / EVENTS_FOLDER).resolve(), target_is_directory=True)
    try:
        _spikingjelly_class(section.name)(
            str(staging), data_type="frame", frames_number=section.frames, split_by="number"
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise TrainerError(f"the events of {section.name} in {root.resolve()} cannot be read: {error}") from error
    os.replace(staging / folder.name, folder)  # noqa: PTH105  (one word for what is atomic)
    shutil.rmtree(staging)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _spikingjelly_class(name: str) -> type:
    """Import a data set's class.

    The package that holds it imports torchaudio, for a set of speech alone; the wheel of the package index is compiled
    for CUDA and cannot be loaded beside a CPU-only torch. An empty module stands in for it during the import then.
    """
    module, attribute = EVENT_CLASSES[name]
    try:
        found = importlib.import_module(module)
    except (ImportError, OSError) as error:
        if "torchaudio" not in str(error):
            raise
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        try:
            found = importlib.import_module(module)
        finally:
            del sys.modules["torchaudio"]
    kind: type = getattr(found, attribute)
    return kind
