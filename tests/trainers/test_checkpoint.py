import errno
import os
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from configs.schema import RunConfig
from trainers import checkpoint
from trainers.protocol import CheckpointError

CONTENT = {"weights": {"w": torch.arange(5000.0)}, "note": "x"}
CONFIG = RunConfig.model_validate({"model": {"name": "stal_srnn"}})


def write(folder: Path, epoch: int = 1, step: int = 0, keep: int = 2, attempt: int = 1) -> Path:
    return checkpoint.save(folder, CONTENT, epoch=epoch, step=step, keep=keep, attempt=attempt).path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saved_checkpoint_is_described_and_loads(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path / "new" / "run", CONTENT, epoch=3, step=12, keep=1)
    assert saved.path.name == "ckpt-00003-0000012.pt"
    assert saved == checkpoint.describe(saved.path)
    content = checkpoint.load(saved.path, sha256=saved.sha256)
    assert torch.equal(content["weights"]["w"], CONTENT["weights"]["w"])
    assert content["schema_version"] == checkpoint.SCHEMA_VERSION
    assert torch.load(saved.path, weights_only=True)["note"] == "x"  # an ordinary torch file


def test_newest_are_kept_and_a_killed_writers_rest_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".ckpt-00001-0000000.pt.7.tmp").write_bytes(b"half")
    for epoch, step in ((1, 0), (1, 9), (2, 0)):
        write(tmp_path, epoch, step)
    assert names(tmp_path) == ["ckpt-00001-0000009.pt", "ckpt-00002-0000000.pt"]


def test_positions_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    for epoch in (99999, 100000):
        write(tmp_path, epoch)
    assert checkpoint.newest_valid(tmp_path) == tmp_path / "ckpt-100000-0000000.pt"


def test_an_attempt_that_was_replaced_can_neither_overwrite_nor_replace_its_successors(tmp_path: Path) -> None:
    first = write(tmp_path, 3, attempt=1)
    second = write(tmp_path, 3, attempt=2)
    (tmp_path / f".{second.name}.7.tmp").write_bytes(b"the successor is writing")
    late = write(tmp_path, 9, attempt=1, keep=1)  # further on, but nobody's any more
    assert late != second
    assert not first.exists()  # its own it may drop
    assert second.exists()
    assert (tmp_path / f".{second.name}.7.tmp").exists()
    assert checkpoint.newest_valid(tmp_path, attempt=3) == second
    assert checkpoint.newest_valid(tmp_path) == second
    assert checkpoint.newest_valid(tmp_path, attempt=1) == late
    second.write_bytes(b"")
    assert checkpoint.newest_valid(tmp_path, attempt=2) == late  # better than nothing
    third = write(tmp_path, 4, attempt=3, keep=1)
    assert names(tmp_path) == [third.name]
    assert third.name == "ckpt-00004-0000000-a0003.pt"
    assert checkpoint.describe(third).epoch == 4


def test_what_a_successor_goes_on_from_cannot_be_dropped_under_its_hands(tmp_path: Path, monkeypatch) -> None:
    assert checkpoint.adopt_newest(tmp_path, 2) is None
    write(tmp_path, 3)
    listed = checkpoint.newest_valid

    def too_late(folder: Path, attempt: int | None = None) -> Path | None:
        """The predecessor saves twice and drops the one that was just found."""
        monkeypatch.undo()
        found = listed(folder, attempt)
        write(tmp_path, 4, keep=1)
        return found

    monkeypatch.setattr(checkpoint, "newest_valid", too_late)
    adopted = checkpoint.adopt_newest(tmp_path, 2)
    assert adopted == tmp_path / "ckpt-00004-0000000-a0002.pt"
    write(tmp_path, 5, keep=1)
    assert checkpoint.load(adopted)
    assert names(tmp_path) == ["ckpt-00004-0000000-a0002.pt", "ckpt-00005-0000000.pt"]
    assert checkpoint.adopt_newest(tmp_path, 2) == adopted


