"""The spiking transformers give the numbers of the published code in float64: every file of `transformers`."""

from __future__ import annotations

from typing import Any

import pytest
from golden_transformers import check, runs


@pytest.mark.parametrize(("case", "variant", "mode"), runs())
def test_model_equals_the_published_code(case: dict[str, Any], variant: str, mode: str) -> None:
    check(case, variant, mode)
