"""What can befall one trial: each fault has its reason, its policy, and a worker that lives on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import leash
import pytest
from faulty_trainers import CGROUP, LONG_EPOCH, MIDST
from queued_jobs import rows, seed, worker
from sqlalchemy import update

from configs.resolve import from_dict, to_dict
from configs.schema import RunConfig
from orchestrator.queue.jobs import claim
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import AttemptRow, CheckpointRow, EndReason, EpochRow, JobRow, JobState, MetricRow
from orchestrator.workers.attempt import Attempt
from orchestrator.workers.doorbell import Doorbell
from orchestrator.workers.trial_handle import TrialHandle, TrialHandles
from orchestrator.workers.trial_process import TrialSpec
from trainers import checkpoint
from trainers.protocol import EpochReport, RunFacts, SilentReporter
from trainers.training import train

pytestmark = pytest.mark.system

SUPPORT = Path(__file__).parents[1] / "support"
NOTHING = nullcontext()
PATIENCE = 5.0  # seconds of silence that are a hang; no process of a busy machine needs so long for a step


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orchestrator.workers.trial_process", "trainers.training"])
    return context


@pytest.fixture
def bench(
    sqlite_url: str, context: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.syspath_prepend(str(SUPPORT))
    bench = Bench(open_database(sqlite_url, create=True), context, tmp_path / "trial")
    yield bench
    bench.handles.close()
    bench.database.engine.dispose()


class Bench:
    """One job in the queue and a worker's hands to run its attempts with."""

    def __init__(self, database: Database, context: ForkServerContext, run_dir: Path) -> None:
        self.database = database
        self.handles = TrialHandles(context)
        self.run_dir = run_dir
        self.config: RunConfig

    def queue(self, trainer: str, **training: Any) -> None:
        self.config = from_dict(
            {
                "model": {"name": "stal_srnn", "hidden_size": 16},
                "encoder": {"hidden_channels": 4},
                "data": {"name": "digits", "val_fraction": 0.1, "test_fraction": 0.7},
                "training": {"epochs": 4, "batch_size": 64, **training},
            }
        )
        seed(self.database, 1, to_dict(self.config))
        with self.database.begin() as connection:
            connection.execute(update(JobRow).values(trainer=trainer, run_dir=str(self.run_dir), threads=1))

    def run(self, beside: AbstractContextManager[None] = NOTHING) -> JobState | None:
        """Run one attempt, and something beside it."""
        held = self.database.write(lambda connection: claim(connection, worker()))
        assert held is not None
        with beside:
            return Attempt(self.database, held, "cpu", self.handles).run(Doorbell(None))

    def at_epoch(self, epochs: int, number: signal.Signals) -> AbstractContextManager[None]:
        """Have the trial's process get a signal when it stands after so many epochs."""
        return leash.held(self.run_dir, epochs, lambda pid: os.kill(pid, number))

    def set_hang_seconds(self, seconds: float) -> None:
        config = self.job().config
        config["training"]["hang_seconds"] = seconds
        with self.database.begin() as connection:
            connection.execute(update(JobRow).values(config=config))

    def attempts(self) -> list[Any]:
        return rows(self.database, AttemptRow)

    def job(self) -> Any:
        (job,) = rows(self.database, JobRow)
        return job

    def log(self) -> str:
        return (self.run_dir / "trial.log").read_text()

    def curve(self) -> dict[int, dict[str, float]]:
        found: dict[int, dict[str, float]] = {}
        for row in rows(self.database, MetricRow):
            if "seconds" not in row.name:
                found.setdefault(row.epoch, {})[row.name] = row.value
        return found

    def undisturbed(self) -> dict[int, dict[str, float]]:
        keeper = _Keeper()
        train(self.config, keeper, threads=1)
        return keeper.curve


