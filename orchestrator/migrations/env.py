"""Entry point that Alembic runs: migrate over the connection handed in by `upgrade`."""

from alembic import context

from orchestrator.migrations.upgrade import VERSION_TABLE
from orchestrator.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter columns in place
)
with context.begin_transaction():
    context.run_migrations()
