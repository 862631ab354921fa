"""The front as people choose from it: near copies merged, the knee over all objectives, what equals it with less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pararev_hw.sweeps.columns import Floats, Ints

MERGE = 1e-3  # points of a front this close in every objective, relative, are shown as one
BLOCK = 64  # points of a front that are looked at together
EQUAL = 1e-2  # a configuration this close in every objective, relative, is as good as another


class Blocks:
    """Points [n, k] in blocks of neighbours, so that what is asked about one point need not be asked of all others:
    halves along the widest objective, again and again."""

    def __init__(self, points: Floats, size: int = BLOCK) -> None:
        parts = [np.arange(len(points))]
        while any(len(part) > size for part in parts):
            parts = [half for part in parts for half in (_halves(points, part) if len(part) > size else (part,))]
        self._order = np.concatenate(parts)
        self._begins = np.cumsum([0, *map(len, parts)])

    def largest(self, values: Floats) -> Floats:
        """The largest of each column in each block."""
        return np.maximum.reduceat(values[self._order], self._begins[:-1], axis=0)

    def smallest(self, values: Floats) -> Floats:
        """The smallest of each column in each block."""
        return np.minimum.reduceat(values[self._order], self._begins[:-1], axis=0)

    def members(self, chosen: NDArray[np.bool_]) -> Ints:
        """The points of some blocks."""
        spans = [self._order[self._begins[b] : self._begins[b + 1]] for b in np.flatnonzero(chosen)]
        return np.concatenate(spans) if spans else self._order[:0]


def _halves(points: Floats, part: Ints) -> tuple[Ints, Ints]:
    widest = int(np.argmax(np.ptp(points[part], axis=0)))
    half = len(part) // 2
    order = part[np.argpartition(points[part, widest], half)]
    return order[:half], order[half:]


def costs_of(columns: Sequence[Floats], maximise: Sequence[bool]) -> Floats:
    """Objectives [n, k] as costs: smaller is better in each, on a logarithmic scale where all are above 0."""
    costs = []
    for values, more in zip(columns, maximise, strict=True):
        v = np.asarray(values, np.float64)
        scaled = np.log(v) if len(v) and (v > 0).all() else v
        costs.append(-scaled if more else scaled)
    return np.column_stack(costs)


def merged(columns: Sequence[Floats], hardware: Floats) -> tuple[Ints, Ints]:
    """Representatives of groups of points that are alike, and how many points each stands for.

    `columns` are objectives, `hardware` how much chip each point takes: the least of a group stands for it.
    """
    values = np.column_stack(columns)
    n = len(values)
    open_ = np.ones(n, np.bool_)
    chosen, counts = [], []
    blocks = Blocks(values)
    low, high = blocks.smallest(values), blocks.largest(values)
    reach = 2 * MERGE * np.abs(values)  # twice: `near` decides, and rounding must leave nothing out
    for k in np.lexsort((np.arange(n), hardware)):
        if not open_[k]:
            continue
        beside = blocks.members(((low <= values[k] + reach[k]) & (high >= values[k] - reach[k])).all(1))
        alike = beside[open_[beside] & near(values[beside], values[k], MERGE)]
        open_[alike] = False
        chosen.append(int(k))
        counts.append(len(alike))
    return np.array(chosen, np.int64), np.array(counts, np.int64)


def stand_ins(columns: Sequence[Floats], maximise: Sequence[bool]) -> Ints:
    """For each point of a front the one that stands for it: one as good within EQUAL in every objective that takes
    more than EQUAL less of one of them, and that nothing else stands for; or the point itself."""
    costs = costs_of(columns, maximise)
    signed = np.column_stack([-v if more else v for v, more in zip(columns, maximise, strict=True)]).astype(np.float64)
    margin = EQUAL * np.abs(signed)
    no_worse, better = signed + margin, signed - margin
    blocks = Blocks(costs)
    most, least = blocks.largest(no_worse), blocks.largest(better)
    stand_in = np.full(len(signed), -1, np.int64)
    for k in np.lexsort((np.arange(len(signed)), costs.sum(1))):
        if stand_in[k] >= 0:
            continue
        stand_in[k] = k
        others = blocks.members((signed[k] <= most).all(1) & (signed[k] < least).any(1))
        as_good = (signed[k] <= no_worse[others]).all(1) & (signed[k] < better[others]).any(1)
        stand_in[others[as_good & (stand_in[others] < 0)]] = k
    return stand_in


def near(values: Floats, point: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Which rows [n, k] equal the point [k] within a relative tolerance in every objective."""
    return np.asarray((np.abs(values - point) <= tolerance * np.abs(point)).all(axis=1), np.bool_)


def knee(costs: Floats) -> int:
    """The point of a front [n, k] nearest to the best of every objective, each scaled to its range on the front."""
    low, high = costs.min(0), costs.max(0)
    span = np.where(high > low, high - low, 1.0)
    return int(np.argmin((((costs - low) / span) ** 2).sum(1)))