class _Keeper(SilentReporter):
    def __init__(self) -> None:
        self.curve: dict[int, dict[str, float]] = {}

    def epoch(self, report: EpochReport) -> None:
        self.curve[report.epoch] = {k: v for k, v in report.metrics.items() if "seconds" not in k}


# --- memory -----------------------------------------------------------------------------------------------------------


def test_out_of_gpu_memory_halves_the_batches_until_they_fit_and_the_trial_goes_on(bench: Bench) -> None:
    bench.queue("faulty_trainers:too_large")
    assert [bench.run() for _ in range(3)] == [JobState.PENDING, JobState.PENDING, JobState.DONE]
    attempts = bench.attempts()
    assert [row.end_reason for row in attempts] == [EndReason.OOM, EndReason.OOM, EndReason.FINISHED]
    assert [row.micro_batch for row in attempts] == [64, 32, 16]
    assert {row.effective_batch for row in attempts} == {64}
    assert [row.resumed_epoch for row in attempts] == [0, 1, 1]
    assert attempts[0].end_detail.startswith("out of memory: OutOfMemoryError: CUDA out of memory. Tried to allocate")
    assert all(row.peak_rss_mb > 50 for row in attempts)
    assert [row.epoch for row in rows(bench.database, EpochRow)] == [1, 2, 3, 4]
    assert bench.job().config["training"]["batch_size"] == 64
    assert "Traceback" in bench.log()


def test_out_of_host_memory_by_a_limit_of_the_process(bench: Bench) -> None:
    bench.queue("faulty_trainers:hungry", batch_size=4)
    assert bench.run() is JobState.PENDING
    assert bench.run() is JobState.FAILED
    job = bench.job()
    assert (job.end_reason, job.micro_batch_halvings) == (EndReason.OOM, 1)
    assert "can't allocate memory" in job.end_detail


def test_out_of_host_memory_by_the_kernel(bench: Bench) -> None:
    group = CGROUP / bench.run_dir.name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(2**27))
    except OSError:
        pytest.skip("needs the right to make a control group of memory")
    try:
        bench.queue("faulty_trainers:devoured", batch_size=2)
        assert bench.run() is JobState.FAILED
    finally:
        group.rmdir()
    assert bench.job().end_reason == EndReason.OOM
    assert "killed by the kernel" in bench.job().end_detail


# --- hangs, crashes, rubbish ------------------------------------------------------------------------------------------


def test_a_trial_that_hangs_is_ended_and_its_log_shows_where_it_stood(bench: Bench) -> None:
    bench.queue("faulty_trainers:hangs", hang_seconds=PATIENCE)
    assert bench.run() is JobState.PENDING
    assert f"no step and no report for {PATIENCE:g} s" in bench.attempts()[0].end_detail
    assert "in wait_for_ever" in bench.log()
    bench.set_hang_seconds(0.2)
    assert [bench.run() for _ in range(2)] == [JobState.PENDING, JobState.FAILED]
    assert bench.job().end_reason == EndReason.HANG


def test_a_trial_whose_process_is_stopped_hangs_too(bench: Bench) -> None:
    bench.queue("faulty_trainers:leashed", hang_seconds=PATIENCE)
    assert bench.run(bench.at_epoch(1, signal.SIGSTOP)) is JobState.PENDING
    assert bench.attempts()[0].end_reason == EndReason.HANG


def test_a_long_epoch_with_steps_is_no_hang(bench: Bench) -> None:
    bench.queue("faulty_trainers:slow_but_alive", hang_seconds=PATIENCE)
    assert PATIENCE < LONG_EPOCH
    assert bench.run() is JobState.DONE


def test_a_fault_in_native_code_is_tried_again_and_leaves_its_stack(bench: Bench) -> None:
    bench.queue("fake_trainers:segfaults")
    assert [bench.run() for _ in range(3)] == [JobState.PENDING, JobState.PENDING, JobState.FAILED]
    assert bench.job().end_reason == EndReason.CRASH
    assert "SIGSEGV" in bench.job().end_detail
    assert "in segfaults" in bench.log()


