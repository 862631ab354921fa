"""Event-driven list scheduling within a memory limit that cannot deadlock: the banker's algorithm for buffers.

A sequential order that fits the limit is kept as a fallback. When a lane is free, the ready task of highest priority
starts if (1) its new buffers fit beside what is alive now and (2) once all that has started is done, the rest of the
order, one task at a time, still fits. The first task of the rest always passes both when nothing else runs, so there is
always a next step. (E. W. Dijkstra, EWD 623; for task graphs: "memory-aware list scheduling", M. Sergent et al., 2016.)

By starts, every schedule that fits gives a sequential order that fits too: what is alive when a task starts is alive
there in the schedule as well. So the result of one run is a safe order for the next.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.schedulers.buffer_table import BufferTable, by_start
from pararev_hw.schedulers.compiled_dispatch import GONE, UNLIMITED, DispatchArrays, dispatch, ranges
from pararev_hw.schedulers.dispatch import lanes_are_alike
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Floats, Ints

WINDOW = 48  # ready tasks that are looked at before the scheduler waits; the first of the safe order always is one
STEPS = 20  # of a plain loop that placing a task takes as long as
_most = np.maximum.reduce  # without what ndarray.max does around it


@dataclass(frozen=True, slots=True)
class Planned:
    """Lane, start and end of each task, by index."""

    lane: list[int]
    starts_s: list[float]
    ends_s: list[float]

    @property
    def makespan_s(self) -> float:
        return max(self.ends_s, default=0.0)

    def lanes(self, lanes: int, order: Sequence[int]) -> list[list[int]]:
        """The order on each lane. `order` is topological: it says which of two tasks of no time comes first."""
        orders: list[list[int]] = [[] for _ in range(lanes)]
        for i in by_start(order, self.starts_s, self.ends_s):
            orders[self.lane[i]].append(i)
        return orders


class SafeDispatch:
    """A problem, ready to be listed by any rank and safe order. `backward`: time runs the other way."""

    def __init__(self, problem: SchedulingProblem, buffers: BufferTable, backward: bool = False) -> None:
        n = len(problem.tasks)
        self.problem, self.backward = problem, backward
        self.count, self.lanes = n, problem.lanes
        self.room: float = math.inf if buffers.room is None or not buffers.matters else buffers.room
        self.alike = lanes_are_alike(problem)
        arrays = problem.arrays
        self.neighbours = (arrays.into, arrays.out) if backward else (arrays.out, arrays.into)
        self.sizes, self.users, self.touches = buffers.bytes, buffers.users, buffers.touches
        self.early = buffers.stays if backward else (False,) * len(buffers.bytes)
        self.stays = (False,) * len(buffers.bytes) if backward else buffers.stays
        if self.room == math.inf:
            self.touches = ((),) * n

    @cached_property
    def out(self) -> list[list[int]]:
        """The tasks that each leads to."""
        after, _ = self.neighbours
        first, task = after.start.tolist(), after.task.tolist()
        return [task[a:b] for a, b in pairwise(first)]

    @cached_property
    def into(self) -> list[list[tuple[int, float]]]:
        """The tasks that lead to each, with the delay from another lane."""
        _, before = self.neighbours
        first, pairs = before.start.tolist(), list(zip(before.task.tolist(), before.delay_s.tolist(), strict=True))
        return [pairs[a:b] for a, b in pairwise(first)]

    def run(
        self, rank: Sequence[float], order: Sequence[int], times_s: Sequence[Sequence[float]] | None = None
    ) -> Planned:
        """Everything listed by `rank` (lower first, ties by index), kept safe by `order`, which must fit the room.

        `times_s` are planned with in place of the problem's own.
        """
        times = self.problem.arrays.times_s if times_s is None else np.array(times_s, np.float64)
        if self.room == math.inf and self.alike:
            return self._unlimited(rank, np.ascontiguousarray(times[:, 0]))
        compiled = dispatch.compiled_for_many(STEPS * self.count)
        if compiled is None:
            return _Run(self, rank, order).planned(times.tolist())
        lane, starts_s, ends_s = np.full(self.count, -1), np.zeros(self.count), np.zeros(self.count)
        compiled(np.array(rank, np.float64), np.array(order, np.int64), times, *self.arrays.all, lane, starts_s, ends_s)
        return Planned(lane.tolist(), starts_s.tolist(), ends_s.tolist())

    @cached_property
    def arrays(self) -> DispatchArrays:
        """What the compiled loop takes: in one direction the same but for the room under all limits that matter."""
        limited = self.room < math.inf
        shared: dict[tuple[bool, bool], DispatchArrays] = self.problem.of_buffers.setdefault("dispatch", {})
        if (limited, self.backward) not in shared:
            shared[limited, self.backward] = self._arrays(limited)
        return replace(shared[limited, self.backward], room=int(self.room) if limited else UNLIMITED)

    def _arrays(self, limited: bool) -> DispatchArrays:
        after, before = self.neighbours
        touch_start, touch = ranges(self.touches)
        held = range(len(self.sizes) if limited else 0)  # without a limit no buffer matters
        return DispatchArrays(
            room=0,
            alike=self.alike,
            lanes=self.lanes,
            window=WINDOW,
            sizes=np.array([self.sizes[b] for b in held], np.int64),
            early=np.array([self.early[b] for b in held], np.bool_),
            stays=np.array([self.stays[b] for b in held], np.bool_),
            user_start=ranges([self.users[b] for b in held])[0],
            touch_start=touch_start,
            touch=touch,
            out_start=after.start,
            out=after.task,
            into_start=before.start,
            into=before.task,
            into_delay_s=before.delay_s,
        )

    def _unlimited(self, rank: Sequence[float], times_s: Floats) -> Planned:
        """The same where memory holds nothing back and lanes are alike."""
        after, before = self.neighbours
        steps = self.count + len(after.task)
        arguments = (times_s, after.start, after.task, np.diff(before.start))
        return Planned(*_listed(steps, *arguments, np.array(rank, np.float64), self.lanes))


@loop
def _listed(
    times_s: Floats, first: Ints, after: Ints, waits: Ints, rank: Floats, lanes: int
) -> tuple[list[int], list[float], list[float]]:
    """Lane, start and end of tasks that start in order of rank as soon as a lane is free, on the lowest one."""
    n = len(times_s)
    missing = [waits[i] for i in range(n)]
    lane, starts_s, ends_s = [-1] * n, [0.0] * n, [0.0] * n
    ready = [(rank[i], i) for i in range(n) if missing[i] == 0]
    heapq.heapify(ready)
    running = [(0.0, i) for i in range(0)]
    free, now = list(range(lanes)), 0.0
    while len(ready) > 0 or len(running) > 0:
        while len(ready) > 0 and len(free) > 0:
            _, i = heapq.heappop(ready)
            lane[i] = heapq.heappop(free)
            starts_s[i], ends_s[i] = now, now + times_s[i]
            heapq.heappush(running, (ends_s[i], i))
        now = max(now, running[0][0])
        while len(running) > 0 and running[0][0] <= now:
            _, i = heapq.heappop(running)
            heapq.heappush(free, lane[i])
            for e in range(first[i], first[i + 1]):
                j = after[e]
                missing[j] -= 1
                if missing[j] == 0:
                    heapq.heappush(ready, (rank[j], j))
    return lane, starts_s, ends_s


class _Run:
    def __init__(self, p: SafeDispatch, rank: Sequence[float], order: Sequence[int]) -> None:
        n = p.count
        self.p, self.rank, self.order = p, rank, order
        self.position = [0] * n
        for k, i in enumerate(order):
            self.position[i] = k
        self.head = 0  # position of the first task of the order that has not started
        self.started = [False] * n
        self.begun = list(p.early)
        self.begun_s = [-1.0] * len(p.sizes)
        self.unfinished = [len(u) for u in p.users]
        self.live = sum(s for s, e in zip(p.sizes, p.early, strict=True) if e)
        self.leaving = 0  # what lived no time: it makes room when time goes on
        self.places = [sorted([self.position[i] for i in u]) for u in p.users] if p.room < math.inf else []
        self.first = [0] * len(p.sizes)  # index into places: the first that has not started
        self.last = [len(u) - 1 for u in p.users]
        self.profile = self._profile()
        self.arrived: list[list[float]] = [[] for _ in range(n)]  # by lane: when what a task waits for is there

    def _profile(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Bytes alive while each task of the order runs, when all before it are done."""
        change = np.zeros(self.p.count + 1, np.int64)
        for b, places in enumerate(self.places):
            change[0 if self.p.early[b] else places[0]] += self.p.sizes[b]
            change[-1 if self.p.stays[b] else places[-1] + 1] -= self.p.sizes[b]
        return np.cumsum(change)[:-1]

    def planned(self, times_s: Sequence[Sequence[float]]) -> Planned:
        p, n = self.p, self.p.count
        lane, starts_s, ends_s = [-1] * n, [0.0] * n, [0.0] * n
        missing = [len(i) for i in p.into]
        ready = sorted((self.rank[i], i) for i in range(n) if missing[i] == 0)
        running: list[tuple[float, int]] = []
        wake: list[float] = []
        free_at = [0.0] * p.lanes
        free = list(range(p.lanes))
        now, left, forced = 0.0, n, -1
        idle = p.lanes  # lanes that run nothing now
        while left:
            at, looked = 0, 0
            while at < len(ready) and idle and looked < WINDOW:
                i = ready[at][1]
                k = free[0] if p.alike else self._lane(i, times_s[i], now, free_at, lane, ends_s, wake)
                if k >= 0 and (i == forced or self._fits(i)):
                    self._start(i, now)
                    lane[i], starts_s[i], ends_s[i] = k, now, now + times_s[i][k]
                    heapq.heappush(running, (ends_s[i], i))
                    idle -= p.alike or ends_s[i] > now
                    if p.alike:
                        heapq.heappop(free)
                    free_at[k] = ends_s[i]
                    del ready[at]
                    left -= 1
                else:
                    at += 1
                    looked += 1
            if not left:
                break
            if not running and not wake:
                forced = self.order[self.head]  # outside the window, or held up by what lives no time
                ready.remove((self.rank[forced], forced))
                ready.insert(0, (self.rank[forced], forced))
                continue
            then = min([running[0][0]] if running else [math.inf])
            if wake and wake[0] < then:
                then = heapq.heappop(wake)
            if then > now:
                self.live, self.leaving = self.live - self.leaving, 0
            now = max(now, then)
            while wake and wake[0] <= now:
                heapq.heappop(wake)
            while running and running[0][0] <= now:
                _, i = heapq.heappop(running)
                if p.alike:
                    heapq.heappush(free, lane[i])
                idle += p.alike or ends_s[i] > starts_s[i]
                self._end(i, now)
                for j in p.out[i]:
                    missing[j] -= 1
                    if missing[j] == 0:
                        insort(ready, (self.rank[j], j))
        return Planned(lane, starts_s, ends_s)

    def _lane(
        self,
        i: int,
        times_s: Sequence[float],
        now: float,
        free_at: list[float],
        lane: list[int],
        ends_s: list[float],
        wake: list[float],
    ) -> int:
        """The lane where the task ends first, -1 where it cannot start there yet."""
        arrived = self.arrived[i]
        if not arrived:  # once: when a task is ready, all that lead to it have ended
            into = [(lane[src], ends_s[src] + delay_s) for src, delay_s in self.p.into[i]]
            arrived += [max((at for src_lane, at in into if src_lane != k), default=0.0) for k in range(self.p.lanes)]
        best, best_end, best_start = -1, math.inf, 0.0
        for k, time_s in enumerate(times_s):
            start = now
            if free_at[k] > start:
                start = free_at[k]
            if arrived[k] > start:
                start = arrived[k]
            if start + time_s < best_end:
                best, best_end, best_start = k, start + time_s, start
        if best_start > now:
            if free_at[best] <= now:
                heapq.heappush(wake, best_start)
            return -1
        return best

    def _fits(self, i: int) -> bool:
        """Whether the task fits now, and the rest of the order after it."""
        p = self.p
        if p.room == math.inf:
            return True
        begun, sizes, places, first = self.begun, p.sizes, self.places, self.first
        new = [b for b in p.touches[i] if not begun[b]]
        need = 0
        for b in new:
            need += sizes[b]
        if self.live + need > p.room:
            return False
        here, head = self.position[i], self.head
        until = head
        for b in new:
            at = places[b][first[b]]
            if at > until:
                until = at
        if until == head:
            return True  # nothing new is alive before the order has it alive
        if int(_most(self.profile[head:until])) + need <= p.room:
            return True
        window = self.profile[head:until].copy()
        for b in new:
            window[: places[b][first[b]] - head] += sizes[b]
        for b in p.touches[i]:
            if not p.stays[b] and places[b][self.last[b]] == here:
                window[max(0, self._end_without(b) + 1 - head) : here - head] -= sizes[b]
        return bool(_most(window) <= p.room)

    def _end_without(self, b: int) -> int:
        """The last position at which a buffer is needed once the task there has run."""
        places, last = self.places[b], self.last[b] - 1
        started, order = self.started, self.order
        while last >= 0 and started[order[places[last]]]:
            last -= 1
        return places[last] if last >= 0 else -1

    def _start(self, i: int, now: float) -> None:
        p = self.p
        here = self.position[i]
        started, order = self.started, self.order
        started[i] = True
        if p.room < math.inf:
            profile, begun, head = self.profile, self.begun, self.head
            for b in p.touches[i]:
                places, last, first, size = self.places[b], self.last[b], self.first[b], p.sizes[b]
                if not begun[b]:
                    begun[b], self.begun_s[b] = True, now
                    self.live += size
                    if places[first] > head:
                        profile[head : places[first]] += size
                if places[last] == here:  # it is needed no longer than by the last of the others
                    last -= 1
                    while last >= 0 and started[order[places[last]]]:
                        last -= 1
                    self.last[b] = last
                    if not p.stays[b]:
                        profile[max(head, places[last] + 1 if last >= 0 else 0) : here] -= size
                while first < len(places) and started[order[places[first]]]:
                    first += 1
                self.first[b] = first
            profile[here] = GONE
        head = self.head
        while head < p.count and started[order[head]]:
            head += 1
        self.head = head

    def _end(self, i: int, now: float) -> None:
        for b in self.p.touches[i]:
            self.unfinished[b] -= 1
            if self.unfinished[b] == 0 and not self.p.stays[b]:
                if self.begun_s[b] == now:
                    self.leaving += self.p.sizes[b]
                else:
                    self.live -= self.p.sizes[b]
