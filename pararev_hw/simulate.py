"""Plays lane orders on a device and says when everything runs.

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
from operator import attrgetter

import numpy as np

from pararev_hw.compiled import loop, part
from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import Placement, SchedulingProblem
from pararev_hw.types.problem_arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lane, the start and the end of each task, by index."""

    lane: list[int]
    starts_s: list[float]
    ends_s: list[float]

    @property
    def makespan_s(self) -> float:
        """The last end, 0 where there is none."""
        return max(self.ends_s, default=0.0)


def play(
    problem: SchedulingProblem, lanes: Sequence[Sequence[int]], waits: Iterable[tuple[int, int]] = ()
) -> tuple[Placement, ...]:
    """When each task runs, sorted by start, lane and id; arguments and errors are those of `timeline`."""
    times = timeline(problem, lanes, waits)
    return placements(problem, times.lane, times.starts_s, times.ends_s)


def timeline(
    problem: SchedulingProblem, lanes: Sequence[Sequence[int]], waits: Iterable[tuple[int, int]] = ()
) -> Timeline:
    """When each task runs. `lanes[k]` is the order of task indices on lane k, `waits` are pairs of tasks of which the
    second starts when the first has ended.

    Raises IllegalSchedule where a task is missing, doubled or on a lane that it may not use, and where the orders
    contradict the edges (a deadlock: the tasks that wait for each other are named).
    """
    lane, placed = _lane_of(problem, lanes)
    arrays, n = problem.arrays, len(lane)
    waiting = np.array(list(waits), np.int64).reshape(-1, 2)
    src, dst = np.concatenate((arrays.src, waiting[:, 0])), np.concatenate((arrays.dst, waiting[:, 1]))
    work = arrays.times_s[np.arange(n), lane]
    steps = 2 * n + len(src)
    starts, ends, order = _played(steps, work, lane, placed, src, dst, arrays.delay_s, *_asks(problem))
    if len(order) < n:
        circle = _deadlock(placed, lane, zip(src.tolist(), dst.tolist(), strict=True), order)
        names = " -> ".join(repr(problem.tasks[i].task) for i in circle)
        raise IllegalSchedule(f"the lane orders contradict the edges: each waits for the one before it: {names}")
    return Timeline(lane.tolist(), starts, ends)


def sequential_order(problem: SchedulingProblem) -> tuple[int, ...]:
    """The order of the sequential schedule: predecessors first, ties by index."""
    return problem.topological_order()


def play_sequential(problem: SchedulingProblem, order: Sequence[int] | None = None) -> tuple[Placement, ...]:
    """The placements of `sequential_timeline`, sorted by start, lane and id."""
    times = sequential_timeline(problem, order)
    return placements(problem, times.lane, times.starts_s, times.ends_s)


def sequential_timeline(problem: SchedulingProblem, order: Sequence[int] | None = None) -> Timeline:
    """One task at a time, in `order` (`sequential_order` by default), on the one lane that needs the least time for all
    tasks.

    Where no lane may run all of them, each task that the lane allowing most may not run goes to its own fastest lane,
    and still no two run at once.
    """
    if order is None:
        if "sequential" not in problem.of_tasks:
            problem.of_tasks["sequential"] = sequential_timeline(problem, sequential_order(problem))
        times: Timeline = problem.of_tasks["sequential"]
        return times
    arrays = problem.arrays
    main = min(range(problem.lanes), key=lambda k: _refused_and_time(arrays.times_s[:, k]))
    lane = np.where(arrays.times_s[:, main] < math.inf, main, arrays.times_s.argmin(1)) if problem.tasks else _NO_LANES
    starts, ends = _one_at_a_time(
        len(order) + len(arrays.src),
        np.asarray(order, np.int64),
        lane,
        arrays.times_s[np.arange(len(lane)), lane],
        np.maximum(1.0, np.maximum(arrays.compute_demand, arrays.bandwidth_demand)),
        arrays.host_s,
        arrays.out.start,
        arrays.out.task,
        arrays.out.delay_s,
    )
    return Timeline(lane.tolist(), starts, ends)


_NO_LANES = np.zeros(0, np.int64)


