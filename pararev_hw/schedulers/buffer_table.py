"""Who holds what in memory: the buffers of a problem by task, and what orders and schedules of tasks need of them.

A buffer lives from the first start to the last end among its tasks, or to the end of the step. Read backward in time
that is the same thing, so a problem reversed has the same peaks.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pararev_hw.types import Placement, SchedulingProblem


@dataclass(frozen=True)  # no slots: cached_property needs a place
class BufferTable:
    """Buffers as arrays. `users[b]` are the tasks of buffer b, each once; `touches[i]` the buffers of task i.

    `room` is what the limit leaves beside the static bytes, None without a limit.
    """

    bytes: tuple[int, ...]
    users: tuple[tuple[int, ...], ...]
    stays: tuple[bool, ...]
    touches: tuple[tuple[int, ...], ...]
    static_bytes: int
    room: int | None

    @cached_property
    def total(self) -> int:
        return sum(self.bytes)

    @property
    def matters(self) -> bool:
        """Whether there is a limit that everything alive at once would exceed."""
        return self.room is not None and self.total > self.room


def buffer_table_of(problem: SchedulingProblem) -> BufferTable:
    """The buffers of a problem that hold anything."""
    if "table" not in problem.of_buffers:
        problem.of_buffers["table"] = _table(problem)
    limit = problem.memory_limit_bytes
    table: BufferTable = problem.of_buffers["table"]
    return replace(table, room=None if limit is None else limit - problem.static_bytes)


def _table(problem: SchedulingProblem) -> BufferTable:
    """The same without a limit."""
    buffers = [b for b in problem.held() if b.bytes]
    users = [tuple(sorted(set(b.tasks))) for b in buffers]
    touches: list[list[int]] = [[] for _ in problem.tasks]
    for b, tasks in enumerate(users):
        for i in tasks:
            touches[i].append(b)
    return BufferTable(
        tuple(b.bytes for b in buffers),
        tuple(users),
        tuple(b.stays for b in buffers),
        tuple(map(tuple, touches)),
        problem.static_bytes,
        None,
    )


def profile(buffers: BufferTable, order: Sequence[int]) -> list[int]:
    """Bytes alive while each task of a sequential order runs, without the static ones."""
    at = {i: k for k, i in enumerate(order)}
    change = [0] * (len(order) + 1)
    for size, users, stays in zip(buffers.bytes, buffers.users, buffers.stays, strict=True):
        places = [at[i] for i in users]
        change[min(places)] += size
        change[len(order) if stays else max(places) + 1] -= size
    for k in range(1, len(change)):
        change[k] += change[k - 1]
    return change[:-1]


def peak_along(buffers: BufferTable, order: Sequence[int]) -> int:
    """The most bytes alive along a sequential order, static ones included."""
    return buffers.static_bytes + max(profile(buffers, order), default=0)


def peak_memory(problem: SchedulingProblem, placements: Sequence[Placement]) -> tuple[int, tuple[int, ...]]:
    """What `peak_of` says of a schedule's placements."""
    at = {p.task: p for p in placements}
    placed = [at[c.task] for c in problem.tasks]
    return peak_of(problem, [p.start_s for p in placed], [p.end_s for p in placed])


