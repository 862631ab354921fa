"""How fast this machine runs Python right now.

A core that shares its units with a neighbour's thread, or whose clock changes, runs the same code at half the speed and
less, and no counter of the operating system tells. A fixed piece of work does.
"""

from __future__ import annotations

import time

from pararev_hw.measurement.clock import Clock, Run, cpu_clock

PACE = "pace_s"  # its name among the overheads of a host
_CALLS, _TRIES, _LOOKS = 20, 3, 40
NOTABLY_SLOWER = 1.15
USUAL_EXPONENT = 0.4  # to which power of Python's slowness ops slow down: products 0.15, convolutions 0.3, views 0.7
_CLEARLY_DISTURBED = 1.2  # wall over busy time


def call_s(pace_s: float) -> float:
    """What a step spends on calling one op on a machine of that pace: as much as on one of the piece's rounds, whose
    three calls find their code in the caches."""
    return pace_s / _CALLS


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


def typical_pace_s() -> float:
    """What the fixed piece of Python takes at this machine's own speed: the median of the faster half of its runs."""
    paces = sorted(pace_s() for _ in range(_LOOKS))
    return paces[_LOOKS // 4]


class PacedClock:
    """The clock of a CPU at its own speed, that at which a fixed piece of Python takes `reference_s`.

    A sample before or after which it took notably longer counts as disturbed: `measure` takes another one, and where
    there are too few, the busy time is what is left after dividing by how much slower Python was at both times, to the
    power of `exponent`: arithmetic slows down less than Python does.
    """

    def __init__(self, reference_s: float, exponent: float = USUAL_EXPONENT) -> None:
        self._reference_s = reference_s
        self._exponent = exponent
        self._last_s = pace_s()

    def __call__(self, run: Run, count: int) -> tuple[float, float]:
        wall, busy = cpu_clock(run, count)
        now = pace_s()
        last, self._last_s = self._last_s, now
        if max(last, now) < NOTABLY_SLOWER * self._reference_s:
            return wall, busy
        busy /= max(1.0, min(last, now) / self._reference_s) ** self._exponent
        return max(wall, _CLEARLY_DISTURBED * busy), busy


class PaceLog:
    """A clock that keeps what the fixed piece of Python took before each of its measurements."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.paces_s: list[float] = []

    def __call__(self, run: Run, count: int) -> tuple[float, float]:
        self.paces_s.append(pace_s())
        return self._clock(run, count)
