"""How long the stages of a separation take."""

from time import perf_counter
from typing import Any

import jax


class Clock:
    """Notes in `seconds`, at the end of each stage, how long it took."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds
        self._start = perf_counter()

    def __call__(self, stage: str, result: Any) -> Any:
        """The stage's result, once it is there."""
        jax.block_until_ready(result)
        now = perf_counter()
        self.seconds[stage], self._start = now - self._start, now
        return result
