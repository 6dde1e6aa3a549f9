"""Read what W&B wrote offline: a log of protobuf records in blocks of 32 KiB, as LevelDB writes its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, PREAMBLE, HEADER = 32768, 7, 7
WHOLE, LAST = 1, 4


@dataclass
class WandbRun:
    """A run as its file tells it."""

    id: str = ""
    project: str = ""
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_runs(folder: Path) -> list[WandbRun]:
    """Read all runs below a folder, oldest first."""
    return [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def read_run(path: Path) -> WandbRun:
    from wandb.proto import wandb_internal_pb2

    run = WandbRun()
    for blob in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(blob)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.id, run.project, run.group, run.name = told.run_id, told.project, told.run_group, told.display_name
            run.config |= {item.key: json.loads(item.value_json) for item in told.config.update}
        elif kind == "history":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            run.history[record.history.step.num] = values
        elif kind == "summary":
            run.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(data: bytes) -> Iterator[bytes]:
    position, whole = PREAMBLE, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        whole += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in {WHOLE, LAST}:
            yield whole
            whole = b""
