"""Alembic environment of our tables; the revisions are in `orchestrator/revisions`."""
