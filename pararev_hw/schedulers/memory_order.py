"""Sequential orders that need little memory: where everything else fails to fit, one of these is what is left."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pararev_hw.compiled import loop, part
from pararev_hw.schedulers.buffer_table import BufferTable, buffer_table_of, peak_along
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Adjacency, Ints

MAX_TASKS_OF_ALL = 10  # 2^10 sets of done tasks: milliseconds


def least_peak_order(problem: SchedulingProblem) -> tuple[int, ...]:
    """The order of least peak among those tried: the program's, greedy ones from the front and from the back, and for
    at most MAX_TASKS_OF_ALL tasks the best of all, by dynamic programming over the sets of tasks that are done.

    Finding the best of all is NP-hard (Sethi 1975, doi 10.1137/0204020); ties go to the one named first.
    """
    peaks = peak_by_order(problem)
    return min(peaks, key=peaks.__getitem__)


def peak_by_order(problem: SchedulingProblem) -> Mapping[tuple[int, ...], int]:
    """The program's order and the one of least peak, with the most bytes alive along each, static ones included."""
    if "peaks" not in problem.of_buffers:
        buffers = buffer_table_of(problem)
        candidates = _candidates(problem, buffers)
        peaks = {order: peak_along(buffers, order) for order in candidates}
        least = min(candidates, key=peaks.__getitem__)
        problem.of_buffers["peaks"] = {order: peaks[order] for order in (candidates[0], least)}
    peak_of_order: Mapping[tuple[int, ...], int] = problem.of_buffers["peaks"]
    return peak_of_order


def _candidates(problem: SchedulingProblem, buffers: BufferTable) -> list[tuple[int, ...]]:
    order = problem.topological_order()
    if not buffers.bytes:
        return [order]
    out, into = problem.arrays.out, problem.arrays.into
    candidates = [order, _from_the_front(buffers, out, into), _from_the_back(buffers, out, into)]
    if len(problem.tasks) <= MAX_TASKS_OF_ALL:
        candidates.append(_best_of_all(buffers, [[e.src for e in edges] for edges in problem.predecessors()]))
    return candidates


