"""Our typed tables, beside Optuna's in the same database. All times are seconds since 1970 by the database's clock."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class JobState(StrEnum):
    """Life of a job: PENDING -> LEASED -> DONE or FAILED; a lost or preempted lease goes back to PENDING."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"


class EndReason(StrEnum):
    """Why an attempt of a trial ended; a closed list."""

    FINISHED = "finished"
    RUNG = "rung"
    DOMINATED = "dominated"
    CONSTRAINT = "constraint"
    NAN = "nan"
    DEAD_SPIKES = "dead_spikes"
    SATURATED = "saturated"
    OOM = "oom"
    HANG = "hang"
    ERROR = "error"
    CRASH = "crash"
    LOST = "lost"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


class StudyState(StrEnum):
    """What a study is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    STOPPED = "stopped"


class Base(DeclarativeBase):
    """Declarative base of our tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class StudyRow(Base):
    """One study: its space, its budget and the lease of its controller."""

    __tablename__ = "sb_studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    optuna_study_id: Mapped[int]
    space_json: Mapped[str] = mapped_column(
        Text
    )  # the resolved space, so that a study can be continued without its file
    space_hash: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    budget_trials: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=StudyState.RUNNING)
    state_detail: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float] = mapped_column(Float)
    controller: Mapped[str | None] = mapped_column(String(255), default=None)  # "host:pid:token"
    controller_lease_until: Mapped[float] = mapped_column(Float, default=0.0)


class JobRow(Base):
    """One trial as work to be done; `attempt` is the fencing token of whoever holds it."""

    __tablename__ = "sb_jobs"
    __table_args__ = (
        Index(None, "study_id", "trial_number", unique=True),
        Index(None, "state", "priority", "id"),
        Index(None, "study_id", "told"),
        Index(None, "shape_hash"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("sb_studies.id", ondelete="CASCADE"))
    trial_number: Mapped[int]
    optuna_trial_id: Mapped[int]
    config: Mapped[dict[str, object]] = mapped_column(JSON)  # the resolved configuration, whole
    config_hash: Mapped[str] = mapped_column(String(64))
    params: Mapped[dict[str, object]] = mapped_column(JSON)  # dotted key -> value
    trainer: Mapped[str] = mapped_column(String(255))  # "module:function"
    threads: Mapped[int]  # fixed at the first start, as a continued trial must give the same bits; 0 before it
    shape_hash: Mapped[str] = mapped_column(String(64), default="", server_default="")  # of what decides its memory
    micro_batch_halvings: Mapped[int] = mapped_column(default=0, server_default="0")  # steps down the OOM ladder
    run_dir: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16), default=JobState.PENDING)
    verdict: Mapped[str] = mapped_column(
        String(16), default="continue"
    )  # what the controller wants of the running trial
    verdict_reason: Mapped[str | None] = mapped_column(String(16), default=None)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # attempts that ended in oom, hang, crash, error or lost
    owner: Mapped[str | None] = mapped_column(String(255), default=None)  # worker id
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    end_reason: Mapped[str | None] = mapped_column(String(16), default=None)
    end_detail: Mapped[str] = mapped_column(Text, default="")
    told: Mapped[bool] = mapped_column(default=False)  # Optuna knows the result
    created_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float, default=None)
    ended_at: Mapped[float | None] = mapped_column(Float, default=None)


class EnvironmentRow(Base):
    """Code, packages and device that attempts ran on; equal ones share a row."""

    __tablename__ = "sb_environments"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest of the other columns
    git_commit: Mapped[str | None] = mapped_column(String(64))
    git_dirty_hash: Mapped[str | None] = mapped_column(String(64))
    python: Mapped[str] = mapped_column(String(32))
    torch: Mapped[str] = mapped_column(String(64))
    packages: Mapped[dict[str, object]] = mapped_column(JSON)  # name -> version
    device_name: Mapped[str] = mapped_column(String(255))
    driver: Mapped[str | None] = mapped_column(String(64))
    platform: Mapped[str | None] = mapped_column(String(255), default=None)  # kernel, architecture, C library
    cuda: Mapped[str | None] = mapped_column(String(32), default=None)  # that torch was built with
    cudnn: Mapped[str | None] = mapped_column(String(64), default=None)


class AttemptRow(Base):
    """One lease of a job: who ran it, on what, and how that ended."""

    __tablename__ = "sb_attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("sb_jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(255))
    host: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int | None] = mapped_column(default=None)
    started_at: Mapped[float] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float, default=None)
    resumed_epoch: Mapped[int] = mapped_column(default=0)
    end_reason: Mapped[str | None] = mapped_column(String(16), default=None)
    end_detail: Mapped[str] = mapped_column(Text, default="")
    log_path: Mapped[str] = mapped_column(Text, default="")
    neuron_backend: Mapped[str] = mapped_column(String(32), default="")
    environment_id: Mapped[str | None] = mapped_column(ForeignKey("sb_environments.id"), default=None)
    peak_memory_mb: Mapped[float | None] = mapped_column(Float, default=None)  # of the GPU
    peak_rss_mb: Mapped[float | None] = mapped_column(Float, default=None)  # of the host
    effective_batch: Mapped[int | None] = mapped_column(Integer, default=None)
    micro_batch: Mapped[int | None] = mapped_column(Integer, default=None)
    learning_rate: Mapped[float | None] = mapped_column(Float, default=None)
    seed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    deterministic: Mapped[bool | None] = mapped_column(default=None)


class EpochRow(Base):
    """One finished epoch of a trial; a repeated epoch overwrites itself with equal numbers."""

    __tablename__ = "sb_epochs"

    job_id: Mapped[int] = mapped_column(ForeignKey("sb_jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    seconds: Mapped[float] = mapped_column(Float)
    reported_at: Mapped[float] = mapped_column(Float)


class MetricRow(Base):
    """One number of one epoch."""

    __tablename__ = "sb_metrics"
    __table_args__ = (Index(None, "name", "job_id"),)

    job_id: Mapped[int] = mapped_column(ForeignKey("sb_jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class CheckpointRow(Base):
    """A checkpoint file that was complete when this row was written."""

    __tablename__ = "sb_checkpoints"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("sb_jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int]
    epoch: Mapped[int]
    step: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Float)


class WorkerRow(Base):
    """A worker process that is or was alive."""

    __tablename__ = "sb_workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    study_id: Mapped[int | None] = mapped_column(Integer, default=None)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    process_started: Mapped[float] = mapped_column(Float)  # tells a re-used pid from the same process
    device: Mapped[str] = mapped_column(String(64))
    gpu: Mapped[str | None] = mapped_column(
        String(64), default=None
    )  # its UUID: "cuda:0" is another one in a container
    gpu_memory_mb: Mapped[float | None] = mapped_column(Float, default=None)
    gpu_share_mb: Mapped[float | None] = mapped_column(Float, default=None)  # what a trial of unknown need counts for
    threads: Mapped[int]
    job_id: Mapped[int | None] = mapped_column(Integer, default=None)
    started_at: Mapped[float] = mapped_column(Float)
    last_beat: Mapped[float] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float, default=None)


class DeliveryRow(Base):
    """How far a sink (MLflow, W&B) has been given the curves of a job."""

    __tablename__ = "sb_deliveries"

    sink: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("sb_jobs.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[int] = mapped_column(default=0)
    closed: Mapped[bool] = mapped_column(default=False)
