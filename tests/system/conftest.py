"""End whatever a test has left running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import searching


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    while searching.STARTED:
        searching.kill_group(searching.STARTED.pop())
