"""The executor of this machine keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest
from contracts.executors import ExecutorContract


class TestLocalExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> dict[str, Any]:
        return {"executor": "local"}
