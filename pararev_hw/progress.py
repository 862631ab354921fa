"""Who is told, in a line for each, of the things that take time, and about how long the rest of them will."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""


def time_left(seconds: float) -> str:
    """Seconds that something will still take, as people say it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit} left"
    return f"{seconds:,.0f} s left"


class Steps:
    """Tells of the steps of something, how many of `total` there were, and from the second on how long the rest takes
    if they all take the same."""

    def __init__(self, progress: Progress, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._total, self._clock = progress, total, clock
        self._began = clock()
        self._finished = 0

    def begin(self, activity: str) -> None:
        """The next step begins."""
        done, self._finished = self._finished, self._finished + 1
        left = ""
        if 0 < done < self._total:
            left = f", {time_left((self._clock() - self._began) / done * (self._total - done))}"
        self._progress(f"{activity} ({done + 1} of {self._total}{left})")
