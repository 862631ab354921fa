"""When a search has to be over, by the wall clock: it is handed down to all that the search calls."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pararev_hw.compiled import compile_while

LEAST_S = 0.02  # processor seconds from which on they tell what share of a core this process is given


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock; without one, never. `began_s` and `worked_s` are that clock and the process's
    processor time when it was set."""

    at_s: float = math.inf
    began_s: float = 0.0
    worked_s: float = 0.0

    def left_s(self) -> float:
        return self.at_s - time.monotonic()

    def passed(self) -> bool:
        return self.at_s < math.inf and self.left_s() <= 0

    def affords(self, processor_s: float) -> bool:
        """Whether so much work fits in, if this process goes on to be given the share of a core that it had so far."""
        if self.at_s == math.inf:
            return True
        worked_s, gone_s = time.process_time() - self.worked_s, time.monotonic() - self.began_s
        slowdown = max(1.0, gone_s / worked_s) if worked_s > LEAST_S else 1.0
        return processor_s * slowdown < self.left_s()

    def part(self, share: float) -> Deadline:
        """The moment when this share of the time that is left now will have gone."""
        if self.at_s == math.inf:
            return self
        return replace(self, at_s=self.at_s - (1 - share) * max(0.0, self.left_s()))


NEVER = Deadline()


def deadline_in(seconds: float | None) -> Deadline:
    """So many seconds from now; None: never."""
    if seconds is None:
        return NEVER
    now_s = time.monotonic()
    return Deadline(now_s + seconds, now_s, time.process_time())


@contextmanager
def meeting(deadline: Deadline) -> Iterator[Deadline]:
    """Inside, loops are compiled, or loaded where they were compiled before, only while there is time for it."""
    with compile_while(deadline.affords):
        yield deadline
