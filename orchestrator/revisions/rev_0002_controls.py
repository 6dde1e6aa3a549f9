"""Add what placement and provenance need: shapes and peaks of memory, batch, seed, versions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def added() -> dict[str, list[sa.Column[Any]]]:
    """Return the new columns of each table; a column belongs to one use, so they are made anew each time."""
    return {
        "sb_attempts": [
            sa.Column("peak_memory_mb", sa.Float(), nullable=True),
            sa.Column("peak_rss_mb", sa.Float(), nullable=True),
            sa.Column("effective_batch", sa.Integer(), nullable=True),
            sa.Column("micro_batch", sa.Integer(), nullable=True),
            sa.Column("learning_rate", sa.Float(), nullable=True),
            sa.Column("seed", sa.BigInteger(), nullable=True),
            sa.Column("deterministic", sa.Boolean(), nullable=True),
        ],
        "sb_environments": [
            sa.Column("platform", sa.String(length=255), nullable=True),
            sa.Column("cuda", sa.String(length=32), nullable=True),
            sa.Column("cudnn", sa.String(length=64), nullable=True),
        ],
        "sb_jobs": [
            sa.Column("shape_hash", sa.String(length=64), nullable=False, server_default=""),
            sa.Column("micro_batch_halvings", sa.Integer(), nullable=False, server_default="0"),
        ],
        "sb_workers": [
            sa.Column("gpu", sa.String(length=64), nullable=True),
            sa.Column("gpu_memory_mb", sa.Float(), nullable=True),
            sa.Column("gpu_share_mb", sa.Float(), nullable=True),
        ],
    }


def upgrade() -> None:
    """Add the columns."""
    for table, columns in added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(op.f("ix_sb_jobs_shape_hash"), "sb_jobs", ["shape_hash"], unique=False)


def downgrade() -> None:
    """Drop them again."""
    op.drop_index(op.f("ix_sb_jobs_shape_hash"), "sb_jobs")
    for table, columns in added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
