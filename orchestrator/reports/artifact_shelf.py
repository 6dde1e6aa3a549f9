"""Files beside the trials of a study, kept as Optuna's artifact store and its dashboard know them."""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from optuna.artifacts import ArtifactMeta
from sqlalchemy import delete, select

from orchestrator.reading.views import StudyView
from orchestrator.storage.database import Database
from orchestrator.storage.optuna_rows import STUDY_SYSTEM_ATTRS, OptunaRows

# Optuna refuses new attributes of trials that have ended; its dashboard keeps what is attached to one with the study.
ATTACHED = "dashboard:artifacts:"
MIMETYPES = {".yaml": "text/yaml"}  # unknown to the standard library


class Shelf:
    """Put files beside trials, and take them away again; files of people are left alone.

    The id of a file follows from study, trial and name: whoever puts it there twice replaces it.

    Args:
        database: the study's database.
        study: the study.
        folder: of the artifact store; made when missing.
    """

    def __init__(self, database: Database, study: StudyView, folder: Path) -> None:
        self._database = database
        self._optuna_id = study.optuna_id
        # A study of the same name in another database is another study.
        self._space = uuid.uuid5(uuid.NAMESPACE_URL, f"spikebench:{study.name}@{study.created_at:.3f}")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> dict[int, set[str]]:
        """Return the names of the files that were put beside each trial, by Optuna's id of it, and still are there."""
        found: dict[int, set[str]] = defaultdict(set)
        columns = (STUDY_SYSTEM_ATTRS.c.key, STUDY_SYSTEM_ATTRS.c.value_json)
        query = select(*columns).where(
            STUDY_SYSTEM_ATTRS.c.study_id == self._optuna_id, STUDY_SYSTEM_ATTRS.c.key.startswith(ATTACHED)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for key, value in rows:
            meta = json.loads(json.loads(value))
            trial_id = int(key.removeprefix(ATTACHED).partition(":")[0])
            if meta is None or meta["artifact_id"] != self._id(trial_id, meta["filename"]):
                continue  # deleted in the dashboard, or put there by a person
            if (self._folder / meta["artifact_id"]).exists():
                found[trial_id].add(meta["filename"])
        return dict(found)

    def put(self, trial_id: int, name: str, content: bytes) -> None:
        """Put a file beside a trial.

        Args:
            trial_id: Optuna's id of the trial.
            name: of the file, as people see it.
            content: its bytes.
        """
        self._put(trial_id, name, lambda path: path.write_bytes(content))

    def link(self, trial_id: int, name: str, file: Path) -> None:
        """Put a file that is there beside a trial, without another copy of it on the disk.

        Args:
            trial_id: Optuna's id of the trial.
            name: of the file, as people see it.
            file: where it is.
        """

        def make(path: Path) -> None:
            try:
                os.link(file, path)
            except OSError:  # another file system, or one without hard links
                path.symlink_to(file.resolve())

        self._put(trial_id, name, make)

    def clear(self, trial_id: int, names: set[str]) -> None:
        """Take files away from a trial.

        Args:
            trial_id: Optuna's id of the trial.
            names: of the files.
        """
        ids = [self._id(trial_id, name) for name in names]
        statement = delete(STUDY_SYSTEM_ATTRS).where(
            STUDY_SYSTEM_ATTRS.c.study_id == self._optuna_id,
            STUDY_SYSTEM_ATTRS.c.key.in_([f"{ATTACHED}{trial_id}:{artifact}" for artifact in ids]),
        )
        self._database.write(lambda connection: connection.execute(statement))
        for artifact in ids:
            (self._folder / artifact).unlink(missing_ok=True)

    def _put(self, trial_id: int, name: str, make: Callable[[Path], object]) -> None:
        artifact = self._id(trial_id, name)
        half = self._folder / f".{artifact}.{os.getpid()}"
        half.unlink(missing_ok=True)
        make(half)
        half.replace(self._folder / artifact)
        half.unlink(missing_ok=True)  # it stays when both are links to one file
        kind = MIMETYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        meta = ArtifactMeta(artifact_id=artifact, filename=name, mimetype=kind, encoding=None)
        rows = OptunaRows()
        rows.study_system_attr(self._optuna_id, f"{ATTACHED}{trial_id}:{artifact}", json.dumps(asdict(meta)))
        self._database.write(lambda connection: rows.write(connection, {}))

    def _id(self, trial_id: int, name: str) -> str:
        return str(uuid.uuid5(self._space, f"{trial_id}/{name}"))
