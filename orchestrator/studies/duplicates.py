"""What becomes of a configuration that a study has had before: another seed, or the result that is there already."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, literal, select

from configs.resolve import config_hash, with_params
from configs.schema import RunConfig
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import EndReason, EpochRow, JobRow, JobState, MetricRow
from search_spaces.space import Space

SEED = "training.seed"


@dataclass(frozen=True, slots=True)
class Source:
    """A finished trial whose result is used again."""

    job_id: int
    number: int
    run_dir: str

    def as_result(self) -> dict[str, object]:
        """Return the columns of a job that has this result as soon as it is queued, but for the times."""
        return {
            "state": JobState.DONE,
            "end_reason": EndReason.FINISHED,
            "end_detail": f"the configuration of trial {self.number}, and its result",
            "run_dir": self.run_dir,
        }


@dataclass(frozen=True, slots=True)
class Settled:
    """What a trial trains.

    Args:
        config: its configuration, with a seed of its own where it is a replicate.
        hash: of the configuration.
        source: trial whose result is this one's too, so that nothing is trained; else None.
    """

    config: RunConfig
    hash: str
    source: Source | None = None


class Duplicates:
    """Know every configuration a study has had, and apply its policy to one that comes again.

    It is decided by the trials asked before, so a study that was interrupted decides as one that was not.

    Args:
        database: an open database.
        study_id: the study.
        space: its space.
    """

    def __init__(self, database: Database, study_id: int, space: Space) -> None:
        self._database = database
        self._study_id = study_id
        self._seed_is_drawn = SEED in space.parameters
        self._reuse = space.duplicates == "reuse" or self._seed_is_drawn
        self._had: set[str] | None = None

    def forget(self) -> None:
        """Read anew what the study has had, when it is next asked for: nobody knows what of the last write arrived."""
        self._had = None

    def remember(self, settled: Settled) -> None:
        """Take note of a trial that was written."""
        self._known().add(settled.hash)

    def _known(self) -> set[str]:
        """Return the hashes of all configurations the study has had; read once, when a controller holds the study."""
        if self._had is None:
            query = select(JobRow.config_hash).where(JobRow.study_id == self._study_id)
            with self._database.read() as connection:
                self._had = set(connection.execute(query).scalars())
        return self._had

    def settle(self, config: RunConfig) -> Settled:
        """Return what a trial trains whose parameters gave a configuration.

        Args:
            config: the configuration; one that is new stays as it is.
        """
        digest = config_hash(config)
        if digest not in self._known():
            return Settled(config, digest)
        if self._reuse and (source := self._finished(digest)) is not None:
            return Settled(config, digest, source)
        while digest in self._known() and not self._seed_is_drawn:
            config = with_params(config, {SEED: config.training.seed + 1})
            digest = config_hash(config)
        return Settled(config, digest)

    def _finished(self, digest: str) -> Source | None:
        """Return the first trial of a configuration that ran all its epochs."""
        query = select(JobRow.id, JobRow.trial_number, JobRow.run_dir).where(
            JobRow.study_id == self._study_id, JobRow.config_hash == digest, JobRow.end_reason == EndReason.FINISHED
        )
        with self._database.read() as connection:
            row = connection.execute(query.order_by(JobRow.trial_number).limit(1)).first()
        return None if row is None else Source(row.id, row.trial_number, row.run_dir)


def copy_curves(connection: Connection, source: int, target: int) -> None:
    """Give a job the learning curves of another.

    Args:
        connection: a writing transaction.
        source: job that has them.
        target: job that has none.
    """
    epochs = select(literal(target), EpochRow.epoch, literal(0), EpochRow.seconds, database_now())
    columns = ["job_id", "epoch", "attempt", "seconds", "reported_at"]
    connection.execute(insert(EpochRow).from_select(columns, epochs.where(EpochRow.job_id == source)))
    metrics = select(literal(target), MetricRow.epoch, MetricRow.name, MetricRow.value)
    columns = ["job_id", "epoch", "name", "value"]
    connection.execute(insert(MetricRow).from_select(columns, metrics.where(MetricRow.job_id == source)))
