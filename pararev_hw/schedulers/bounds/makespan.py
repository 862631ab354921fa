"""Times that no schedule of a problem can beat.

All but the first are one relaxation: a machine that serves one task at a time and may interrupt it. With the earliest
possible start (head) and the shortest possible rest (tail) of every task it has an exact answer, the largest of
`min head + sum of work + min tail` over all sets of tasks, found in O(n log n) by serving the longest tail first
(J. R. Jackson's preemptive schedule; J. Carlier, 1982, doi 10.1016/S0377-2217(82)80007-6). M lanes serve no more than
one machine that is M times as fast.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from pararev_hw.graph.order import first_come_order, followers
from pararev_hw.schedulers.bounds.memory import area_bound, excluding_sets
from pararev_hw.schedulers.bounds.overlap import pairing_bound
from pararev_hw.schedulers.buffer_table import holding
from pararev_hw.types import SchedulingProblem

MAX_LANE_SETS = 32  # sets of lanes that are looked at one by one; each costs O(n log n)


def lower_bound(problem: SchedulingProblem) -> tuple[float, str]:
    """The best of the bounds in seconds, and what sets it; (0.0, "nothing to do") for a problem without work.

    Heads and tails take each task's best time and no communication. On a tie the name that comes first below wins.
    """
    works = [c.best_s for c in problem.tasks]
    heads, tails = heads_and_tails(problem, works)
    everything = range(len(works))
    best_s, bound_by = 0.0, "nothing to do"
    for bound_s, name in (
        (max((h + w + t for h, w, t in zip(heads, works, tails, strict=True)), default=0.0), "critical path"),
        (sum(works) / problem.lanes, "work over lanes"),
        *_lane_bounds(problem, works, heads, tails),
        *(
            (_machine(everything, heads, [w * d for w, d in zip(works, demand, strict=True)], tails), name)
            for demand, name in (
                ([c.compute_demand for c in problem.tasks], "shared compute"),
                ([c.bandwidth_demand for c in problem.tasks], "shared bandwidth"),
            )
            if any(demand)
        ),
        *_host_bound(problem, tails),
        *_memory_bounds(problem, works, heads, tails),
        *_pairing_bound(problem),
    ):
        if bound_s > best_s * (1 + 1e-12):  # a bound that only rounds higher does not take the name
            best_s, bound_by = bound_s, name
    return _whole(problem, best_s), bound_by


def _whole(problem: SchedulingProblem, bound_s: float) -> float:
    """Where every time is a multiple of some whole number, and nothing stretches tasks, so is every makespan."""
    step = 0
    for c in problem.tasks:
        if c.compute_demand or c.bandwidth_demand or c.host_s:
            return bound_s
        for time_s in c.times_s[:1] if len(set(c.times_s)) == 1 else c.times_s:
            if time_s < math.inf:
                if time_s != int(time_s) or time_s > 2**50:
                    return bound_s
                step = math.gcd(step, int(time_s))
    for e in problem.edges:
        if e.delay_s != int(e.delay_s):
            return bound_s
        step = math.gcd(step, int(e.delay_s))
    return float(step * math.ceil(bound_s / step * (1 - 1e-12))) if step else bound_s


def heads_and_tails(problem: SchedulingProblem, works: Sequence[float]) -> tuple[list[float], list[float]]:
    """The longest path into and out of each task in the times `works`, without its own time."""
    n = len(works)
    out = followers(n, ((e.src, e.dst) for e in problem.edges))
    order = first_come_order(out)
    heads, tails = [0.0] * n, [0.0] * n
    for i in order:
        end = heads[i] + works[i]
        for j in out[i]:
            heads[j] = max(heads[j], end)
    for i in reversed(order):
        tails[i] = max([tails[j] + works[j] for j in out[i]], default=0.0)
    return heads, tails


def _lane_bounds(
    problem: SchedulingProblem, works: list[float], heads: list[float], tails: list[float]
) -> Iterable[tuple[float, str]]:
    """For each set of lanes that some task is confined to: everything confined to it, served by those lanes only."""
    confined: dict[tuple[int, ...], list[int]] = {}
    cache: dict[tuple[float, ...], tuple[int, ...]] = {}  # many tasks share their times
    for i, c in enumerate(problem.tasks):
        if c.times_s not in cache:
            cache[c.times_s] = tuple(k for k, t in enumerate(c.times_s) if t < math.inf)
        confined.setdefault(cache[c.times_s], []).append(i)
    whole = tuple(range(problem.lanes))
    confined.setdefault(whole, [])
    busiest = sorted(confined, key=lambda s: (-sum(works[i] for i in confined[s]) / len(s), s))
    for lanes in busiest[:MAX_LANE_SETS]:
        inside = set(lanes)
        members = [i for s, tasks in confined.items() if inside.issuperset(s) for i in tasks]
        shared = [works[i] / len(lanes) for i in range(len(works))]
        name = "head-body-tail" if lanes == whole else f"work on lane {', '.join(map(str, lanes))}"
        yield _machine(members, heads, shared, tails), name


def _host_bound(problem: SchedulingProblem, tails: list[float]) -> Iterable[tuple[float, str]]:
    """The host issues everything, and what is issued last still has its tail before it."""
    host = [c.host_s for c in problem.tasks]
    if any(host):
        issued = [i for i, h in enumerate(host) if h > 0]
        yield _machine(issued, [0.0] * len(host), host, tails), "host clock"


def _memory_bounds(
    problem: SchedulingProblem, works: list[float], heads: list[float], tails: list[float]
) -> Iterable[tuple[float, str]]:
    """What the memory limit adds; see `memory_bounds`."""
    if problem.memory_limit_bytes is not None and holding(problem).matters:
        yield area_bound(problem, works, tails), "bytes times time over the memory"
        for members in excluding_sets(problem, works):
            yield _machine(members, heads, works, tails), "tasks that the memory keeps apart"


def _pairing_bound(problem: SchedulingProblem) -> Iterable[tuple[float, str]]:
    """What two lanes can do side by side, where they share a chip or a memory that is limited; see `pairing`."""
    shared = any(c.compute_demand or c.bandwidth_demand for c in problem.tasks)
    limited = problem.memory_limit_bytes is not None
    if problem.lanes == 2 and (shared or (limited and holding(problem).matters)):
        yield pairing_bound(problem), "what may run side by side"


def _machine(members: Iterable[int], heads: Sequence[float], works: Sequence[float], tails: Sequence[float]) -> float:
    """The end of the preemptive one-machine schedule of `members` with heads and tails: longest tail first."""
    arriving = sorted((heads[i], -tails[i], works[i]) for i in members)
    waiting: list[tuple[float, float]] = []  # (-tail, work left)
    now = end = 0.0
    k, n = 0, len(arriving)
    while k < n or waiting:
        if not waiting:
            now = max(now, arriving[k][0])
        while k < n and arriving[k][0] <= now:
            heapq.heappush(waiting, arriving[k][1:])
            k += 1
        tail, left = waiting[0]
        if k < n and arriving[k][0] < now + left:
            heapq.heapreplace(waiting, (tail, left - (arriving[k][0] - now)))
            now = arriving[k][0]
        else:
            heapq.heappop(waiting)
            now += left
            end = max(end, now - tail)
    return end
