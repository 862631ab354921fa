"""Sequential orders that need little memory: where everything else fails to fit, one of these is what is left."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from pararev_hw.schedulers.buffer_table import Holding, holding, peak_along
from pararev_hw.types import SchedulingProblem

MAX_TASKS_OF_ALL = 10  # 2^10 sets of done tasks: milliseconds


def least_peak_order(problem: SchedulingProblem, held: Holding | None = None) -> tuple[int, ...]:
    """The order of least peak among those tried: the program's, greedy ones from the front and from the back, and for
    at most MAX_TASKS_OF_ALL tasks the best of all, by dynamic programming over the sets of tasks that are done.

    Finding the best of all is NP-hard (Sethi 1975, doi 10.1137/0204020); ties go to the one named first.
    """
    held = holding(problem) if held is None else held
    order = problem.topological_order()
    if not held.bytes:
        return order
    n = len(problem.tasks)
    out: list[list[int]] = [[] for _ in range(n)]
    into: list[list[int]] = [[] for _ in range(n)]
    for e in problem.edges:
        out[e.src].append(e.dst)
        into[e.dst].append(e.src)
    tried = [order, _from_the_front(held, out, into), _from_the_back(held, out, into)]
    if n <= MAX_TASKS_OF_ALL:
        tried.append(_best_of_all(held, into))
    return min(tried, key=lambda o: peak_along(held, o))


def _best_of_all(held: Holding, into: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """An order of least peak: for every set of done tasks the least peak with which it can be reached."""
    n = len(into)
    before = [sum({1 << p for p in preds}) for preds in into]
    users = [sum({1 << u for u in us}) for us in held.users]
    least: dict[int, tuple[int, int]] = {0: (0, -1)}  # done -> (peak, the task that was done last)
    for done in range(1 << n):
        if done not in least:
            continue
        for i in range(n):
            if done >> i & 1 or before[i] & ~done:
                continue
            now = done | 1 << i
            alive = sum(
                size
                for size, us, stays in zip(held.bytes, users, held.stays, strict=True)
                if us & now and (stays or us & ~done)
            )
            peak = max(least[done][0], alive)
            if now not in least or peak < least[now][0]:
                least[now] = (peak, i)
    order, done = list[int](), (1 << n) - 1
    while done:
        order.append(least[done][1])
        done ^= 1 << order[-1]
    return tuple(reversed(order))


def _from_the_front(held: Holding, out: Sequence[Sequence[int]], into: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Tasks in order of time, chosen greedily; ties to the lower index."""
    nothing = [False] * len(held.stays)
    return tuple(_greedy(held, out, into, begun=nothing, outlives=held.stays, ties=range(len(out))))


def _from_the_back(held: Holding, out: Sequence[Sequence[int]], into: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Tasks chosen greedily with time running backward, where what stays is there from the beginning; ties to the
    higher index."""
    nothing = [False] * len(held.stays)
    ties = range(0, -len(out), -1)
    return tuple(_greedy(held, into, out, begun=list(held.stays), outlives=nothing, ties=ties)[::-1])


def _greedy(
    held: Holding,
    out: Sequence[Sequence[int]],
    into: Sequence[Sequence[int]],
    *,
    begun: list[bool],
    outlives: Sequence[bool],
    ties: Sequence[int],
) -> list[int]:
    """Of the ready tasks always the one after which least is alive, then the one that needs least, then by `ties`."""
    n = len(out)
    left = [len(u) for u in held.users]

    def key(i: int) -> tuple[int, int, int]:
        need = sum(held.bytes[b] for b in held.touches[i] if not begun[b])
        gives = sum(held.bytes[b] for b in held.touches[i] if left[b] == 1 and not outlives[b])
        return (need - gives, need, ties[i])

    missing = [len(p) for p in into]
    best = [key(i) for i in range(n)]
    ready = [(best[i], i) for i in range(n) if missing[i] == 0]
    heapq.heapify(ready)
    done, order = [False] * n, list[int]()
    while ready:
        was, i = heapq.heappop(ready)
        if done[i] or was != best[i]:
            continue  # its key has changed since: it is in the heap again
        done[i] = True
        order.append(i)
        changed: set[int] = set()
        for b in held.touches[i]:
            left[b] -= 1
            if not begun[b] or left[b] == 1:
                changed.update(held.users[b])
            begun[b] = True
        for j in out[i]:
            missing[j] -= 1
            if missing[j] == 0:
                changed.add(j)
        for j in sorted(changed):
            if not done[j]:
                best[j] = key(j)
                if missing[j] == 0:
                    heapq.heappush(ready, (best[j], j))
    return order
