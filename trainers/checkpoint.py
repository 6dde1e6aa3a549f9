"""Checkpoint files: written aside, synced and renamed; verified before anything in them is believed.

A checkpoint is an ordinary `torch.save` file of plain values and tensors (`torch.load(path, weights_only=True)` opens
it). Its zip container carries a checksum per record, so a file can be verified without anything beside it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from configs.problems import ConfigError
from configs.resolve import from_dict, to_dict
from trainers.protocol import CheckpointError, SavedCheckpoint

if TYPE_CHECKING:
    from configs.schema import RunConfig

FORMAT = "spikebench-checkpoint"
SCHEMA_VERSION = 1

_NAME = re.compile(r"ckpt-(\d+)-(\d+)(?:-a(\d+))?\.pt")
_ASIDE = re.compile(r"\.(ckpt-.*\.pt)\.\d+\.tmp")
_LISTINGS = 50  # of a folder in which another is saving all the time
_log = logging.getLogger(__name__)


def save(
    run_dir: Path, content: Mapping[str, Any], *, epoch: int, step: int, keep: int, attempt: int = 1
) -> SavedCheckpoint:
    """Write a checkpoint so that a crash at any moment leaves the older ones valid, then drop the oldest.

    The attempt is part of the name and no attempt touches the files of a later one: an attempt that was given up for
    lost and still writes can neither overwrite nor replace what its successor has saved.

    Args:
        run_dir: the run's own folder; made when it is not there.
        content: plain values and tensors; format and schema version are added.
        epoch: epochs completed.
        step: batches done in the epoch that follows.
        keep: how many checkpoints stay.
        attempt: number of the attempt at the run that saves.

    Returns:
        The checkpoint that is now safe on disk.

    Raises:
        CheckpointError: it could not be written (disk full, folder not writable, ...); the older ones are untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "schema_version": SCHEMA_VERSION, **content}, buffer)
    data = buffer.getbuffer()
    path = run_dir / _name(epoch, step, attempt)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _write_and_rename(path, data)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}. Earlier checkpoints are still valid; "
            "free space on the disk or make the folder writable"
        ) from error
    saved = SavedCheckpoint(path, epoch, step, hashlib.sha256(data).hexdigest(), len(data))
    _drop_oldest(run_dir, keep, path, attempt)
    return saved


