"""Which configurations nothing beats: the Pareto front of a table of costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pararev_hw.compiled import loop

JUDGES = 32  # rows with which a table is thinned out before all that are left are compared


def nondominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows [n, k] no other row beats: at least as small everywhere and smaller somewhere. Equal rows all stay."""
    n = len(costs)
    keep = np.zeros(n, np.bool_)
    order = np.lexsort(costs.T[::-1])
    if costs.shape[1] <= 2:
        ordered = costs[order]
        last = ordered[:, -1]
        before = np.concatenate(([np.inf], np.minimum.accumulate(last)[:-1]))
        same = np.zeros(n, np.bool_)
        same[1:] = (ordered[1:] == ordered[:-1]).all(1)
        better = last < before
        for k in np.flatnonzero(same):  # copies of one that stays, which stand beside it
            better[k] = better[k - 1]
        keep[order] = better
        return keep
    ordered = costs[order]
    first = np.ones(n, np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    distinct = ordered[first]  # copies share the fate of the first of them
    left = _survivors(distinct)
    unbeaten = np.zeros(len(distinct), np.bool_)
    unbeaten[left] = _unbeaten(distinct[left].size, costs.shape[1], distinct[left].reshape(-1))
    keep[order] = unbeaten[np.cumsum(first) - 1]
    return keep


def _survivors(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of a table that a few good ones do not beat, in order: of many rows hardly more than stay in the end."""
    span = np.ptp(costs, axis=0) if len(costs) else np.zeros(costs.shape[1])
    scaled = (costs - costs.min(0, initial=np.inf)) / np.where(span > 0, span, 1.0)
    left = np.argsort(scaled.sum(1), kind="stable")
    for k in range(JUDGES):
        if k >= len(left):
            break
        judge, others = costs[left[k]], costs[left]
        beaten = (others >= judge).all(1) & (others > judge).any(1)
        left = left[~beaten]
    return np.sort(left)


@loop
def _unbeaten(objectives: int, costs: NDArray[np.float64]) -> list[bool]:
    """Which rows of a table none before them beats; sorted, so that what beats a row comes before it."""
    rows = len(costs) // objectives
    keep = [True] * rows
    front = [0 for _ in range(0)]
    for row in range(rows):
        for at in range(len(front)):
            larger, smaller = False, False
            for k in range(objectives):
                difference = costs[front[at] * objectives + k] - costs[row * objectives + k]
                larger = larger or difference > 0.0
                smaller = smaller or difference < 0.0
            if smaller and not larger:
                keep[row] = False
                # what beats one row often beats the next ones: look at it first
                front[0], front[at] = front[at], front[0]
                break
        if keep[row]:
            front.append(row)
    return keep