def peak_of(
    problem: SchedulingProblem, starts_s: Sequence[float], ends_s: Sequence[float]
) -> tuple[int, tuple[int, ...]]:
    """The most bytes alive at once, static ones included, and the tasks that hold them: the first of each buffer.

    What ends at an instant makes room for what starts at it.
    """
    buffers = problem.buffer_arrays
    if not len(buffers.size):
        return problem.static_bytes, ()
    starts, ends = np.asarray(starts_s)[buffers.user], np.asarray(ends_s)[buffers.user]
    begin = buffers.start[:-1]
    first_s, last_s = np.minimum.reduceat(starts, begin), np.maximum.reduceat(ends, begin)
    is_first = starts == np.repeat(first_s, np.diff(buffers.start))
    owner = np.minimum.reduceat(np.where(is_first, buffers.user, len(problem.tasks)), begin)
    goes = np.flatnonzero(~buffers.stays)
    # at one instant: frees, new buffers, frees of what lives no time
    kind = np.concatenate((np.ones(len(first_s), np.int64), np.where(last_s > first_s, 0, 2)[goes]))
    owners = np.concatenate((owner, owner[goes]))
    sizes = np.concatenate((buffers.size, -buffers.size[goes]))
    order = np.lexsort((owners, kind, np.concatenate((first_s, last_s[goes]))))
    alive = np.cumsum(sizes[order])
    at = int(alive.argmax())
    live = np.zeros(len(problem.tasks), buffers.size.dtype)
    np.add.at(live, owners[order[: at + 1]], sizes[order[: at + 1]])
    return problem.static_bytes + int(alive[at]), tuple(np.flatnonzero(live).tolist())


def waits_that_keep(problem: SchedulingProblem, placements: Sequence[Placement]) -> list[tuple[int, int]]:
    """Pairs (before, after) of tasks that keep a schedule's peak whatever time the tasks take.

    Each task waits, on every other lane, for the last task that had ended by its start. Then at any moment of any run
    the task with the latest planned start, of those that have started, has seen everything end that had ended by then
    in the plan, and nothing has started that had not: so what is alive is part of what was alive in the plan. Pairs
    that are edges, or that follow from other pairs and the orders of the lanes, are left out.
    """
    at = {p.task: p for p in placements}
    placed = [at[c.task] for c in problem.tasks]
    return AddedWaits(problem).between([p.lane for p in placed], [p.start_s for p in placed], [p.end_s for p in placed])


def by_start(order: Sequence[int], starts_s: Sequence[float], ends_s: Sequence[float]) -> list[int]:
    """Tasks by start, then by end; `order` says which of two with the same times comes first."""
    tasks = np.asarray(order, np.int64)
    sorted_tasks: list[int] = tasks[np.lexsort((np.asarray(ends_s)[tasks], np.asarray(starts_s)[tasks]))].tolist()
    return sorted_tasks


class AddedWaits:
    """What `waits_that_keep` asks of a problem, for those who ask of many schedules of it."""

    def __init__(self, problem: SchedulingProblem) -> None:
        self.lanes = problem.lanes
        self.order = problem.topological_order()
        self.edges = {(e.src, e.dst) for e in problem.edges}

    def between(self, lane: Sequence[int], starts_s: Sequence[float], ends_s: Sequence[float]) -> list[tuple[int, int]]:
        """The pairs of a schedule: lane, start and end of each task."""
        ended: list[tuple[int, int, int]] = []  # by when they ended: the number of tasks before it, its lane, the task
        latest = 0  # what had ended before this task is waited for by one that has ended since
        waited_until = [0] * self.lanes  # how many of `ended` the latest task of each lane has waited for
        place = [0] * len(self.order)
        pairs: list[tuple[int, int]] = []
        running: list[tuple[float, int, int]] = []
        # of what starts together, what takes no time comes first, predecessors before successors: it may be what the
        # others wait for. Every edge, lane order and wait points forward in this order: together they cannot deadlock
        for at, i in enumerate(by_start(self.order, starts_s, ends_s)):
            place[i] = at
            while running and running[0][0] <= starts_s[i]:
                _, on, finished = heapq.heappop(running)
                ended.append((at, on, finished))
                latest = max(latest, place[finished])
            here = lane[i]
            seen = {here}
            for k in range(len(ended) - 1, waited_until[here] - 1, -1):
                since, on, before = ended[k]
                if since <= latest:
                    break
                if on not in seen and (before, i) not in self.edges:
                    pairs.append((before, i))
                seen.add(on)
            waited_until[here] = len(ended)
            heapq.heappush(running, (ends_s[i], here, i))
        return pairs
