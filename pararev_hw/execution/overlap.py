"""How far lanes really ran side by side."""

from __future__ import annotations

from collections.abc import Sequence

Interval = tuple[float, float]


def side_by_side(lanes: Sequence[Sequence[Interval]]) -> tuple[float, float]:
    """Seconds during which at least one lane was busy, and during which at least two were.

    Each lane is a list of (start, end); intervals of one lane may touch and overlap, and count once.
    """
    changes = sorted((t, sign) for lane in lanes for a, b in _merged(lane) for t, sign in ((a, 1), (b, -1)))
    any_s = both_s = 0.0
    busy, last = 0, 0.0
    for t, sign in changes:
        any_s += (t - last) * (busy >= 1)
        both_s += (t - last) * (busy >= 2)
        busy, last = busy + sign, t
    return any_s, both_s


def _merged(lane: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for a, b in sorted(lane):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged
