"""Draw configurations from a space without a study, to see what would be trained."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from configs.schema import RunConfig
from search_spaces.space import CheckedSpace
from search_spaces.suggest import configure, suggest


class Draw:
    """Draw every parameter at random and independently, evenly on its own scale.

    Args:
        seed: the same seed gives the same values.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_float(
        self, _: str, /, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from low to high."""
        if step is not None:
            return min(high, low + step * self._random.randint(0, round((high - low) / step)))
        if log:
            return min(high, max(low, math.exp(self._random.uniform(math.log(low), math.log(high)))))
        return self._random.uniform(low, high)

    def suggest_int(self, _: str, /, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number from low to high."""
        if log:
            return min(high, max(low, round(math.exp(self._random.uniform(math.log(low), math.log(high))))))
        return self._random.randrange(low, high + 1, step)

    def suggest_categorical(self, _: str, /, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return self._random.choice(choices)


def sample(checked: CheckedSpace, n: int = 3) -> list[tuple[dict[str, Any], RunConfig]]:
    """Draw configurations at random, with the seed of the space's sampler.

    Args:
        checked: the space.
        n: how many.

    Returns:
        The parameters of each and the configuration that would be trained with them.

    Raises:
        ConfigError: drawn parameters do not fit together.
    """
    draw = Draw(checked.space.sampler.seed)
    drawn = [suggest(checked.space, draw) for _ in range(n)]
    return [(params, configure(checked, params)) for params in drawn]
