"""Event-driven list scheduling on lanes that are all alike: whenever a lane is free, the ready task of highest priority
starts. O((tasks + edges) log tasks), whatever the number of lanes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from pararev_hw.types import SchedulingProblem


def lanes_are_alike(problem: SchedulingProblem) -> bool:
    """Whether it makes no difference to any task on which lane it runs, or where its inputs come from."""
    return all(len(set(c.times_s)) == 1 for c in problem.tasks) and not any(e.delay_s for e in problem.edges)


def dispatch(
    times_s: Sequence[float], out: Sequence[Sequence[int]], waits: Sequence[int], rank: Sequence[float], lanes: int
) -> tuple[list[float], list[float]]:
    """Start and end of every task. Lower `rank` starts first, ties by index; `waits[i]` counts i in `out`."""
    push, pop = heapq.heappush, heapq.heappop
    missing = list(waits)
    starts_s, ends_s = [0.0] * len(missing), [0.0] * len(missing)
    ready = [(rank[i], i) for i, m in enumerate(missing) if m == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    free, now = lanes, 0.0
    while ready or running:
        while ready and free:
            _, i = pop(ready)
            starts_s[i] = now
            ends_s[i] = end = now + times_s[i]
            push(running, (end, i))
            free -= 1
        now = running[0][0]
        while running and running[0][0] <= now:
            _, i = pop(running)
            free += 1
            for j in out[i]:
                missing[j] -= 1
                if missing[j] == 0:
                    push(ready, (rank[j], j))
    return starts_s, ends_s


def lane_orders(
    starts_s: Sequence[float], ends_s: Sequence[float], order: Sequence[int], lanes: int
) -> list[list[int]]:
    """Tasks of which at no time more than `lanes` run, each on the lowest lane that is free. `order` is topological: of
    two tasks that start together it tells which may be the other's predecessor."""
    free, busy = list(range(lanes)), list[tuple[float, int]]()
    orders: list[list[int]] = [[] for _ in range(lanes)]
    until = [0.0] * lanes
    for i in sorted(order, key=lambda i: (starts_s[i], ends_s[i])):
        while busy and (busy[0][0] <= starts_s[i]):
            heapq.heappush(free, heapq.heappop(busy)[1])
        # none is free for a task of no time whose plan had it run inside another one: then it runs after that
        lane = heapq.heappop(free) if free else heapq.heappop(busy)[1]
        orders[lane].append(i)
        heapq.heappush(busy, (max(ends_s[i], until[lane]), lane))
        until[lane] = max(ends_s[i], until[lane])
    return orders
