"""Fixtures of the orchestrator's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.storage.database import Database, open_database


@pytest.fixture
def local(sqlite_url: str) -> Iterator[Database]:
    """An open SQLite database with our tables, for what does not depend on the kind of database."""
    opened = open_database(sqlite_url, create=True)
    yield opened
    opened.engine.dispose()
