"""The simulator in plain Python over lists, as it was before its loops were compiled: what the present one must equal.

Every lane runs its tasks in the order it is given. A task starts when its lane is free and its predecessors have
ended (a predecessor on another lane: `delay_s` later). Two things slow it down:

- *Sharing.* Let U = max(1, sum of compute demands, sum of bandwidth demands) over the tasks that are running. All of
  them progress at the rate 1/U, so a task needs U times its `times_s[lane]` (a fluid model).
- *The host.* Tasks with `host_s > 0` are issued one after another by one host that never waits. A task may start when
  its issue begins and cannot end before its issue has ended. The host issues in the order in which the tasks would
  start if there were neither host nor sharing: predecessors first, ties by index. A task that has done its work and
  waits for its issue to end keeps its lane but asks for nothing.

Since all running tasks share one rate, one virtual clock V with dV/dt = 1/U serves them all: a task that starts at V
is done at V + work, whatever comes and goes meanwhile. That makes an event O(log lanes) instead of O(lanes).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import Placement, SchedulingProblem


def play(
    problem: SchedulingProblem, lanes: Sequence[Sequence[int]], waits: Iterable[tuple[int, int]] = ()
) -> tuple[Placement, ...]:
    """When each task runs, sorted by start, lane and id. `lanes[k]` is the order of task indices on lane k, `waits` are
    pairs of tasks of which the second starts when the first has ended.

    Raises IllegalSchedule where a task is missing, doubled or on a lane that it may not use, and where the orders
    contradict the edges (a deadlock: the tasks that wait for each other are named).
    """
    plan = _plan(problem, lanes, waits)
    starts, ends, order = _unshared(plan, [0.0] * len(plan.work), [0.0] * len(plan.work))
    if len(order) < len(plan.work):
        waiting = " -> ".join(repr(problem.tasks[i].task) for i in _deadlock(plan, order))
        raise IllegalSchedule(f"the lane orders contradict the edges: each waits for the one before it: {waiting}")
    release, issued = [0.0] * len(order), [0.0] * len(order)
    if any(c.host_s > 0 for c in problem.tasks):
        release, issued = _host(problem, plan, starts)
        starts, ends, _ = _unshared(plan, release, issued)
    if _may_contend(problem):
        starts, ends = _shared(problem, plan, release, issued)
    return placements(problem, plan.lane, starts, ends)


def sequential_order(problem: SchedulingProblem) -> tuple[int, ...]:
    """The order of the sequential schedule: predecessors first, ties by index."""
    return problem.topological_order()


def play_sequential(problem: SchedulingProblem, order: Sequence[int] | None = None) -> tuple[Placement, ...]:
    """One task at a time, in `order` (`sequential_order` by default), on the one lane that needs the least time for all
    tasks.

    Where no lane may run all of them, each task that the lane allowing most may not run goes to its own fastest lane,
    and still no two run at once.
    """
    main = min(range(problem.lanes), key=lambda k: _refused_and_time(problem, k))
    lane = [_lane_or_fastest(c.times_s, main) for c in problem.tasks]
    starts, ends, arrived = [0.0] * len(lane), [0.0] * len(lane), [0.0] * len(lane)
    out = problem.successors() if any(k != main for k in lane) else ((),) * len(lane)
    now = host = 0.0
    for i in sequential_order(problem) if order is None else order:
        c = problem.tasks[i]
        starts[i] = max(now, arrived[i])  # the host is never behind: what ran before did not end before its issue
        host += c.host_s
        now = starts[i] + c.times_s[lane[i]] * max(1.0, c.compute_demand, c.bandwidth_demand)
        ends[i] = now = max(now, host if c.host_s > 0 else 0.0)
        for e in out[i]:
            if lane[e.dst] != lane[i]:
                arrived[e.dst] = max(arrived[e.dst], now + e.delay_s)
    return placements(problem, lane, starts, ends)


def placements(
    problem: SchedulingProblem, lane: Sequence[int], starts: Sequence[float], ends: Sequence[float]
) -> tuple[Placement, ...]:
    """Placements of all tasks, sorted by start, lane and id."""
    unsorted = [Placement(c.task, lane[i], starts[i], ends[i]) for i, c in enumerate(problem.tasks)]
    return tuple(sorted(unsorted, key=lambda p: (p.start_s, p.lane, p.task)))


def _refused_and_time(problem: SchedulingProblem, lane: int) -> tuple[int, float]:
    """How many tasks may not run on that lane, and how long the others take there."""
    times = [c.times_s[lane] for c in problem.tasks if c.times_s[lane] < math.inf]
    return len(problem.tasks) - len(times), sum(times)


def _lane_or_fastest(times_s: tuple[float, ...], lane: int) -> int:
    return lane if times_s[lane] < math.inf else times_s.index(min(times_s))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Lane orders merged with the edges: what each task waits for. Lists are by task index."""

    lane: list[int]
    work: list[float]
    after: list[list[tuple[int, float]]]  # (successor, delay), the next task of the lane included with delay 0
    waits: list[int]  # how many entries of `after` name the task


