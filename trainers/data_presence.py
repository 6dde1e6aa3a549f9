"""Whether a data set is where a configuration says, found out before a device is touched and without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import EventData, FolderData, MnistFilesData, TinyImageNetData, TorchvisionData
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
ANNOTATIONS = "val_annotations.txt"  # the classes of Tiny-ImageNet's official validation images
FOLDER_CLASS_COUNTS = {"imagenet": 1000, "tiny_imagenet": 200}
EVENTS_FOLDER = "events_np"  # where spikingjelly keeps raw events
EVENT_CLASSES = {  # module and class of spikingjelly that makes frames of a set
    "cifar10_dvs": ("spikingjelly.datasets.cifar10_dvs", "CIFAR10DVS"),
    "dvs128_gesture": ("spikingjelly.datasets.dvs128_gesture", "DVS128Gesture"),
    "n_caltech101": ("spikingjelly.datasets.n_caltech101", "NCaltech101"),
}
EVENT_CLASS_COUNTS = {"cifar10_dvs": 10, "dvs128_gesture": 11, "n_caltech101": 101}


def require_data(section: Data | FolderData | EventData) -> None:
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
    elif isinstance(section, FolderData):
        _require_folders(section)
    elif isinstance(section, EventData):
        _require_clips(section)


def frames_folder_name(frames: int) -> str:
    """Return spikingjelly's name for the folder of clips with so many frames."""
    return f"frames_number_{frames}_split_by_number"


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


def _require_folders(section: FolderData) -> None:
    folder = Path(section.data_dir).expanduser()
    test = "val/<class>/*.JPEG"
    wanted = [folder / "train", folder / "val"]
    if isinstance(section, TinyImageNetData):
        test = f"val/images/*.JPEG with val/{ANNOTATIONS}"
        wanted.append(folder / "val" / ANNOTATIONS)
    absent = [path.relative_to(folder).as_posix() for path in wanted if not path.exists()]
    if absent or not any(entry.is_dir() for entry in (folder / "train").iterdir()):
        gap = f"there is no {' and no '.join(absent)}" if absent else "train has no folder of a class"
        raise DataNotFoundError(
            f"{section.name} is not in {folder.resolve()} (data.data_dir): {gap}. Expected are train/<class>/*.JPEG "
            f"(official training images) and {test} (official validation images, here the test split); give the "
            "folder that has them with --data.data_dir"
        )


def _require_clips(section: EventData) -> None:
    folder = Path(section.data_dir).expanduser()
    frames = frames_folder_name(section.frames)
    if (folder / frames).is_dir() or (folder / EVENTS_FOLDER).is_dir():
        return
    split = "train|test/" if section.name == "dvs128_gesture" else ""
    module, name = EVENT_CLASSES[section.name]
    raise DataNotFoundError(
        f"{section.name} is not in {folder.resolve()} (data.data_dir). Expected is spikingjelly's layout: "
        f"{frames}/{split}<class>/*.npz with `frames`, or {EVENTS_FOLDER}/{split}<class>/*.npz with `t`, `x`, `y` and "
        f"`p`, of which the frames are made. Let spikingjelly unpack what you have downloaded "
        f"(`{name}(root)` of {module} reads root/download), or give its root with --data.data_dir"
    )