def test_any_damage_is_noticed_and_the_one_before_is_taken(tmp_path: Path, caplog) -> None:
    older, newest = write(tmp_path, 1), write(tmp_path, 2)
    whole = newest.read_bytes()
    rng = random.Random(0)
    with zipfile.ZipFile(newest) as container:
        spans = [(entry.header_offset, entry.file_size) for entry in container.infolist()]
    heavy_offset, heavy_size = max(spans, key=lambda span: span[1])
    damaged = [b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"garbage" * 1000]
    for _ in range(10):  # single bits inside the largest record, past its header
        position = heavy_offset + 200 + rng.randrange(heavy_size - 400)
        damaged.append(whole[:position] + bytes([whole[position] ^ 1 << rng.randrange(8)]) + whole[position + 1 :])
    for data in damaged:
        newest.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(newest)
        caplog.clear()
        assert checkpoint.newest_valid(tmp_path) == older
        assert newest.name in caplog.text
    newest.write_bytes(whole)
    assert checkpoint.newest_valid(tmp_path) == newest


def test_no_valid_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest_valid(tmp_path / "nothing") is None
    write(tmp_path).write_bytes(b"")
    assert checkpoint.newest_valid(tmp_path) is None


def test_other_files_are_refused_each_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.load(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of spikebench"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save({"format": checkpoint.FORMAT, "schema_version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="schema version 99, this program reads 1"):
        checkpoint.load(tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load(write(tmp_path), sha256="0" * 64)
    with pytest.raises(CheckpointError, match="not named like"):
        checkpoint.describe(tmp_path / "other.pt")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "schema_version": 1, "x": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        checkpoint.load(tmp_path / "evil.pt")


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_older_one_valid(tmp_path: Path, monkeypatch, where: str) -> None:
    older = write(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        monkeypatch.setattr(Path, "open", full)
    elif where == "fsync":
        monkeypatch.setattr(checkpoint.os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*still valid"):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert names(tmp_path) == [older.name]
    assert checkpoint.newest_valid(tmp_path) == older


def test_a_real_write_that_stops_half_way(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow past 8 KiB, as a full disk would."""
    write(tmp_path, 1)
    script = (
        "import resource, signal, sys, torch; from pathlib import Path; from trainers import checkpoint\n"
        "from trainers.protocol import CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: checkpoint.save(Path(sys.argv[1]), {'w': torch.zeros(100000)}, epoch=2, step=0, keep=2)\n"
        "except CheckpointError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert names(tmp_path) == ["ckpt-00001-0000000.pt"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 8192


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*file/run.*Not a directory"):
        write(tmp_path / "file" / "run")


def test_configuration_inside_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    assert checkpoint.config_of({"config": CONFIG.model_dump(mode="json")}, path) == CONFIG
    with pytest.raises(CheckpointError, match="not one of this version"):
        checkpoint.config_of({"config": {"model": {"name": "perceptron"}}}, path)


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    content = {"config": CONFIG.model_dump(mode="json")}
    other = RunConfig.model_validate(
        {"model": {"name": "stal_srnn"}, "training": {"epochs": 3, "device": "cpu"}, "tracking": {"mlflow": True}}
    )
    with pytest.raises(CheckpointError, match=r"training.epochs is 10 there and 3 here") as caught:
        checkpoint.check_same_run(content, other, tmp_path)
    assert "device" not in str(caught.value)
    smaller = {"batch_size": CONFIG.training.batch_size // 4, "accumulation_steps": 4}
    ladder = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update=smaller)})
    checkpoint.check_same_run(content, ladder, tmp_path)
    other_step = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"batch_size": 32})})
    with pytest.raises(CheckpointError, match=r"training.batch_size is 128 there and 32 here"):
        checkpoint.check_same_run(content, other_step, tmp_path)
    same = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"device": "cpu"})})
    checkpoint.check_same_run(content, same, tmp_path)
