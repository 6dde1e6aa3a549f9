"""How much a worker writes for one trial: what it costs every trial of every study."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from queued_jobs import seed, take
from sqlalchemy import event

from orchestrator.storage.database import Database
from orchestrator.storage.tables import EndReason, JobState
from orchestrator.workers.attempt import Attempt
from orchestrator.workers.doorbell import Doorbell
from orchestrator.workers.trial_handle import Handle
from orchestrator.workers.trial_process import TrialEnd
from trainers.protocol import EpochReport, RunFacts

FACTS = RunFacts(device="cpu", neuron_backend="none", resumed_epoch=0, parameters=0, effective_batch=0)


class Told:
    """A handle on a trial that has said everything and is gone."""

    def __init__(self, messages: list[object]) -> None:
        self._messages = messages
        self.pipe = SimpleNamespace(poll=lambda _: bool(self._messages), recv=lambda: self._messages.pop(0))
        self.process = SimpleNamespace(pid=1, sentinel=0, exitcode=0, is_alive=lambda: False, join=lambda **_: None)

    def take(self) -> Handle:
        return self

    def begin(self, spec: object) -> None:
        """It has run already."""

    def close(self) -> None:
        """Nothing is left of it."""


def written_by(database: Database, run_dir: Path, epochs: int) -> tuple[int, int]:
    """Return the transactions and statements of claiming a trial of so many epochs and of writing its end."""
    seed(database, 1)
    with database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE sb_jobs SET run_dir = '{run_dir}'")
    commits: list[object] = []
    statements: list[str] = []
    event.listen(database.engine, "commit", commits.append)
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    reports = [
        EpochReport(epoch, epochs, {"val_accuracy": 0.5, "val_loss": 1.0}, 1.0) for epoch in range(1, epochs + 1)
    ]
    told = Told([FACTS, *reports, TrialEnd(EndReason.FINISHED, peak_rss_mb=100.0)])
    assert Attempt(database, take(database), "cpu", told).run(Doorbell(None)) is JobState.DONE
    return len(commits), len([text for text in statements if not text.startswith("BEGIN")])


def test_a_short_trial_takes_two_transactions_and_a_dozen_statements(database: Database, tmp_path: Path) -> None:
    commits, statements = written_by(database, tmp_path / "run", epochs=20)
    assert commits == 2
    assert statements <= 12, (
        "3 to claim it; then its end, the attempt's and the worker's, facts, epochs, metrics, peaks"
    )