def _best_of_all(buffers: BufferTable, into: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """An order of least peak: for every set of done tasks the least peak with which it can be reached."""
    n = len(into)
    before = [sum({1 << p for p in preds}) for preds in into]
    users = [sum({1 << u for u in us}) for us in buffers.users]
    least: dict[int, tuple[int, int]] = {0: (0, -1)}  # done -> (peak, the task that was done last)
    for subset in range(1 << n):
        if subset not in least:
            continue
        for i in range(n):
            if subset >> i & 1 or before[i] & ~subset:
                continue
            now = subset | 1 << i
            alive = sum(
                size
                for size, us, stays in zip(buffers.bytes, users, buffers.stays, strict=True)
                if us & now and (stays or us & ~subset)
            )
            peak = max(least[subset][0], alive)
            if now not in least or peak < least[now][0]:
                least[now] = (peak, i)
    order, subset = list[int](), (1 << n) - 1
    while subset:
        order.append(least[subset][1])
        subset ^= 1 << order[-1]
    return tuple(reversed(order))


def _from_the_front(buffers: BufferTable, out: Adjacency, into: Adjacency) -> tuple[int, ...]:
    """Tasks in order of time, chosen greedily; ties to the lower index."""
    nothing = [False] * len(buffers.stays)
    return tuple(_greedy(buffers, out, into, begun=nothing, outlives=buffers.stays, ties=range(len(buffers.touches))))


def _from_the_back(buffers: BufferTable, out: Adjacency, into: Adjacency) -> tuple[int, ...]:
    """Tasks chosen greedily with time running backward, where what stays is there from the beginning; ties to the
    higher index."""
    nothing = [False] * len(buffers.stays)
    ties = range(0, -len(buffers.touches), -1)
    return tuple(_greedy(buffers, into, out, begun=list(buffers.stays), outlives=nothing, ties=ties)[::-1])


def _greedy(
    table: BufferTable,
    out: Adjacency,
    into: Adjacency,
    *,
    begun: Sequence[bool],
    outlives: Sequence[bool],
    ties: Sequence[int],
) -> list[int]:
    """Of the ready tasks always the one after which least is alive, then the one that needs least, then by `ties`."""
    buffers, users = _flat(table.touches), _flat(table.users)
    missing = np.diff(into.start)
    flags = np.array(begun, np.int64), np.array(outlives, np.int64)
    if table.total < 2**61:
        size = np.array(table.bytes, np.int64)
        steps = len(users[1]) + len(out.task)
        order: list[int] = _greedy_order(
            steps, size, *buffers, *users, out.start, out.task, missing, *flags, np.array(ties, np.int64)
        )
        return order
    arrays = (*buffers, *users, out.start, out.task, missing, *flags)  # sizes that only Python can add up
    unbounded: list[int] = _greedy_order.plain(list(table.bytes), *(a.tolist() for a in arrays), list(ties))
    return unbounded


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Lists as one array and where each begins in it."""
    start = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(line) for line in lists], out=start[1:])
    return start, np.fromiter(chain.from_iterable(lists), np.int64, int(start[-1]))


@loop
def _greedy_order(
    size: Ints,
    touch_start: Ints,
    touch: Ints,
    user_start: Ints,
    user: Ints,
    out_start: Ints,
    out: Ints,
    waits: Ints,
    began: Ints,
    outlives: Ints,
    ties: Ints,
) -> list[int]:
    n = len(waits)
    left = [user_start[b + 1] - user_start[b] for b in range(len(size))]
    begun = [began[b] > 0 for b in range(len(size))]
    missing = [waits[i] for i in range(n)]
    grows, needs = [size[0] * 0 for _ in range(n)], [size[0] * 0 for _ in range(n)]
    last_user = [-1] * n
    for i in range(n):
        grows[i], needs[i] = _growth(i, size, touch_start, touch, left, begun, outlives)
    ready = [(grows[i], needs[i], ties[i], i) for i in range(n) if missing[i] == 0]
    heapq.heapify(ready)
    scheduled = [False] * n
    order = list(range(0))
    while len(ready) > 0:
        grow, need, _, i = heapq.heappop(ready)
        if scheduled[i] or grow != grows[i] or need != needs[i]:
            continue  # its key has changed since: it is in the heap again
        scheduled[i] = True
        order.append(i)
        changed = list(range(0))
        for t in range(touch_start[i], touch_start[i + 1]):
            b = touch[t]
            left[b] -= 1
            comes, goes = not begun[b], left[b] == 1 and outlives[b] == 0
            begun[b] = True
            if comes or goes:  # at most twice for each buffer, so that all of this is linear
                for u in range(user_start[b], user_start[b + 1]):
                    j = user[u]
                    if comes:
                        needs[j] -= size[b]
                        grows[j] -= size[b]
                    if goes:
                        grows[j] -= size[b]
                    changed.append(j)
        for e in range(out_start[i], out_start[i + 1]):
            j = out[e]
            missing[j] -= 1
            if missing[j] == 0:
                changed.append(j)
        for j in changed:
            if not scheduled[j] and last_user[j] != i:
                last_user[j] = i
                if missing[j] == 0:
                    heapq.heappush(ready, (grows[j], needs[j], ties[j], j))
    return order


@part
def _growth(i: int, size: Any, touch_start: Any, touch: Any, left: Any, begun: Any, outlives: Any) -> tuple[int, int]:
    """By how many bytes more are alive after a task than before, and how many it needs while it runs."""
    need, gives = size[0] * 0, size[0] * 0
    for t in range(touch_start[i], touch_start[i + 1]):
        b = touch[t]
        if not begun[b]:
            need += size[b]
        if left[b] == 1 and outlives[b] == 0:
            gives += size[b]
    return need - gives, need