def _plan(problem: SchedulingProblem, lanes: Sequence[Sequence[int]], extra: Iterable[tuple[int, int]]) -> _Plan:
    tasks, n = problem.tasks, len(problem.tasks)
    if len(lanes) != problem.lanes:
        raise IllegalSchedule(f"{len(lanes)} lane orders for {problem.lanes} lanes: give one per lane, empty if idle")
    lane = [-1] * n
    for k, order in enumerate(lanes):
        for i in order:
            if not 0 <= i < n:
                raise IllegalSchedule(f"lane {k} runs task number {i}: there are {n} tasks")
            if lane[i] >= 0:
                raise IllegalSchedule(f"{tasks[i].task!r} runs twice, on lane {lane[i]} and on lane {k}")
            if tasks[i].times_s[k] == math.inf:
                raise IllegalSchedule(f"{tasks[i].task!r} runs on lane {k}, where it may not")
            lane[i] = k
    if -1 in lane:
        raise IllegalSchedule(f"{tasks[lane.index(-1)].task!r} runs on no lane")
    after: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    waits = [0] * n
    for e in problem.edges:
        src, dst = e.src, e.dst
        after[src].append((dst, e.delay_s if lane[src] != lane[dst] else 0.0))
        waits[dst] += 1
    for a, b in chain(extra, *map(pairwise, lanes)):
        after[a].append((b, 0.0))
        waits[b] += 1
    return _Plan(lane, [c.times_s[k] for c, k in zip(tasks, lane, strict=True)], after, waits)


def _unshared(plan: _Plan, release: list[float], issued: list[float]) -> tuple[list[float], list[float], list[int]]:
    """Starts and ends where nothing is shared, and the tasks that got their turn (all, unless there is a deadlock)."""
    starts, ends, waits = list(release), [0.0] * len(plan.work), list(plan.waits)
    order = [i for i, w in enumerate(waits) if w == 0]
    for i in order:  # grows while it is read
        end = starts[i] + plan.work[i]
        ends[i] = end = max(end, issued[i])
        for j, delay in plan.after[i]:
            if end + delay > starts[j]:
                starts[j] = end + delay
            waits[j] -= 1
            if waits[j] == 0:
                order.append(j)
    return starts, ends, order


def _deadlock(plan: _Plan, done: list[int]) -> list[int]:
    """Tasks that wait for each other in a circle, the first one repeated at the end."""
    stuck = set(range(len(plan.work))).difference(done)
    cause: dict[int, int] = {}
    for i in sorted(stuck):
        for j, _ in plan.after[i]:
            cause.setdefault(j, i)
    path, at = [], min(stuck)
    while at not in path:
        path.append(at)
        at = cause[at]
    circle = path[path.index(at) :]
    return [at, *reversed(circle)]


def _host(problem: SchedulingProblem, plan: _Plan, starts: list[float]) -> tuple[list[float], list[float]]:
    """When the host begins and ends to issue each task; 0 and 0 for a task that needs no host."""
    release, issued, now = [0.0] * len(starts), [0.0] * len(starts), 0.0
    waits = list(plan.waits)
    ready = [(starts[i], i) for i, w in enumerate(waits) if w == 0]
    heapq.heapify(ready)
    while ready:
        _, i = heapq.heappop(ready)
        if problem.tasks[i].host_s > 0:
            release[i], now = now, now + problem.tasks[i].host_s
            issued[i] = now
        for j, _ in plan.after[i]:
            waits[j] -= 1
            if waits[j] == 0:
                heapq.heappush(ready, (starts[j], j))
    return release, issued


def _may_contend(problem: SchedulingProblem) -> bool:
    """Whether as many tasks as there are lanes can ask for more than there is."""
    compute = heapq.nlargest(problem.lanes, (c.compute_demand for c in problem.tasks))
    bandwidth = heapq.nlargest(problem.lanes, (c.bandwidth_demand for c in problem.tasks))
    return max(sum(compute), sum(bandwidth)) > 1.0


def _shared(
    problem: SchedulingProblem, plan: _Plan, release: list[float], issued: list[float]
) -> tuple[list[float], list[float]]:
    """Starts and ends where running tasks slow each other down. Expects orders without deadlock."""
    n, tasks = len(plan.work), problem.tasks
    starts, ends, ready, waits = [0.0] * n, [0.0] * n, list(release), list(plan.waits)
    clock: list[tuple[float, int]] = [(ready[i], i) for i in range(n) if waits[i] == 0]  # real time: to start or to end
    heapq.heapify(clock)
    working: list[tuple[float, int]] = []  # virtual time at which the work is done
    compute = bandwidth = 0.0  # what the working tasks ask for
    begun = [False] * n
    now = virtual = 0.0
    slow = 1.0

    def end(i: int) -> None:
        ends[i] = now
        for j, delay in plan.after[i]:
            ready[j] = max(ready[j], now + delay)
            waits[j] -= 1
            if waits[j] == 0:
                heapq.heappush(clock, (ready[j], j))

    while clock or working:
        # max: rounding may have carried `virtual` a hair beyond
        done_s = now + max(0.0, working[0][0] - virtual) * slow if working else math.inf
        if clock and clock[0][0] <= done_s:
            at, i = heapq.heappop(clock)
            virtual += (at - now) / slow
            now = at
            if begun[i]:
                end(i)
                continue
            begun[i], starts[i] = True, now
            heapq.heappush(working, (virtual + plan.work[i], i))
            compute += tasks[i].compute_demand
            bandwidth += tasks[i].bandwidth_demand
        else:
            done, i = heapq.heappop(working)
            now, virtual = done_s, max(virtual, done)
            compute = compute - tasks[i].compute_demand if working else 0.0
            bandwidth = bandwidth - tasks[i].bandwidth_demand if working else 0.0
            if issued[i] > now:
                heapq.heappush(clock, (issued[i], i))
            else:
                end(i)
        slow = max(1.0, compute, bandwidth)
    return starts, ends
