"""Event-driven list scheduling on lanes that are all alike: whenever a lane is free, the ready task of highest priority
starts. O((tasks + edges) log tasks), whatever the number of lanes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Adjacency, Floats, Ints


def lanes_are_alike(problem: SchedulingProblem) -> bool:
    """Whether it makes no difference to any task on which lane it runs, or where its inputs come from."""
    arrays = problem.arrays
    return bool((arrays.times_s == arrays.times_s[:, :1]).all() and not arrays.delay_s.any())


def dispatch(
    times_s: Floats, after: Adjacency, waits: Ints, rank: Sequence[float], lanes: int
) -> tuple[list[float], list[float]]:
    """Start and end of every task. Lower `rank` starts first, ties by index; `waits[i]` counts i in `after`."""
    steps = len(times_s) + len(after.task)
    ranks = np.asarray(rank, np.float64)
    starts_s, ends_s = _dispatch(steps, times_s, after.start, after.task, waits, ranks, lanes)
    return starts_s, ends_s


@loop
def _dispatch(
    times_s: Floats, first: Ints, after: Ints, waits: Ints, rank: Floats, lanes: int
) -> tuple[list[float], list[float]]:
    n = len(times_s)
    missing = [waits[i] for i in range(n)]
    starts_s, ends_s = [0.0] * n, [0.0] * n
    ready = [(rank[i], i) for i in range(n) if missing[i] == 0]
    heapq.heapify(ready)
    running = [(0.0, i) for i in range(0)]
    free, now = lanes, 0.0
    while len(ready) > 0 or len(running) > 0:
        while len(ready) > 0 and free > 0:
            _, i = heapq.heappop(ready)
            starts_s[i] = now
            ends_s[i] = now + times_s[i]
            heapq.heappush(running, (ends_s[i], i))
            free -= 1
        now = running[0][0]
        while len(running) > 0 and running[0][0] <= now:
            _, i = heapq.heappop(running)
            free += 1
            for e in range(first[i], first[i + 1]):
                j = after[e]
                missing[j] -= 1
                if missing[j] == 0:
                    heapq.heappush(ready, (rank[j], j))
    return starts_s, ends_s


def orders_of_times(
    starts_s: Sequence[float], ends_s: Sequence[float], order: Sequence[int], lanes: int
) -> list[list[int]]:
    """Tasks of which at no time more than `lanes` run, each on the lowest lane that is free. `order` is topological: of
    two tasks that start together it tells which may be the other's predecessor."""
    tasks = np.asarray(order, np.int64)
    starts, ends = np.asarray(starts_s, np.float64)[tasks], np.asarray(ends_s, np.float64)[tasks]
    in_time = np.lexsort((ends, starts))
    lane = np.asarray(_lowest_free_lanes(len(tasks), starts[in_time], ends[in_time], lanes), np.int64)
    return [tasks[in_time[lane == k]].tolist() for k in range(lanes)]


@loop
def _lowest_free_lanes(starts_s: Floats, ends_s: Floats, lanes: int) -> list[int]:
    """The lane of each task, tasks in order of their start."""
    free = list(range(lanes))
    busy = [(0.0, k) for k in range(0)]
    until = [0.0] * lanes
    chosen = [0] * len(starts_s)
    for i in range(len(starts_s)):
        while len(busy) > 0 and busy[0][0] <= starts_s[i]:
            _, ended = heapq.heappop(busy)
            heapq.heappush(free, ended)
        # none is free for a task of no time whose plan had it run inside another one: then it runs after that
        if len(free) > 0:
            lane = heapq.heappop(free)
        else:
            _, lane = heapq.heappop(busy)
        chosen[i] = lane
        until[lane] = max(ends_s[i], until[lane])
        heapq.heappush(busy, (until[lane], lane))
    return chosen
