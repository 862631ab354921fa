"""The front as people choose from it: near copies merged, the knee over all objectives, what equals it with less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pararev_hw.compiled import loop, part
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
        self.order = np.concatenate(parts)
        self.begins = np.cumsum([0, *map(len, parts)])

    def largest(self, values: Floats) -> Floats:
        """The largest of each column in each block."""
        return np.maximum.reduceat(values[self.order], self.begins[:-1], axis=0)


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
    values = np.column_stack(columns).astype(np.float64)
    reach = 2 * MERGE * np.abs(values)  # twice: the loop decides, and rounding must leave nothing out
    by = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, by, axis=0)
    begins, ends = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int64)
    for c in range(values.shape[1]):
        begins[:, c] = np.searchsorted(ordered[:, c], values[:, c] - reach[:, c], "left")
        ends[:, c] = np.searchsorted(ordered[:, c], values[:, c] + reach[:, c], "right")
    beside = (ends - begins).sum(0)
    along = int(beside.argmin())  # the objective in which points have the fewest neighbours
    order = np.lexsort((np.arange(len(values)), hardware))
    spans = np.ascontiguousarray(begins[:, along]), np.ascontiguousarray(ends[:, along])
    by_along = np.ascontiguousarray(by[:, along])
    chosen, counts = _groups(int(beside[along]), MERGE, values.shape[1], values.reshape(-1), order, by_along, *spans)
    return np.array(chosen, np.int64), np.array(counts, np.int64)


@loop
def _groups(
    tolerance: float, objectives: int, values: Floats, order: Ints, by: Ints, begins: Ints, ends: Ints
) -> tuple[list[int], list[int]]:
    """Points in `order` with those beside them that no point before has taken; `by[begins[k]:ends[k]]` may be beside
    point k."""
    taken = [False] * len(order)
    chosen, counts = list(range(0)), list(range(0))
    for k in order:
        if taken[k]:
            continue
        count = 0
        for at in range(begins[k], ends[k]):
            j = by[at]
            alike = not taken[j]
            for c in range(objectives):
                centre = values[k * objectives + c]
                alike = alike and abs(values[j * objectives + c] - centre) <= tolerance * abs(centre)
            if alike:
                taken[j] = True
                count += 1
        chosen.append(int(k))
        counts.append(count)
    return chosen, counts


def stand_ins(columns: Sequence[Floats], maximise: Sequence[bool], first: int | None = None) -> Ints:
    """For each point of a front the one that stands for it: one as good within EQUAL in every objective that takes
    more than EQUAL less of one of them, and that nothing else stands for; or the point itself. `first` stays."""
    costs = costs_of(columns, maximise)
    signed = signed_of(columns, maximise)
    margin = EQUAL * np.abs(signed)
    no_worse, better = signed + margin, signed - margin
    blocks = Blocks(costs)
    bounds = blocks.largest(no_worse).reshape(-1), blocks.largest(better).reshape(-1)
    order = np.lexsort((np.arange(len(signed)), costs.sum(1), np.arange(len(signed)) != first))
    points = signed.reshape(-1), no_worse.reshape(-1), better.reshape(-1)
    steps = len(signed) * len(blocks.begins)
    return np.array(_stand_ins(steps, signed.shape[1], *points, *bounds, order, blocks.order, blocks.begins), np.int64)


@part
def _outdoes(objectives: int, signed: Floats, k: int, no_worse: Floats, better: Floats, j: int) -> bool:
    """Whether row k of `signed` is nowhere above row j of `no_worse`, and somewhere below that of `better`."""
    less = False
    for c in range(objectives):
        value = signed[k * objectives + c]
        if value > no_worse[j * objectives + c]:
            return False
        less = less or value < better[j * objectives + c]
    return less


@loop
def _stand_ins(
    objectives: int,
    signed: Floats,
    no_worse: Floats,
    better: Floats,
    most: Floats,
    least: Floats,
    order: Ints,
    members: Ints,
    begins: Ints,
) -> list[int]:
    """For each point the first one in `order` that outdoes it, of those for which none stands, or itself. Block b has
    `members[begins[b]:begins[b + 1]]`, and `most` and `least` are the largest `no_worse` and `better` in it."""
    stand_in = [-1] * len(order)
    for k in order:
        if stand_in[k] >= 0:
            continue
        stand_in[k] = k
        for b in range(len(begins) - 1):
            if _outdoes(objectives, signed, k, most, least, b):
                for at in range(begins[b], begins[b + 1]):
                    j = members[at]
                    if stand_in[j] < 0 and _outdoes(objectives, signed, k, no_worse, better, j):
                        stand_in[j] = k
    return stand_in


def signed_of(columns: Sequence[Floats], maximise: Sequence[bool]) -> Floats:
    """Objectives [n, k], smaller is better in each."""
    return np.column_stack([-v if more else v for v, more in zip(columns, maximise, strict=True)]).astype(np.float64)


def outdone(signed: Floats, rivals: Floats) -> NDArray[np.bool_]:
    """Which rows [n, k] one of the rivals [m, k] equals within EQUAL in every objective, with more than EQUAL less of
    one."""
    margin = EQUAL * np.abs(signed)
    no_worse, better = signed + margin, signed - margin
    lost = np.zeros(len(signed), np.bool_)
    for rival in rivals:
        lost |= (rival <= no_worse).all(1) & (rival < better).any(1)
    return lost


def unequalled_near(signed: Floats, start: Floats) -> Floats:
    """A point [k] near `start` that no row [n, k] outdoes: from each to the row that outdoes it with the least of all
    objectives together, as long as these are others."""
    point, passed = start, {tuple(start)}
    while True:
        margin = EQUAL * np.abs(point)
        others = signed[(signed <= point + margin).all(1) & (signed < point - margin).any(1)]
        if not len(others):
            return point
        point = np.asarray(others[int((others / np.where(point == 0, 1.0, np.abs(point))).sum(1).argmin())], np.float64)
        if tuple(point) in passed:
            return point
        passed.add(tuple(point))


def near(values: Floats, point: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Which rows [n, k] equal the point [k] within a relative tolerance in every objective."""
    return np.asarray((np.abs(values - point) <= tolerance * np.abs(point)).all(axis=1), np.bool_)


def knee(costs: Floats) -> int:
    """The point of a front [n, k] nearest to the best of every objective, each scaled to its range on the front."""
    low, high = costs.min(0), costs.max(0)
    span = np.where(high > low, high - low, 1.0)
    return int(np.argmin((((costs - low) / span) ** 2).sum(1)))
