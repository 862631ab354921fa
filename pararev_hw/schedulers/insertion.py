"""Places tasks one after another in a given order, each on the lane where it ends first, in gaps too.

Twice, with the same results: over sorted lists, which is quickest for few tasks and needs nothing, and compiled, over
balanced trees of gaps in which every node knows the longest gap below it, so that n tasks take O(n log n).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararev_hw.compiled import loop, part
from pararev_hw.types.problem_arrays import Adjacency, Floats, Ints


@dataclass(frozen=True, slots=True)
class Placed:
    """Lane, start and end of each task, by index, and the order on each lane."""

    lane: list[int]
    start_s: list[float]
    end_s: list[float]
    lanes: list[list[int]]

    @property
    def makespan_s(self) -> float:
        return max(self.end_s, default=0.0)


def place(
    times_s: Sequence[Sequence[float]], into: Sequence[Sequence[tuple[int, float]]], order: Iterable[int], lanes: int
) -> Placed:
    """Tasks in `order` (predecessors first), each on the lane of earliest finish, ties to the lowest lane.

    `times_s[i][k]` is the time of task i on lane k, `into[i]` its predecessors, each with the delay from another lane.
    Without sharing and host clock. Tasks of no time keep the given order among those that start with them.
    """
    n = len(times_s)
    lines = [_Lane() for _ in range(lanes)]
    lane, starts_s, end_s = [0] * n, [0.0] * n, [0.0] * n
    for at, i in enumerate(order):
        mine = times_s[i]
        ready_s = _ready(into[i], lane, end_s, lanes)
        start_s, finish_s, best = 0.0, math.inf, -1
        for k, line in enumerate(lines):
            if ready_s[k] + mine[k] < finish_s:
                found_s = line.earliest(ready_s[k], mine[k])
                if found_s + mine[k] < finish_s:
                    start_s, finish_s, best = found_s, found_s + mine[k], k
        lane[i], starts_s[i], end_s[i] = best, start_s, finish_s
        lines[best].occupy(start_s, finish_s, at, i)
    return Placed(lane, starts_s, end_s, [line.tasks() for line in lines])


def place_arrays(times_s: Floats, into: Adjacency, order: Ints) -> Placed:
    """The same as `place`, for arrays: `times_s` is [tasks, lanes]."""
    n, lanes = times_s.shape
    if _place.compiled_for(n * lanes) is None:
        first, task, delay_s = into.start.tolist(), into.task.tolist(), into.delay_s.tolist()
        pairs = list(zip(task, delay_s, strict=True))
        before = [pairs[first[i] : first[i + 1]] for i in range(n)]
        return place(times_s.tolist(), before, order.tolist(), lanes)
    lane, starts_s, ends_s = _place(n * lanes, lanes, times_s.reshape(-1), into.start, into.task, into.delay_s, order)
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    in_time = np.lexsort((position, ends_s, starts_s))
    on = np.asarray(lane)[in_time]
    return Placed(lane, starts_s, ends_s, [in_time[on == k].tolist() for k in range(lanes)])


def _ready(into: Sequence[tuple[int, float]], lane: list[int], end_s: list[float], lanes: int) -> list[float]:
    """When the inputs of a task are there, on each lane: two latest arrivals from different lanes say it all."""
    here = first = second = 0.0
    first_lane = -1
    for src, delay_s in into:
        end = end_s[src]
        here = max(here, end)
        arrives = end + delay_s
        if lane[src] == first_lane:
            first = max(first, arrives)
        elif arrives > first:
            first, second, first_lane = arrives, first, lane[src]
        else:
            second = max(second, arrives)
    ready = [max(here, first)] * lanes
    if first_lane >= 0:
        ready[first_lane] = max(here, second)
    return ready


class _Lane:
    """What a lane runs and the gaps in between, both in order of time. The last gap never ends."""

    __slots__ = ("gap_ends", "gap_starts", "runs")

    def __init__(self) -> None:
        self.gap_starts, self.gap_ends = [0.0], [math.inf]
        self.runs: list[tuple[float, float, int, int]] = []  # start, end, position in the order, task

    def earliest(self, ready_s: float, time_s: float) -> float:
        """The earliest start from `ready_s` on in a gap of at least `time_s`."""
        at = bisect_left(self.gap_ends, ready_s)
        starts, ends = self.gap_starts, self.gap_ends
        while True:
            start = max(starts[at], ready_s)
            if start + time_s <= ends[at]:
                return start
            at += 1

    def occupy(self, start_s: float, end_s: float, position: int, task: int) -> None:
        """Runs `task` in the gap around `start_s`."""
        insort(self.runs, (start_s, end_s, position, task))
        if end_s == start_s:
            return
        at = bisect_right(self.gap_starts, start_s) - 1
        gap_start, gap_end = self.gap_starts[at], self.gap_ends[at]
        left = [(s, e) for s, e in ((gap_start, start_s), (end_s, gap_end)) if s < e]
        self.gap_starts[at : at + 1] = [s for s, _ in left]
        self.gap_ends[at : at + 1] = [e for _, e in left]

    def tasks(self) -> list[int]:
        return [task for _, _, _, task in self.runs]


@loop
def _place(
    lanes: int, times_s: Floats, first: Ints, source: Ints, delay_s: Floats, order: Ints
) -> tuple[list[int], list[float], list[float]]:
    """Lane, start and end of every task. Gaps are nodes of one tree per lane, in order of time.

    Node v is the gap from `opens[v]` to `closes[v]`, of `length[v]`, -inf where it was filled; `longest[v]` is the most
    length in the tree below it. A node's place in its tree is kept by a random rank (a treap: R. Seidel, C. R. Aragon,
    1996, doi 10.1007/BF01940876).
    """
    n = len(order)
    size = lanes + n
    opens, closes = [0.0] * size, [math.inf] * size
    length, longest = [math.inf] * size, [math.inf] * size
    left, right, up = [-1] * size, [-1] * size, [-1] * size
    rank, root = [0] * size, list(range(lanes))
    used, drawn, horizon = lanes, 1, 0.0
    lane, starts_s, ends_s = [0] * n, [0.0] * n, [0.0] * n
    for at in range(n):
        i = order[at]
        here, latest, second, latest_lane = 0.0, 0.0, 0.0, -1
        for e in range(first[i], first[i + 1]):
            j = source[e]
            here = max(here, ends_s[j])
            arrives = ends_s[j] + delay_s[e]
            if lane[j] == latest_lane:
                latest = max(latest, arrives)
            elif arrives > latest:
                second, latest, latest_lane = latest, arrives, lane[j]
            else:
                second = max(second, arrives)
        best_start, finish, best, gap = 0.0, math.inf, -1, -1
        for k in range(lanes):
            time = times_s[i * lanes + k]
            ready = max(here, second) if k == latest_lane else max(here, latest)
            if ready + time < finish:
                node = _first_fit(root[k], ready, time, horizon, opens, closes, length, longest, left, right, up)
                start = max(opens[node], ready)
                if start + time < finish:
                    best_start, finish, best, gap = start, start + time, k, node
        lane[i], starts_s[i], ends_s[i] = best, best_start, finish
        horizon = max(horizon, finish)
        if finish == best_start:
            continue
        opened, closed = opens[gap], closes[gap]
        if opened < best_start:
            closes[gap] = best_start
            length[gap] = best_start - opened
        elif finish < closed:
            opens[gap] = finish
            length[gap] = closed - finish
        else:
            length[gap] = -math.inf
        _lift(gap, length, longest, left, right, up)
        if opened < best_start and finish < closed:
            drawn = (drawn * 1103515245 + 12345) % 2147483648
            opens[used], closes[used], length[used], rank[used] = finish, closed, closed - finish, drawn
            _insert_after(gap, used, best, root, rank, length, longest, left, right, up)
            used += 1
    return lane, starts_s, ends_s


@part
def _first_fit(
    root: int,
    ready: float,
    time: float,
    horizon: float,
    opens: Any,
    closes: Any,
    length: Any,
    longest: Any,
    left: Any,
    right: Any,
    up: Any,
) -> int:
    """The first gap in which a task that is ready can run. Lanes have no end, so there always is one."""
    node, at = -1, root
    while at >= 0:  # the first gap that ends when the task is ready, or later
        if closes[at] >= ready:
            node, at = at, left[at]
        else:
            at = right[at]
    need = time * (1.0 - 1e-12) - 1e-15 * horizon  # what rounding could still make fit is looked at
    while length[node] < 0.0 or max(opens[node], ready) + time > closes[node]:
        below = right[node]
        while below < 0 or longest[below] < need:  # up, to the next gap that is long enough or has one below it
            above = up[node]
            if left[above] == node and length[above] >= need:
                node = above
                below = -2
                break
            below = right[above] if left[above] == node else -1
            node = above
        if below == -2:
            continue
        node = below
        while True:  # down, to the first one
            if left[node] >= 0 and longest[left[node]] >= need:
                node = left[node]
            elif length[node] >= need:
                break
            else:
                node = right[node]
    return node


@part
def _lift(node: int, length: Any, longest: Any, left: Any, right: Any, up: Any) -> None:
    """Bring the longest gaps above a node up to date."""
    while node >= 0:
        most = length[node]
        if left[node] >= 0:
            most = max(most, longest[left[node]])
        if right[node] >= 0:
            most = max(most, longest[right[node]])
        longest[node] = most
        node = up[node]


@part
def _insert_after(
    node: int,
    new: int,
    lane: int,
    root: Any,
    rank: Any,
    length: Any,
    longest: Any,
    left: Any,
    right: Any,
    up: Any,
) -> None:
    """Put a new gap behind another one in time, then turn it up the tree until no rank above it is lower."""
    if right[node] < 0:
        right[node] = new
        up[new] = node
    else:
        at = right[node]
        while left[at] >= 0:
            at = left[at]
        left[at] = new
        up[new] = at
    while up[new] >= 0 and rank[up[new]] < rank[new]:
        parent = up[new]
        above = up[parent]
        if left[parent] == new:
            moved = right[new]
            left[parent] = moved
            right[new] = parent
        else:
            moved = left[new]
            right[parent] = moved
            left[new] = parent
        if moved >= 0:
            up[moved] = parent
        up[parent] = new
        up[new] = above
        if above < 0:
            root[lane] = new
        elif left[above] == parent:
            left[above] = new
        else:
            right[above] = new
        most = length[parent]
        if left[parent] >= 0:
            most = max(most, longest[left[parent]])
        if right[parent] >= 0:
            most = max(most, longest[right[parent]])
        longest[parent] = most
    longest[new] = length[new]
    _lift(new, length, longest, left, right, up)