def load(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    """Read a checkpoint, on the CPU, after verifying every byte of it.

    Args:
        path: the file.
        sha256: digest it must have, where one was recorded.

    Raises:
        CheckpointError: it is missing, damaged, no checkpoint of this project or of another schema version.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is not the file that was saved: its SHA-256 is not {sha256}. {_ADVICE}")
    content = _unpack(path, data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a torch file, but no checkpoint of spikebench")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint schema version {content.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}: use the version of spikebench that wrote it"
        )
    return content


def describe(path: Path) -> SavedCheckpoint:
    """Return what a checkpoint file on disk is, from its name and bytes.

    Raises:
        CheckpointError: the file cannot be read or is not named like a checkpoint.
    """
    if (rank := _rank(path.name)) is None:
        raise CheckpointError(f"{path} is not named like a checkpoint (ckpt-<epoch>-<step>.pt)")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    return SavedCheckpoint(path, *rank[1:], hashlib.sha256(data).hexdigest(), len(data))


def newest_valid(run_dir: Path, attempt: int | None = None) -> Path | None:
    """Return the newest checkpoint of a run that verifies, or None; damaged ones are passed over with a warning.

    Args:
        run_dir: the run's folder.
        attempt: the attempt that wants to go on; what later ones have saved is not for it. None takes any.
    """
    for path in _newest_first(run_dir, attempt):
        try:
            load(path)
        except CheckpointError as error:
            _log.warning("passing over a checkpoint: %s", error)
        else:
            return path
    return None


def adopt_newest(run_dir: Path, attempt: int) -> Path | None:
    """Return the newest checkpoint that verifies, under a name of this attempt, or None.

    An attempt that was given up for lost may still be saving and dropping its oldest; what goes by the successor's name
    it does not touch.

    Args:
        run_dir: the run's folder.
        attempt: the attempt that goes on.
    """
    for _ in range(_LISTINGS):
        listed = _newest_first(run_dir, attempt)
        newest = newest_valid(run_dir, attempt)
        if newest not in listed[:1] and _newest_first(run_dir, attempt) != listed:
            continue  # one was dropped while it was read
        rank = None if newest is None else _rank(newest.name)
        if newest is None or rank is None or rank[0] == attempt:
            return newest
        own = run_dir / _name(rank[1], rank[2], attempt)
        try:
            own.hardlink_to(newest)
        except FileNotFoundError:  # dropped since it was listed: there is a newer one
            continue
        except OSError as error:  # a file system without links
            _log.warning("%s keeps its name: %s", newest, error.strerror or error)
            return newest
        return own
    return None


def config_of(content: Mapping[str, Any], path: Path) -> RunConfig:
    """Return the configuration inside a checkpoint.

    Args:
        content: what `load` returned.
        path: where it came from, for the message.

    Raises:
        CheckpointError: the schema of today does not accept it.
    """
    try:
        return from_dict(content["config"])
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"the configuration inside {path} is not one of this version: {error}") from error


def check_same_run(content: Mapping[str, Any], config: RunConfig, path: Path) -> None:
    """Make sure a checkpoint belongs to a configuration; what has no effect on the numbers may differ.

    Batches that were made smaller, with as many more of them for each optimiser step, belong to the same run.

    Raises:
        CheckpointError: other keys differ; the message names them with both values.
    """
    saved, wanted = (dict(_flat(to_dict(each))) for each in (config_of(content, path), config))
    if _effective_batch(saved) == _effective_batch(wanted):
        for key in ("batch_size", "accumulation_steps", "eval_batch_size"):
            saved[f"training.{key}"] = wanted[f"training.{key}"]
    differing = [
        f"{key} is {saved.get(key)!r} there and {wanted.get(key)!r} here"
        for key in sorted({*saved, *wanted})
        if saved.get(key) != wanted.get(key) and not key.startswith(_NO_EFFECT)
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to another configuration: {'; '.join(differing)}. Use that configuration, or start afresh"
        )


# Keys that may change between a run and its continuation: where things are and how fast, not what is computed.
_NO_EFFECT = (
    "compat",
    "data.data_dir",
    "data.download",
    "data.workers",
    "neuron.backend",
    "tracking.",
    "training.checkpoint_every",
    "training.device",
    "training.hang_seconds",
    "training.keep_checkpoints",
    "training.processes",
)

_ADVICE = "A run goes on from its checkpoint before if this one is deleted"


def _effective_batch(flat: Mapping[str, Any]) -> int:
    return int(flat["training.batch_size"] * flat["training.accumulation_steps"])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted keys and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unpack(path: Path, data: bytes) -> object:
    """Return what `torch.save` wrote; torch itself does not look at the checksums of its records."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as container:
            damaged = container.testzip()
        if damaged is None:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make zipfile and pickle raise nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path} is damaged or no checkpoint ({reason}). {_ADVICE}") from error
    raise CheckpointError(f"{path} is damaged: the checksum of its record {damaged} is wrong. {_ADVICE}")


def _write_and_rename(path: Path, data: memoryview) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop_oldest(run_dir: Path, keep: int, newest: Path, attempt: int) -> None:
    """Delete all but `keep` checkpoints, and what a killed writer left aside; failing to is no reason to end a run."""
    with suppress(OSError):
        others = [path for path in _newest_first(run_dir, attempt) if path != newest]
        for path in others[keep - 1 :]:
            path.unlink(missing_ok=True)
        for path in run_dir.glob(".ckpt-*.tmp"):
            match = _ASIDE.fullmatch(path.name)
            rank = _rank(match[1]) if match else None
            if rank is None or rank[0] <= attempt:
                path.unlink(missing_ok=True)


def _newest_first(run_dir: Path, attempt: int | None = None) -> list[Path]:
    """Return a run's checkpoints, a later attempt's before all of an earlier one's."""
    found = [(rank, path) for path in run_dir.glob("ckpt-*.pt") if (rank := _rank(path.name)) is not None]
    return [path for rank, path in sorted(found, reverse=True) if attempt is None or rank[0] <= attempt]


def _name(epoch: int, step: int, attempt: int) -> str:
    return f"ckpt-{epoch:05d}-{step:07d}{f'-a{attempt:04d}' if attempt > 1 else ''}.pt"


def _rank(name: str) -> tuple[int, int, int] | None:
    """Return (attempt, epoch, step) of a checkpoint's name."""
    match = _NAME.fullmatch(name)
    return (int(match[3] or 1), int(match[1]), int(match[2])) if match else None
