"""Which tasks come after which, as sets of bits: j comes after i where bit j of `descendants(...)[i]` is 1."""

from __future__ import annotations

from collections.abc import Iterable

from pararev_hw.graph.order import first_come_order, followers


def descendants(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` tasks the set of all that must come after it, itself left out. Edges form no cycle."""
    out = followers(count, edges)
    after = [0] * count
    for i in reversed(first_come_order(out)):
        for j in out[i]:
            after[i] |= after[j] | 1 << j
    return after
