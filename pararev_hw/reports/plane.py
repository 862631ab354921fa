"""The plane of peak memory (across) and latency (upwards) in which fronts are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pararev_hw.reports import svg, units
from pararev_hw.types import Prediction

LEFT, MARGIN, HEIGHT = 84.0, 34.0, 300.0
RADIUS = 5.0


@dataclass(frozen=True, slots=True)
class Plane:
    """Maps bytes between `first` and `last`, and seconds up to `slowest`, to px."""

    first: float
    last: float
    slowest: float
    top: float
    right: float

    @staticmethod
    def around(points: Sequence[Prediction], top: float, width: float) -> Plane:
        """A plane that holds all the points with room to spare."""
        low, high = min(p.peak_bytes for p in points), max(p.peak_bytes for p in points)
        room = max(0.08 * (high - low), 0.02 * high, 1.0)  # what differs by less than a few percent lies together
        slowest = max(p.latency_s for p in points) * 1.1
        return Plane(max(0.0, low - room), high + room, slowest, top, width - MARGIN)

    @property
    def bottom(self) -> float:
        return self.top + HEIGHT

    def x(self, size: float) -> float:
        """The px of a number of bytes."""
        return LEFT + (size - self.first) / (self.last - self.first) * (self.right - LEFT)

    def y(self, time_s: float) -> float:
        """The px of a latency."""
        return self.top + HEIGHT * (1 - time_s / self.slowest) if self.slowest > 0 else self.bottom

    def line(self, points: Iterable[Prediction]) -> str:
        """The path through the points."""
        n = svg.number
        return "".join(
            f"{'L' if k else 'M'}{n(self.x(p.peak_bytes))} {n(self.y(p.latency_s))}" for k, p in enumerate(points)
        )

    def axes(self) -> str:
        """Both axes with their ticks and names."""
        return self._times() + self._sizes()

    def _times(self) -> str:
        unit, name = units.scale(self.slowest, "s")
        marks = units.ticks(self.slowest / unit, 5)
        parts = [svg.text(LEFT, self.top - 16, f"latency of the step, {name}", "quiet")]
        for mark, label in zip(marks, units.labels(marks), strict=True):
            y = self.y(mark * unit)
            parts.append(svg.element("path", d=f"M{LEFT} {svg.number(y)}H{svg.number(self.right)}", class_="grid"))
            parts.append(svg.text(LEFT - 8, y + 4, label, "end quiet"))
        return "".join(parts)

    def _sizes(self) -> str:
        unit, name = units.scale(self.last, "B")
        span = (self.last - self.first) / unit
        step = units.ticks(span, 6)[1] if span > 0 else 1.0
        first, last = int(self.first / unit / step) + 1, int(self.last / unit / step)
        ticks = tuple(step * n for n in range(first, last + 1))
        parts = []
        for mark, label in zip(ticks, units.labels(ticks) if len(ticks) > 1 else map(str, ticks), strict=True):
            x = self.x(mark * unit)
            parts.append(svg.element("path", d=f"M{svg.number(x)} {svg.number(self.bottom)}v4", class_="rule"))
            parts.append(svg.text(x, self.bottom + 18, label, "mid quiet"))
        ground = f"M{LEFT} {svg.number(self.bottom)}H{svg.number(self.right)}"
        parts.append(svg.element("path", d=ground, class_="rule"))
        parts.append(svg.text(self.right, self.bottom + 36, f"peak memory, {name}", "end quiet"))
        return "".join(parts)
