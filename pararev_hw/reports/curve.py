"""Thinning of a memory curve for drawing: fewer points, the same first and last, and never without its peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pararev_hw.types import ROLES, MemoryCurve


@dataclass(frozen=True)
class Steps:
    """Live bytes by role: `bytes[role][k]` from `starts_s[k]` until the next start, the last until `end_s`."""

    starts_s: tuple[float, ...]
    end_s: float
    bytes: Mapping[str, tuple[int, ...]]

    @cached_property
    def total(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*self.bytes.values(), strict=True)))

    @cached_property
    def peak(self) -> int:
        """Index of the first step that reaches the peak."""
        total = self.total
        return total.index(max(total))


def steps(curve: MemoryCurve, end_s: float) -> Steps | None:
    """The curve as steps, roles in their usual order; None where it holds no point. A curve whose last time has no
    bytes of its own ends there, any other at `end_s`."""
    count = min((len(live) for live in curve.bytes.values()), default=0)
    starts = curve.times_s[:count]
    if not starts:
        return None
    end = curve.times_s[count] if len(curve.times_s) > count else max(end_s, starts[-1])
    order = sorted(curve.bytes, key=lambda role: (ROLES.index(role) if role in ROLES else len(ROLES), role))
    return Steps(starts, end, {role: tuple(curve.bytes[role][: len(starts)]) for role in order})


def thin(curve: Steps, most: int) -> Steps:
    """At most `most` (>= 4) steps: of each stretch of the time the lowest and the highest total, so no peak is lost."""
    count = len(curve.starts_s)
    if count <= most:
        return curve
    total = curve.total
    stretches = (most - 2) // 2
    extremes = {0, count - 1}
    for k in range(stretches):
        inside = range(k * count // stretches, (k + 1) * count // stretches)
        extremes |= {min(inside, key=total.__getitem__), max(inside, key=total.__getitem__)}
    chosen = sorted(extremes)
    return Steps(
        tuple(curve.starts_s[k] for k in chosen),
        curve.end_s,
        {r: _take(live, chosen) for r, live in curve.bytes.items()},
    )


def _take(values: Sequence[int], chosen: Sequence[int]) -> tuple[int, ...]:
    return tuple(values[k] for k in chosen)