def test_what_no_table_takes_is_the_trials_error(bench: Bench) -> None:
    bench.queue("faulty_trainers:reports_rubbish")
    assert bench.run() is JobState.FAILED
    assert bench.job().end_reason == EndReason.ERROR
    assert "expected names of metrics of at most 128 characters" in bench.job().end_detail
    assert bench.curve() == {1: {"val_accuracy": 0.5}}


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_leaves_the_checkpoint_before_and_the_trial_says_so(bench: Bench) -> None:
    bench.queue("faulty_trainers:full_disk")
    assert bench.run() is JobState.DONE
    (attempt,) = bench.attempts()
    assert attempt.end_reason == EndReason.FINISHED
    assert "cannot write the checkpoint" in attempt.end_detail
    assert "File too large" in attempt.end_detail
    (kept,) = bench.run_dir.glob("*ckpt-*")
    assert checkpoint.load(kept)["epoch"] == 1
    assert [Path(row.path) for row in rows(bench.database, CheckpointRow)] == [kept]
    assert bench.curve() == bench.undisturbed()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_newest_checkpoint_is_passed_over(bench: Bench, damage: str) -> None:
    bench.queue("faulty_trainers:leashed", epochs=5, keep_checkpoints=5)
    assert bench.run(bench.at_epoch(3, signal.SIGKILL)) is JobState.PENDING
    newest = checkpoint.newest_valid(bench.run_dir)
    assert newest is not None
    assert checkpoint.load(newest)["epoch"] == 3
    data = newest.read_bytes()
    damaged = {"truncated": data[: len(data) // 2], "flipped": flipped(newest), "emptied": b""}[damage]
    newest.write_bytes(damaged)
    assert bench.run() is JobState.DONE
    assert bench.attempts()[1].resumed_epoch == 2
    assert newest.name in bench.log()
    assert bench.curve() == bench.undisturbed()


def flipped(path: Path) -> bytes:
    """Return a checkpoint with one bit flipped in its largest record; the padding between records has no checksum."""
    with zipfile.ZipFile(path) as container:
        largest = max(container.infolist(), key=lambda record: record.file_size)
        content = container.read(largest)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    return bytes(data)


# --- preemption -------------------------------------------------------------------------------------------------------


def test_sigterm_to_a_trial_writes_a_checkpoint_and_gives_the_job_back_at_once(bench: Bench) -> None:
    bench.queue("faulty_trainers:leashed", epochs=5, checkpoint_every=5)
    assert bench.run(bench.at_epoch(2, signal.SIGTERM)) is JobState.PENDING
    job = bench.job()
    assert (job.state, job.owner, job.lease_until) == (JobState.PENDING, None, 0.0)
    assert bench.attempts()[0].end_reason == EndReason.PREEMPTED
    (saved,) = rows(bench.database, CheckpointRow)
    assert (saved.epoch, saved.step) == (2, MIDST)
    assert bench.run() is JobState.DONE
    assert bench.attempts()[1].resumed_epoch == 2
    assert bench.curve() == bench.undisturbed()


def test_a_preempted_trials_process_leaves_with_75(bench: Bench, context: ForkServerContext) -> None:
    bench.queue("faulty_trainers:leashed")
    handle = TrialHandle(context)
    leash.tie(bench.run_dir, 0)
    handle.begin(TrialSpec(to_dict(bench.config), "faulty_trainers:leashed", bench.run_dir, "cpu", 1, attempt=1))
    assert handle.pipe.poll(120)
    assert isinstance(handle.pipe.recv(), RunFacts)
    os.kill(handle.process.pid or 0, signal.SIGTERM)
    handle.process.join(120)
    assert handle.process.exitcode == 75, bench.log()
    handle.close()
    assert list(bench.run_dir.glob("ckpt-*"))
