"""Axes of a sweep's pictures: logarithmic where values span much, else even; names side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pararev_hw.reports import sweep_phrasing

MOST_TICKS = 6
APART = 0.06  # between two ticks, a share of the axis


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to a share 0..1 of an axis. `names` are those of an axis of names, () otherwise."""

    low: float
    high: float
    log: bool
    unit: str
    names: tuple[str, ...] = ()
    marks: tuple[float, ...] = ()  # the values themselves, where they are few

    @staticmethod
    def of(values: Sequence[Any], unit: str, pad: float = 0.0) -> Axis:
        """An axis that holds all values; `pad` is room at both ends, a share of the whole."""
        if any(isinstance(v, str) for v in values):
            names = tuple(dict.fromkeys(map(str, values)))
            return Axis(-0.5, len(names) - 0.5, False, "", tuple(sorted(names)))
        numbers = [float(v) for v in values if v is not None and math.isfinite(v)]
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        log = low > 0 and high / low >= 3
        distinct = sorted(set(numbers))
        marks = tuple(distinct) if len(distinct) <= MOST_TICKS else ()
        if low == high:
            low, high = (low / 1.5, high * 1.5) if low > 0 else (low - 1, high + 1)
            return Axis(low, high, False, unit, marks=marks)
        if log:
            room = (high / low) ** pad
            return Axis(low / room, high * room, True, unit, marks=marks)
        room = (high - low) * pad
        return Axis(low - room, high + room, False, unit, marks=marks)

    def share(self, value: Any) -> float:
        if self.names:
            value = self.names.index(value)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """(share, label), at most MOST_TICKS."""
        if self.names:
            return tuple((self.share(n), n) for n in self.names)
        ticks: list[tuple[float, str]] = []
        for v in self._round():
            if not ticks or self.share(v) - ticks[-1][0] >= APART:
                ticks.append((self.share(v), sweep_phrasing.value(v, self.unit)))
        return tuple(ticks)

    def _round(self) -> list[float]:
        if self.marks:
            return list(self.marks)
        for series in _SERIES if self.log else ():
            base = 2.0 if self.unit == "B" else 10.0
            steps = (1.0,) if self.unit == "B" else series[1]
            first, last = math.floor(math.log(self.low, base)), math.ceil(math.log(self.high, base))
            values = [m * base**k for k in range(first, last + 1) if k % series[0] == 0 for m in steps]
            values = [v for v in values if self.low <= v <= self.high]
            if 2 <= len(values) <= MOST_TICKS:
                return values
        return self._even()

    def _even(self) -> list[float]:
        raw = (self.high - self.low) / (MOST_TICKS - 2)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        values = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [0.0 if abs(v) < step * 1e-9 else v for v in values]


_SERIES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (1, (1.0, 2.0, 5.0)),
    (1, (1.0, 3.0)),
    (1, (1.0,)),
    (2, (1.0,)),
    (3, (1.0,)),
    (4, (1.0,)),
    (6, (1.0,)),
)
