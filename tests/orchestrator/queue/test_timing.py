from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.queue.timing import LEASE_VARIABLE, beat_seconds, lease_seconds, reap_seconds


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    lease_seconds.cache_clear()
    yield
    lease_seconds.cache_clear()


def test_the_lease_comes_from_the_environment_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEASE_VARIABLE, raising=False)
    assert (lease_seconds(), beat_seconds(), reap_seconds()) == (60.0, 10.0, 5.0)
    lease_seconds.cache_clear()
    monkeypatch.setenv(LEASE_VARIABLE, "3")
    assert (lease_seconds(), beat_seconds()) == (3.0, 0.5)


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "nan"])
def test_a_lease_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, given)
    with pytest.raises(OrchestratorError, match=f"is '{given}': expected a positive number"):
        lease_seconds()
