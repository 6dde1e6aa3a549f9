"""Clips of event cameras: spikingjelly's folders, splits, frames made of raw events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from configs.schema import Augmentation, Data
from trainers.data import DataBundle, load_data
from trainers.data.batches import TrainBatches, eval_batches
from trainers.data.events import _ReadClip
from trainers.data_presence import EVENT_CLASS_COUNTS, require_data
from trainers.protocol import DataNotFoundError, TrainerError

DATA = TypeAdapter(Data)
CPU = torch.device("cpu")
FRAMES = 3
FOLDER = f"frames_number_{FRAMES}_split_by_number"
CIFAR_CLASSES = [str(number) for number in range(EVENT_CLASS_COUNTS["cifar10_dvs"])]
SPIKFORMER = Augmentation(horizontal_flip=0.5, event_augment="spikformer_dvs", event_cutout=4)


def section(folder: Path, name: str = "cifar10_dvs", **keys: object) -> Data:
    values = {"name": name, "data_dir": str(folder), "frames": FRAMES, "image_size": 16, "val_fraction": 0.2, **keys}
    return DATA.validate_python(values)


def write_frames(folder: Path, classes: list[str], clips: int, *, side: int = 16, width: int | None = None) -> None:
    """Write clips whose first count is their number within the class."""
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(clips):
            frames = rng.integers(0, 5, (FRAMES, 2, side, width or side)).astype(np.float64)
            frames[0, 0, 0, 0] = number
            np.savez(folder / label / f"clip_{number}.npz", frames=frames)


def write_events(folder: Path, classes: list[str], clips: int = 2, count: int = 31) -> None:
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(clips):
            np.savez(
                folder / label / f"clip_{number}.npz",
                t=np.arange(count),
                x=rng.integers(0, 128, count),
                y=rng.integers(0, 128, count),
                p=rng.integers(0, 2, count),
            )


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cifar10_dvs")
    write_frames(root / FOLDER, CIFAR_CLASSES, 12)
    return root


def numbers_of(bundle: DataBundle, split: str) -> list[tuple[int, int]]:
    """Return (class, number within the class) of each clip of a split."""
    pairs = []
    for clips, labels in eval_batches(bundle.split(split), 7):
        pairs += list(zip(labels.tolist(), clips[:, 0, 0, 0, 0].int().tolist(), strict=True))
    return pairs


def test_the_first_nine_tenths_of_each_class_are_for_training(cifar: Path) -> None:
    bundle = load_data(section(cifar))
    in_order = sorted(range(12), key=str)  # clip_0, clip_1, clip_10, clip_11, clip_2, ...
    test = numbers_of(bundle, "test")
    assert test == [(label, number) for label in range(10) for number in in_order[11:]]
    train, val = numbers_of(bundle, "train"), numbers_of(bundle, "val")
    assert (len(train), len(val), len(test)) == (88, 22, 10)
    assert sorted(train + val + test) == [(label, number) for label in range(10) for number in range(12)]
    assert val == numbers_of(load_data(section(cifar)), "val")
    assert val != numbers_of(load_data(section(cifar, split_seed=7)), "val")


def test_counts_stay_counts(cifar: Path) -> None:
    bundle = load_data(section(cifar))
    assert (bundle.shape, bundle.num_classes) == ((2, 16, 16), 10)
    clips, _ = next(eval_batches(bundle.val, 4))
    assert (clips.shape, clips.dtype) == ((4, FRAMES, 2, 16, 16), torch.float32)
    assert clips.max() > 1.0
    assert torch.equal(clips, clips.round())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_clips_depend_on_neither_position_nor_workers(cifar: Path, start: int, workers: int) -> None:
    bundle = load_data(section(cifar), SPIKFORMER)

    def batches(workers: int) -> TrainBatches:
        return TrainBatches(
            bundle.train, batch_size=20, seed=1, device=CPU, transform=bundle.transform, workers=workers
        )

    whole = list(batches(0).epoch(1))
    part = list(batches(workers).epoch(1, start=start))
    assert len(part) == len(whole) - start
    for (clips, labels), (expected, expected_labels) in zip(part, whole[start:], strict=True):
        assert torch.equal(clips, expected)
        assert torch.equal(labels, expected_labels)
    other = next(batches(0).epoch(2))[0]
    assert not torch.equal(whole[0][0], other)


def test_without_augmentation_a_clip_is_as_it_lies_there(cifar: Path) -> None:
    bundle = load_data(section(cifar))
    assert bundle.transform is None
    clips, labels = next(TrainBatches(bundle.train, batch_size=2, seed=0, device=CPU).epoch(0))
    name = f"clip_{int(clips[0, 0, 0, 0, 0])}.npz"
    frames = np.load(cifar / FOLDER / str(labels[0].item()) / name)["frames"]
    assert torch.equal(clips[0], torch.from_numpy(frames).float())


def test_gesture_has_official_test_clips_which_training_does_not_look_for(tmp_path: Path) -> None:
    classes = [str(number) for number in range(11)]
    write_frames(tmp_path / FOLDER / "train", classes, 5)
    bundle = load_data(section(tmp_path, "dvs128_gesture"))
    assert (len(bundle.train), len(bundle.val), bundle.num_classes) == (44, 11, 11)
    assert bundle.classes[:3] == ("0", "1", "10")  # in the order of spikingjelly
    with pytest.raises(DataNotFoundError, match="test"):
        _ = bundle.test
    write_frames(tmp_path / FOLDER / "test", classes, 1)
    assert len(load_data(section(tmp_path, "dvs128_gesture")).test) == 11


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "random"])
def test_oblong_frames_are_resized_and_keep_their_mean(tmp_path: Path, interpolation: str) -> None:
    frames = np.full((FRAMES, 2, 180, 240), 3.0)
    np.savez(tmp_path / "a.npz", frames=frames)
    clip = _ReadClip(FRAMES, 64, interpolation)(tmp_path / "a.npz")
    assert clip.shape == (FRAMES, 2, 64, 64)
    assert torch.allclose(clip, torch.full_like(clip, 3.0))


def test_resizing_spreads_counts_unless_it_picks_the_nearest(tmp_path: Path) -> None:
    frames = np.zeros((FRAMES, 2, 128, 128))
    frames[:, :, 1::2, 1::2] = 4.0  # one pixel of four
    np.savez(tmp_path / "a.npz", frames=frames)
    assert _ReadClip(FRAMES, 64, "bilinear")(tmp_path / "a.npz")[..., 8:-8, 8:-8].mean() == pytest.approx(1.0, rel=1e-3)
    assert _ReadClip(FRAMES, 64, "nearest")(tmp_path / "a.npz").max() == 0.0


def test_where_nothing_happened_resizing_leaves_nothing(tmp_path: Path) -> None:
    frames = np.zeros((FRAMES, 2, 128, 128))
    frames[:, :, 64, 64] = 9.0
    np.savez(tmp_path / "a.npz", frames=frames)
    clip = _ReadClip(FRAMES, 48, "bicubic")(tmp_path / "a.npz")
    assert clip.min() == 0.0  # the weights of bicubic resizing are negative beside an event
    assert (clip > 0).any()


def test_n_caltech101_has_its_classes_counted(tmp_path: Path) -> None:
    write_frames(tmp_path / FOLDER, [f"class_{number:03}" for number in range(101)], 2, side=4, width=6)
    bundle = load_data(section(tmp_path, "n_caltech101", image_size=8))
    assert (bundle.shape, bundle.num_classes, len(bundle.train) + len(bundle.val)) == ((2, 8, 8), 101, 202)
    (tmp_path / FOLDER / "class_000" / "clip_0.npz").rename(tmp_path / "gone.npz")
    (tmp_path / FOLDER / "class_000" / "clip_1.npz").unlink()
    (tmp_path / FOLDER / "class_000").rmdir()
    with pytest.raises(DataNotFoundError, match=r"n_caltech101 has 101 classes, .* holds 100"):
        load_data(section(tmp_path, "n_caltech101"))


def test_frames_are_made_of_raw_events_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_events(tmp_path / "events_np", CIFAR_CLASSES)
    (tmp_path / f".{FOLDER}.making" / FOLDER / "0").mkdir(parents=True)  # a killed process has left it
    bundle = load_data(section(tmp_path, image_size=128))
    clips, _ = next(eval_batches(bundle.train, 5))
    assert clips.sum((2, 3, 4)).tolist() == [[10.0, 10.0, 11.0]] * 5  # 31 events by number, the rest in the last frame
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{FOLDER}.lock", "events_np", FOLDER]
    assert caplog.text.count("this may take minutes") == 1
    stamp = (tmp_path / FOLDER).stat().st_mtime_ns
    load_data(section(tmp_path))
    assert (tmp_path / FOLDER).stat().st_mtime_ns == stamp
    events = np.load(tmp_path / "events_np" / "0" / "clip_0.npz")
    frames = np.load(tmp_path / FOLDER / "0" / "clip_0.npz")["frames"]
    first = (events["p"][0] != 0).astype(int), events["y"][0], events["x"][0]
    assert frames[0][first] >= 1  # channel is polarity, then y, then x


def test_frames_that_another_program_makes_are_not_touched(tmp_path: Path) -> None:
    write_frames(tmp_path / FOLDER, CIFAR_CLASSES, 1)
    (tmp_path / f"{FOLDER}.building").touch()
    with pytest.raises(TrainerError, match=r"building says that a program is filling"):
        load_data(section(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    write_events(tmp_path / "events_np", CIFAR_CLASSES)
    monkeypatch.setattr(Path, "symlink_to", refused)
    with pytest.raises(TrainerError, match=rf"cannot be made in {tmp_path}: read-only"):
        load_data(section(tmp_path))


def test_events_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_events(tmp_path / "events_np", CIFAR_CLASSES, clips=1)
    np.savez(tmp_path / "events_np" / "0" / "clip_0.npz", t=np.arange(3))
    with pytest.raises(TrainerError, match=r"events of cifar10_dvs in .* cannot be read"):
        load_data(section(tmp_path))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_clips_are_named(tmp_path: Path, workers: int) -> None:
    write_frames(tmp_path / FOLDER, CIFAR_CLASSES, 2)
    for path in (tmp_path / FOLDER).rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:200])
    bundle = load_data(section(tmp_path, workers=workers))
    with pytest.raises(TrainerError, match=r"^/.*clip_\d\.npz is damaged") as caught:
        list(eval_batches(bundle.train, 2))
    assert "Traceback" not in str(caught.value)


def test_another_number_of_frames_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=np.zeros((4, 2, 8, 8)))
    with pytest.raises(TrainerError, match=r"holds \(4, 2, 8, 8\), expected \(3, 2, height, width\)"):
        _ReadClip(FRAMES, 8, "bilinear")(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["cifar10_dvs", "dvs128_gesture", "n_caltech101"])
def test_an_absent_set_is_told_with_its_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match=rf"{name} is not in {tmp_path}.*{FOLDER}/.*events_np/") as caught:
        require_data(section(tmp_path, name))
    assert ("train|test/" in str(caught.value)) == (name == "dvs128_gesture")
    with pytest.raises(DataNotFoundError, match=name):
        load_data(section(tmp_path, name))
    assert not list(tmp_path.iterdir())
    (tmp_path / "events_np").mkdir()
    require_data(section(tmp_path, name))
