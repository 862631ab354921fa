"""How fast this machine runs Python right now.

A core that shares its units with a neighbour's thread, or whose clock changes, runs the same code at half the speed and
less, and no counter of the operating system tells. A fixed piece of work does.
"""

from __future__ import annotations

import time

from pararev_hw.measurement.clock import Run, cpu_clock

PACE = "pace_s"  # its name among the overheads of a host
_CALLS, _TRIES = 20, 3
_SLOWER = 1.15
_CLEARLY_DISTURBED = 1.2  # wall over busy time


def pace_s() -> float:
    """Seconds of this thread for a fixed number of small calls into torch, about 0.1 ms; the best of three, since the
    first finds the caches as whoever ran before left them."""
    import torch  # heavy, and only a measurement needs it

    x = torch.zeros(8)
    tries = []
    for _ in range(_TRIES):
        begun = time.thread_time()
        y = x
        for _ in range(_CALLS):
            y = torch.add(y, 1.0).view(2, 4).view(8)
        tries.append(time.thread_time() - begun)
    return min(tries)


class PacedClock:
    """The clock of a CPU at its own speed, that at which a fixed piece of Python takes `reference_s`.

    A sample before or after which it took notably longer counts as disturbed: `measure` takes another one, and where
    there are too few, the busy time is what is left after dividing by how much slower Python was at both times.
    """

    def __init__(self, reference_s: float) -> None:
        self._reference_s = reference_s
        self._last_s = pace_s()

    def __call__(self, run: Run, count: int) -> tuple[float, float]:
        wall, busy = cpu_clock(run, count)
        now = pace_s()
        last, self._last_s = self._last_s, now
        if max(last, now) < _SLOWER * self._reference_s:
            return wall, busy
        busy /= max(1.0, min(last, now) / self._reference_s)
        return max(wall, _CLEARLY_DISTURBED * busy), busy
