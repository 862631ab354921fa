"""The order on each lane of a schedule, with a wait exactly where an edge crosses lanes.

A wait that another one implies is left out: what lane k has waited for, and everything that was known to be done when
that ended, need not be waited for again (vector clocks, Mattern 1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import BlockGraph


@dataclass(frozen=True, slots=True)
class Slot:
    """A task of a lane: it starts after the tasks in `waits`, and its end is signalled to the lanes in `signals`."""

    task: int
    waits: tuple[int, ...] = ()  # tasks on other lanes
    signals: tuple[int, ...] = ()  # lanes


def lane_slots(graph: BlockGraph, orders: Sequence[Sequence[int]]) -> tuple[tuple[Slot, ...], ...]:
    """What each lane does, lane orders given. Raises IllegalSchedule where lanes would wait for each other for ever."""
    lane_of = {task: k for k, order in enumerate(orders) for task in order}
    position = {task: n for order in orders for n, task in enumerate(order)}
    before: list[list[int]] = [[] for _ in graph.tasks]
    for e in graph.edges:
        before[e.dst].append(e.src)
    surely_done: dict[int, list[int]] = {}  # by task: of each lane, how many tasks are surely done when it ends
    waits: dict[int, tuple[int, ...]] = {}
    now = [[0] * len(orders) for _ in orders]
    at = [0] * len(orders)
    rank: dict[int, int] = {}
    while len(surely_done) < len(lane_of):
        moved = False
        for k, order in enumerate(orders):
            while at[k] < len(order) and all(j in surely_done for j in before[order[at[k]]]):
                task, clock, needed = order[at[k]], now[k], []
                for j in sorted(before[task], key=lambda j: -rank[j]):
                    if lane_of[j] != k and clock[lane_of[j]] <= position[j]:
                        needed.append(j)
                        clock[:] = map(max, clock, surely_done[j])
                at[k] += 1
                clock[k] = at[k]
                waits[task], surely_done[task], rank[task] = tuple(needed), list(clock), len(surely_done)
                moved = True
        if not moved:
            stuck = [graph.tasks[order[n]].id for order, n in zip(orders, at, strict=True) if n < len(order)]
            raise IllegalSchedule(f"the lanes would wait for each other for ever: {', '.join(map(repr, stuck))}")
    signals: dict[int, list[int]] = {}
    for task, needed_tasks in waits.items():
        for j in needed_tasks:
            signals.setdefault(j, []).append(lane_of[task])
    return tuple(tuple(Slot(t, waits[t], tuple(sorted(signals.get(t, ())))) for t in order) for order in orders)
