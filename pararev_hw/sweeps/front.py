"""The front as people choose from it: near copies merged, the knee over all objectives, what equals it with less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pararev_hw.sweeps.columns import Floats, Ints

MERGE = 1e-3  # points of a front this close in every objective, relative, are shown as one
EQUAL = 1e-2  # a configuration this close in every objective, relative, is as good as another


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
    by_first = np.argsort(values[:, 0], kind="stable")  # whatever is near a point lies beside it here
    first = values[by_first, 0]
    reach = 2 * MERGE * np.abs(values[:, 0])  # twice: `near` decides, and rounding must leave nothing out
    begins = np.searchsorted(first, values[:, 0] - reach, "left")
    ends = np.searchsorted(first, values[:, 0] + reach, "right")
    for k in np.lexsort((np.arange(n), hardware)):
        if not open_[k]:
            continue
        beside = by_first[begins[k] : ends[k]]
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
    stand_in = np.full(len(signed), -1, np.int64)
    for k in np.lexsort((np.arange(len(signed)), costs.sum(1))):
        if stand_in[k] >= 0:
            continue
        stand_in[k] = k
        as_good = (signed[k] <= signed + margin).all(1) & (signed[k] < signed - margin).any(1)
        stand_in[as_good & (stand_in < 0)] = k
    return stand_in


def near(values: Floats, point: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Which rows [n, k] equal the point [k] within a relative tolerance in every objective."""
    return np.asarray((np.abs(values - point) <= tolerance * np.abs(point)).all(axis=1), np.bool_)


def knee(costs: Floats) -> int:
    """The point of a front [n, k] nearest to the best of every objective, each scaled to its range on the front."""
    low, high = costs.min(0), costs.max(0)
    span = np.where(high > low, high - low, 1.0)
    return int(np.argmin((((costs - low) / span) ** 2).sum(1)))
