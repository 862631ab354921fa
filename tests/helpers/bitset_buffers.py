"""Buffers where sets of bits, of the descendants of every task, tell what is ordered, as until 0.2.0."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

from pararev_hw.costmodels import buffers as counted
from pararev_hw.graph.reach import descendants
from pararev_hw.types import BlockGraph, Buffer


def bitset_buffers(graph: BlockGraph) -> tuple[Buffer, ...]:
    """The buffers of a graph's tasks; what is there throughout the step is not among them."""
    with patch.object(counted, "_ordered_ends", _ordered_ends):
        return counted.buffers(graph)


def _ordered_ends(graph: BlockGraph, users: Sequence[tuple[int, ...]]) -> list[tuple[bool, bool]]:
    """For each set of tasks whether all others must come after its first one, and before its last one. Every task of a
    set is asked: that no other can be so is part of what is checked."""
    after = descendants(len(graph.tasks), [(e.src, e.dst) for e in graph.edges])
    ends = []
    for tasks in users:
        leads = [all(after[task] >> u & 1 for u in tasks if u != task) for task in tasks]
        follows = [all(after[u] >> task & 1 for u in tasks if u != task) for task in tasks]
        assert not any(leads[1:]) and not any(follows[:-1]), tasks
        ends.append((leads[0], follows[-1]))
    return ends