@loop
def _one_at_a_time(
    order: Ints,
    lane: Ints,
    work: Floats,
    slow_down: Floats,
    host_s: Floats,
    first: Ints,
    after: Ints,
    delay_s: Floats,
) -> tuple[list[float], list[float]]:
    """Starts and ends of tasks that run one after another."""
    n = len(lane)
    starts, ends, arrived = [0.0] * n, [0.0] * n, [0.0] * n
    now, host = 0.0, 0.0
    for k in range(len(order)):
        i = order[k]
        starts[i] = max(now, arrived[i])  # the host is never behind: what ran before did not end before its issue
        host += host_s[i]
        now = starts[i] + work[i] * slow_down[i]
        if host_s[i] > 0.0:
            now = max(now, host)
        ends[i] = now
        for e in range(first[i], first[i + 1]):
            j = after[e]
            if lane[j] != lane[i]:
                arrived[j] = max(arrived[j], now + delay_s[e])
    return starts, ends


def placements(
    problem: SchedulingProblem, lane: Sequence[int], starts: Sequence[float], ends: Sequence[float]
) -> tuple[Placement, ...]:
    """Placements of all tasks, sorted by start, lane and id."""
    unsorted = list(map(Placement, map(attrgetter("task"), problem.tasks), lane, starts, ends))
    lanes, times = np.asarray(lane), np.asarray(starts)
    order = np.lexsort((lanes, times))
    if ((np.diff(times[order]) == 0) & (np.diff(lanes[order]) == 0)).any():  # the id decides
        return tuple(sorted(unsorted, key=lambda p: (p.start_s, p.lane, p.task)))
    return tuple([unsorted[i] for i in order.tolist()])


def energy_by_group(
    problem: SchedulingProblem, lane: Sequence[int], group: Sequence[int], groups: int
) -> list[dict[str, float]]:
    """Joules by part of the tasks of each group, and "noc" of the edges that cross lanes: the group that receives pays.

    `lane[i]` and `group[i]` are those of task i. Power that is drawn all the time is not among the parts.
    """
    parts: list[dict[str, float]] = [{} for _ in range(groups)]
    for c, k, g in zip(problem.tasks, lane, group, strict=True):
        for what, joule in c.energy_on(k).items():
            parts[g][what] = parts[g].get(what, 0.0) + joule
    for e in problem.edges:
        if e.energy_j and lane[e.src] != lane[e.dst]:
            into = parts[group[e.dst]]
            into["noc"] = into.get("noc", 0.0) + e.energy_j
    return parts


def _refused_and_time(times_s: Floats) -> tuple[int, float]:
    """How many tasks may not run on a lane, and how long the others take there."""
    allowed = times_s[times_s < math.inf]
    return len(times_s) - len(allowed), sum(allowed.tolist())


