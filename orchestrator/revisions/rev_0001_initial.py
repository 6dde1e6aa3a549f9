"""Create the tables of studies, jobs and curves."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "sb_environments",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("git_commit", sa.String(length=64), nullable=True),
        sa.Column("git_dirty_hash", sa.String(length=64), nullable=True),
        sa.Column("python", sa.String(length=32), nullable=False),
        sa.Column("torch", sa.String(length=64), nullable=False),
        sa.Column("packages", sa.JSON(), nullable=False),
        sa.Column("device_name", sa.String(length=255), nullable=False),
        sa.Column("driver", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sb_environments")),
    )
    op.create_table(
        "sb_studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("optuna_study_id", sa.Integer(), nullable=False),
        sa.Column("space_json", sa.Text(), nullable=False),
        sa.Column("space_hash", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("budget_trials", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("controller", sa.String(length=255), nullable=True),
        sa.Column("controller_lease_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sb_studies")),
        sa.UniqueConstraint("name", name=op.f("uq_sb_studies_name")),
    )
    op.create_table(
        "sb_workers",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.Float(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("last_beat", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sb_workers")),
    )
    op.create_table(
        "sb_jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial_number", sa.Integer(), nullable=False),
        sa.Column("optuna_trial_id", sa.Integer(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_hash", sa.String(length=64), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("trainer", sa.String(length=255), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("run_dir", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("verdict_reason", sa.String(length=16), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("end_reason", sa.String(length=16), nullable=True),
        sa.Column("end_detail", sa.Text(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["sb_studies.id"], name=op.f("fk_sb_jobs_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sb_jobs")),
    )
    with op.batch_alter_table("sb_jobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sb_jobs_state_priority_id"), ["state", "priority", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_sb_jobs_study_id_told"), ["study_id", "told"], unique=False)
        batch_op.create_index(batch_op.f("ix_sb_jobs_study_id_trial_number"), ["study_id", "trial_number"], unique=True)

    op.create_table(
        "sb_attempts",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("resumed_epoch", sa.Integer(), nullable=False),
        sa.Column("end_reason", sa.String(length=16), nullable=True),
        sa.Column("end_detail", sa.Text(), nullable=False),
        sa.Column("log_path", sa.Text(), nullable=False),
        sa.Column("neuron_backend", sa.String(length=32), nullable=False),
        sa.Column("environment_id", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["sb_environments.id"], name=op.f("fk_sb_attempts_environment_id")),
        sa.ForeignKeyConstraint(["job_id"], ["sb_jobs.id"], name=op.f("fk_sb_attempts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_sb_attempts")),
    )
    op.create_table(
        "sb_checkpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["sb_jobs.id"], name=op.f("fk_sb_checkpoints_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sb_checkpoints")),
    )
    with op.batch_alter_table("sb_checkpoints", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sb_checkpoints_job_id"), ["job_id"], unique=False)

    op.create_table(
        "sb_deliveries",
        sa.Column("sink", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["sb_jobs.id"], name=op.f("fk_sb_deliveries_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sink", "job_id", name=op.f("pk_sb_deliveries")),
    )
    op.create_table(
        "sb_epochs",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("reported_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["sb_jobs.id"], name=op.f("fk_sb_epochs_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("pk_sb_epochs")),
    )
    op.create_table(
        "sb_metrics",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["sb_jobs.id"], name=op.f("fk_sb_metrics_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "epoch", "name", name=op.f("pk_sb_metrics")),
    )
    with op.batch_alter_table("sb_metrics", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sb_metrics_name_job_id"), ["name", "job_id"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    with op.batch_alter_table("sb_metrics", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sb_metrics_name_job_id"))

    op.drop_table("sb_metrics")
    op.drop_table("sb_epochs")
    op.drop_table("sb_deliveries")
    with op.batch_alter_table("sb_checkpoints", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sb_checkpoints_job_id"))

    op.drop_table("sb_checkpoints")
    op.drop_table("sb_attempts")
    with op.batch_alter_table("sb_jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sb_jobs_study_id_trial_number"))
        batch_op.drop_index(batch_op.f("ix_sb_jobs_study_id_told"))
        batch_op.drop_index(batch_op.f("ix_sb_jobs_state_priority_id"))

    op.drop_table("sb_jobs")
    op.drop_table("sb_workers")
    op.drop_table("sb_studies")
    op.drop_table("sb_environments")
