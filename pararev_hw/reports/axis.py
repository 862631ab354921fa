"""Axes of the pictures that reports draw: of time, of one logarithmic quantity, and of a sweep's values.

Ticks are round: 1, 2, 5 per decade, powers of two for bytes, fewer where they would crowd.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pararev_hw.reports import svg, sweep_phrasing, units

MOST_LOG_TICKS = 7
MOST_TICKS = 6  # of a sweep's axis
APART = 0.06  # between two ticks of a sweep's axis, a share of it


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Maps seconds between `start_s` and `end_s` to px between `left` and `right`."""

    start_s: float
    end_s: float
    left: float
    right: float

    @property
    def px_per_s(self) -> float:
        span = self.end_s - self.start_s
        return (self.right - self.left) / span if span > 0 else 0.0

    def x(self, time_s: float) -> float:
        """The px of a time; times outside the axis are held at its ends."""
        at = self.left + (time_s - self.start_s) * self.px_per_s
        return min(max(at, self.left), self.right)

    def draw(self, top: float, bottom: float) -> str:
        """Grid lines from `top` to `bottom` and the labels beneath."""
        unit, name = units.scale(self.end_s, "s")
        marks = [t for t in self._ticks() if self.start_s <= t <= self.end_s * (1 + 1e-9)]
        grid = "".join(f"M{svg.number(self.x(t))} {svg.number(top)}V{svg.number(bottom)}" for t in marks)
        ground = f"M{svg.number(self.left)} {svg.number(bottom)}H{svg.number(self.right)}"
        parts = [svg.element("path", d=grid, class_="grid"), svg.element("path", d=ground, class_="rule")]
        words = units.labels(tuple(t / unit for t in marks))
        unit_x = self.right + 4
        for t, label in zip(marks, words, strict=True):
            half = svg.text_width(label) / 2
            if self.x(t) + half <= unit_x:
                parts.append(svg.text(self.x(t), bottom + 16, label, "mid quiet"))
        parts.append(svg.text(unit_x, bottom + 16, name, "quiet"))
        return "".join(parts)

    def _ticks(self) -> tuple[float, ...]:
        span = self.end_s - self.start_s
        steps = units.ticks(span, 8)
        step = steps[1] if len(steps) > 1 else span
        if step <= 0:
            return (self.start_s,)
        first = -int(-self.start_s / step // 1) if self.start_s > 0 else 0
        return tuple(k * step for k in range(first, first + len(steps) + 1))


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Maps positive values between `low` and `high` to px between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    kind: str  # "s", "B" or "J"

    @staticmethod
    def around(values: Iterable[float], start: float, end: float, kind: str) -> LogAxis:
        """An axis that holds all the values with room to spare."""
        positive = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
        return LogAxis(min(positive) / 1.4, max(positive) * 1.4, start, end, kind)

    def px(self, value: float) -> float:
        """The px of a value; one outside the axis is held at its end."""
        clamped = min(max(value, self.low), self.high)
        share = math.log(clamped / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Round values on the axis with their labels, at most MOST_LOG_TICKS."""
        for coarse in range(8):
            if self.kind == "B":
                marks = _powers(self.low, self.high, 2.0, coarse + 1)
            else:
                marks = _powers(self.low, self.high, 10.0, max(1, coarse), (1.0, 2.0, 5.0) if coarse == 0 else (1.0,))
            if len(marks) <= MOST_LOG_TICKS:
                break
        return tuple((v, _with_unit(v, self.kind)) for v in marks)


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
            every, steps = series
            if self.unit == "B":
                values = _powers(self.low, self.high, 2.0, every)
            else:
                values = _powers(self.low, self.high, 10.0, every, steps)
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


def _powers(low: float, high: float, base: float, every: int, steps: Sequence[float] = (1.0,)) -> list[float]:
    """Multiples `steps` of the powers of the base whose exponent is a multiple of `every`, between `low` and `high`."""
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    values = [m * base**k for k in range(first, last + 1) if k % every == 0 for m in steps]
    return [v for v in values if low <= v <= high]


def _with_unit(value: float, kind: str) -> str:
    size, name = units.scale(value * (1 + 1e-9), kind)
    return f"{value / size:.4g} {name}"