def _lane_of(problem: SchedulingProblem, lanes: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """The lane of each task, and all tasks lane by lane. Raises IllegalSchedule where the orders are not those of the
    problem's tasks."""
    tasks, n = problem.tasks, len(problem.tasks)
    if len(lanes) != problem.lanes:
        raise IllegalSchedule(f"{len(lanes)} lane orders for {problem.lanes} lanes: give one per lane, empty if idle")
    counts = [len(order) for order in lanes]
    placed = np.fromiter(chain.from_iterable(lanes), np.int64, sum(counts))
    on = np.repeat(np.arange(problem.lanes), counts)
    inside = (placed >= 0) & (placed < n)
    if not inside.all():
        at = int(inside.argmin())
        raise IllegalSchedule(f"lane {on[at]} runs task number {placed[at]}: there are {n} tasks")
    lane = np.full(n, -1)
    lane[placed] = on
    if len(placed) != n or -1 in lane:
        first: dict[int, int] = {}
        for k, i in zip(on.tolist(), placed.tolist(), strict=True):
            if i in first:
                raise IllegalSchedule(f"{tasks[i].task!r} runs twice, on lane {first[i]} and on lane {k}")
            first[i] = k
        raise IllegalSchedule(f"{tasks[int((lane < 0).argmax())].task!r} runs on no lane")
    forbidden = np.flatnonzero(problem.arrays.times_s[np.arange(n), lane] == math.inf)
    if len(forbidden):
        i = int(forbidden[0])
        raise IllegalSchedule(f"{tasks[i].task!r} runs on lane {lane[i]}, where it may not")
    return lane, placed


def _deadlock(placed: Ints, lane: Ints, pairs: Iterable[tuple[int, int]], finished: Sequence[int]) -> list[int]:
    """Tasks that wait for each other in a circle, the first one repeated at the end."""
    stuck = set(range(len(placed))).difference(finished)
    on_lane = ((i, j) for i, j in pairwise(placed.tolist()) if lane[i] == lane[j])
    cause: dict[int, int] = {}
    for i, j in sorted({*pairs, *on_lane}):
        if i in stuck:
            cause.setdefault(j, i)
    path, at = [], min(stuck)
    while at not in path:
        path.append(at)
        at = cause[at]
    circle = path[path.index(at) :]
    return [at, *reversed(circle)]


def _asks(problem: SchedulingProblem) -> tuple[Floats, bool]:
    """What each task asks of the host (seconds), the compute units and the bandwidth, in three rows,
    and whether as many tasks as there are lanes can ask for more than there is."""
    if "asks" not in problem.of_tasks:
        arrays = problem.arrays
        demands = (arrays.compute_demand, arrays.bandwidth_demand)
        most = max(sum(heapq.nlargest(problem.lanes, demand.tolist())) for demand in demands)
        problem.of_tasks["asks"] = np.stack((arrays.host_s, *demands)), bool(most > 1.0)
    asks: tuple[Floats, bool] = problem.of_tasks["asks"]
    return asks


@loop
def _played(
    work: Floats, lane: Ints, placed: Ints, src: Ints, dst: Ints, delay_s: Floats, asks: Floats, contends: bool
) -> tuple[list[float], list[float], list[int]]:
    """Starts, ends, and the tasks that got their turn: all, unless there is a deadlock.

    `placed` are the tasks lane by lane. The pairs in `src` and `dst` are the edges, of which each has a delay between
    lanes, and behind them those that wait without one.
    """
    n, launched = len(work), False
    first, after, delays, waits = _links(lane, placed, src, dst, delay_s)
    release, issued = [0.0] * n, [0.0] * n
    starts, ends, order = _unshared(work, first, after, delays, waits, release, issued)
    for i in range(n):
        launched = launched or asks[0][i] > 0.0
    if len(order) == n and launched:
        release, issued = _host(first, after, waits, asks, starts)
        starts, ends, order = _unshared(work, first, after, delays, waits, release, issued)
    if len(order) == n and contends:
        starts, ends = _shared(work, first, after, delays, waits, asks, release, issued)
    return starts, ends, order


@part
def _links(
    lane: Ints, placed: Ints, src: Ints, dst: Ints, delay_s: Floats
) -> tuple[list[int], list[int], list[float], list[int]]:
    """What task i leads to, the next one of its lane too, is after[first[i] : first[i + 1]], with delays beside it;
    the last list says how many lead to each task."""
    n = len(lane)
    first, waits = [0] * (n + 1), [0] * n
    for e in range(len(src)):
        first[src[e]] += 1
        waits[dst[e]] += 1
    for k in range(1, n):
        if lane[placed[k]] == lane[placed[k - 1]]:
            first[placed[k - 1]] += 1
            waits[placed[k]] += 1
    for i in range(n):
        first[i + 1] += first[i]
    after, delays = [0] * first[n], [0.0] * first[n]  # filled from behind, which takes each `first` to its place
    for e in range(len(src)):
        i, j = src[e], dst[e]
        first[i] -= 1
        after[first[i]] = j
        if e < len(delay_s) and lane[i] != lane[j]:
            delays[first[i]] = delay_s[e]
    for k in range(1, n):
        i, j = placed[k - 1], placed[k]
        if lane[i] == lane[j]:
            first[i] -= 1
            after[first[i]] = j
    return first, after, delays, waits


@part
def _unshared(
    work: Floats,
    first: list[int],
    after: list[int],
    delay_s: list[float],
    waits: list[int],
    release: list[float],
    issued: list[float],
) -> tuple[list[float], list[float], list[int]]:
    """Starts and ends where nothing is shared, and the tasks that got their turn (all, unless there is a deadlock)."""
    n = len(work)
    starts, ends = [release[i] for i in range(n)], [0.0] * n
    missing = [waits[i] for i in range(n)]
    order = [i for i in range(n) if missing[i] == 0]
    k = 0
    while k < len(order):
        i = order[k]
        k += 1
        end = max(starts[i] + work[i], issued[i])
        ends[i] = end
        for e in range(first[i], first[i + 1]):
            j = after[e]
            if end + delay_s[e] > starts[j]:
                starts[j] = end + delay_s[e]
            missing[j] -= 1
            if missing[j] == 0:
                order.append(j)
    return starts, ends, order


@part
def _host(
    first: list[int], after: list[int], waits: list[int], asks: Floats, starts: list[float]
) -> tuple[list[float], list[float]]:
    """When the host begins and ends to issue each task; 0 and 0 for a task that needs no host."""
    n, host_s = len(waits), asks[0]
    release, issued, now = [0.0] * n, [0.0] * n, 0.0
    missing = [waits[i] for i in range(n)]
    ready = [(starts[i], i) for i in range(n) if missing[i] == 0]
    heapq.heapify(ready)
    while len(ready) > 0:
        _, i = heapq.heappop(ready)
        if host_s[i] > 0.0:
            release[i] = now
            now += host_s[i]
            issued[i] = now
        for e in range(first[i], first[i + 1]):
            j = after[e]
            missing[j] -= 1
            if missing[j] == 0:
                heapq.heappush(ready, (starts[j], j))
    return release, issued


@part
def _shared(
    work: Floats,
    first: list[int],
    after: list[int],
    delay_s: list[float],
    waits: list[int],
    asks: Floats,
    release: list[float],
    issued: list[float],
) -> tuple[list[float], list[float]]:
    """Starts and ends where running tasks slow each other down. Expects orders without deadlock."""
    n, compute_demand, bandwidth_demand = len(work), asks[1], asks[2]
    starts, ends = [0.0] * n, [0.0] * n
    ready, missing = [release[i] for i in range(n)], [waits[i] for i in range(n)]
    clock = [(ready[i], i) for i in range(n) if missing[i] == 0]  # real time: to start or to end
    heapq.heapify(clock)
    working = [(0.0, i) for i in range(0)]  # virtual time at which the work is done
    compute, bandwidth = 0.0, 0.0  # what the working tasks ask for
    begun = [False] * n
    now, virtual, slow = 0.0, 0.0, 1.0
    while len(clock) > 0 or len(working) > 0:
        done_s = math.inf
        if len(working) > 0:
            done_s = now + max(0.0, working[0][0] - virtual) * slow  # rounding may have carried `virtual` beyond
        ended = -1
        if len(clock) > 0 and clock[0][0] <= done_s:
            at, i = heapq.heappop(clock)
            virtual += (at - now) / slow
            now = at
            if begun[i]:
                ended = i
            else:
                begun[i] = True
                starts[i] = now
                heapq.heappush(working, (virtual + work[i], i))
                compute += compute_demand[i]
                bandwidth += bandwidth_demand[i]
                slow = max(1.0, compute, bandwidth)
        else:
            end_virtual, i = heapq.heappop(working)
            now, virtual = done_s, max(virtual, end_virtual)
            compute = compute - compute_demand[i] if len(working) > 0 else 0.0
            bandwidth = bandwidth - bandwidth_demand[i] if len(working) > 0 else 0.0
            slow = max(1.0, compute, bandwidth)
            if issued[i] > now:
                heapq.heappush(clock, (issued[i], i))
            else:
                ended = i
        if ended >= 0:
            ends[ended] = now
            for e in range(first[ended], first[ended + 1]):
                j = after[e]
                ready[j] = max(ready[j], now + delay_s[e])
                missing[j] -= 1
                if missing[j] == 0:
                    heapq.heappush(clock, (ready[j], j))
    return starts, ends
