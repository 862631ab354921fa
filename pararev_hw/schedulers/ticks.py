"""Seconds as whole numbers, so that a solver that counts in integers can neither lose time nor gain any.

Where all times are multiples of one quantum (as they are written, in decimals), ticks are exact. Otherwise times are
rounded *down*: since floor(a + b) >= floor(a) + floor(b), every schedule in seconds is also one in ticks, with starts
rounded down, so the least makespan in ticks, times the quantum, is a bound that holds in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

EXACT_TICKS = 2**40  # a horizon of more ticks is rounded
ROUNDED_TICKS = 2**30  # to so many


@dataclass(frozen=True, slots=True)
class Ticks:
    """A quantum of time in seconds, and whether all times are multiples of it."""

    quantum_s: Fraction
    exact: bool

    def floor(self, time_s: float) -> int:
        """Whole ticks within a time."""
        return math.floor(_fraction(time_s) / self.quantum_s)

    def ceil(self, time_s: float) -> int:
        """Whole ticks that hold a time."""
        return math.ceil(_fraction(time_s) / self.quantum_s)

    def seconds(self, ticks: int) -> float:
        """A number of ticks in seconds."""
        return float(ticks * self.quantum_s)


def ticks_for(times_s: Iterable[float], horizon_s: float) -> Ticks:
    """The coarsest quantum that divides all times, or a rounded one where the horizon would take too many."""
    distinct = {_fraction(t) for t in times_s if 0 < t < math.inf}
    horizon = _fraction(horizon_s)
    quantum = Fraction(0)
    for t in sorted(distinct):
        quantum = Fraction(
            math.gcd(quantum.numerator * t.denominator, t.numerator * quantum.denominator),
            quantum.denominator * t.denominator,
        )
        if horizon > EXACT_TICKS * quantum:
            return Ticks(horizon / ROUNDED_TICKS, False)
    return Ticks(quantum or Fraction(1), True)


def _fraction(time_s: float) -> Fraction:
    """The number that is written: 0.1 is one tenth, not the binary fraction nearest to it."""
    return Fraction(repr(float(time_s)))
