"""Tabu search where every task has one lane of its own: what is left to decide is who goes before whom on each lane.

Only what lies on a longest path can shorten a schedule, and of it only tasks at the ends of *blocks*, runs of such
tasks on one lane. A step moves a task of a block to one of its ends, or an end of it inside (N6: E. Balas,
A. Vazacopoulos, 1998, doi 10.1287/mnsc.44.2.262; N7: C. Zhang et al., 2007, doi 10.1016/j.cor.2005.12.002), whichever
is estimated to give the shortest schedule and does not undo a recent move (E. Nowicki, C. Smutnicki, 1996,
doi 10.1287/mnsc.42.6.797).
When nothing better has come for long, it goes on from the best, some random moves away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pararev_hw.compiled import as_list, loop, part
from pararev_hw.schedulers.forward_backward import is_plain
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Floats, Ints

PLAIN_S = 3.5e-6  # seconds that a move takes in plain Python, per task
MOST_TASKS = 1500  # who may not go before whom is a table of tasks by tasks
PATIENCE = 1500  # moves without progress before it goes on from the best
SHAKE = 30  # random moves then

# places in the search's integers
MOVES, SEED, SINCE, SHAKING, STUCK = range(5)


def is_job_shop(problem: SchedulingProblem) -> bool:
    """Whether every task can run on one lane alone, takes time there, and takes just that time."""
    times_s = problem.arrays.times_s
    one_lane = bool((np.isfinite(times_s).sum(1) == 1).all())
    return one_lane and 1 < len(times_s) <= MOST_TASKS and bool(problem.arrays.best_s.min() > 0) and is_plain(problem)


def search_is_compiled() -> bool:
    """Whether the compiled search is at hand."""
    return _moves.at_hand


class _Shop(NamedTuple):
    """What does not change: tasks by number, what comes in and goes out of each by its range of an adjacency."""

    work: Floats
    lane: Ints
    lane_start: Ints  # in the sequence
    in_start: Ints
    in_task: Ints
    in_delay: Floats
    out_start: Ints
    out_task: Ints
    out_delay: Floats


class _Search(NamedTuple):
    """Where the search stands."""

    sequence: Ints  # the tasks of each lane, one lane after the other
    place: Ints  # of each task in the sequence
    best: Ints  # the best sequence so far
    best_s: Floats  # its makespan, alone
    tabu: Ints  # [a * n + b]: until which move a may not go before b again
    numbers: Ints


class _Paths(NamedTuple):
    """The longest paths of a sequence, and room to work out those of another."""

    heads: Floats
    tails: Floats  # own time included
    missing: Ints
    order: Ints
    path: Ints
    new_heads: Floats
    new_tails: Floats


@dataclass(slots=True)
class TabuSearch:
    """A search that can be asked for more moves; `best` is the best so far, as an order of the tasks of each lane."""

    problem: SchedulingProblem
    lanes: Sequence[Sequence[int]]
    seed: int
    compiled: bool  # or in plain Python, with the same results
    best_s: float = field(init=False)
    _run: Callable[..., None] = field(init=False, repr=False)
    _shop: _Shop = field(init=False, repr=False)
    _search: _Search = field(init=False, repr=False)
    _paths: _Paths = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arrays, n = self.problem.arrays, len(self.problem.tasks)
        lane = arrays.times_s.argmin(1)
        delay_in = np.where(lane[arrays.into.task] != lane[_owner(arrays.into.start)], arrays.into.delay_s, 0.0)
        delay_out = np.where(lane[arrays.out.task] != lane[_owner(arrays.out.start)], arrays.out.delay_s, 0.0)
        starts = np.concatenate(([0], np.cumsum([len(order) for order in self.lanes])))
        sequence = np.array([i for order in self.lanes for i in order], np.int64)
        place = np.empty(n, np.int64)
        place[sequence] = np.arange(n)
        numbers = np.array([0, 1 + self.seed % 1_000_003, 0, 0, 0])
        into, out = arrays.into, arrays.out
        shop = _Shop(arrays.best_s, lane, starts, into.start, into.task, delay_in, out.start, out.task, delay_out)
        search = _Search(sequence, place, sequence.copy(), np.array([math.inf]), np.zeros(n * n, np.int64), numbers)
        times, tasks = np.zeros((4, n)), np.zeros((3, n), np.int64)
        paths = _Paths(times[0], times[1], tasks[0], tasks[1], tasks[2], times[2], times[3])
        run = _moves.compile() if self.compiled else None
        if run is None:
            self._run = _moves.plain
            self._shop, self._search = _Shop(*map(as_list, shop)), _Search(*map(as_list, search))
            self._paths = _Paths(*map(as_list, paths))
        else:
            self._run, self._shop, self._search, self._paths = run, shop, search, paths
        self.best_s = math.inf

    def move(self, count: int) -> bool:
        """So many moves more. False where no task can be moved: on the longest path no lane decides anything."""
        self._run(count, self._shop, self._search, self._paths)
        self.best_s = float(self._search.best_s[0])
        return bool(self._search.numbers[STUCK] == 0)

    @property
    def best(self) -> list[list[int]]:
        return [[int(i) for i in self._search.best[a:b]] for a, b in pairwise(self._shop.lane_start)]


def _owner(start: Ints) -> Ints:
    """The task that each entry of an adjacency belongs to."""
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


@loop
def _moves(count: int, shop: _Shop, search: _Search, paths: _Paths) -> None:
    """`count` moves; the arrays of `search` and `paths` are changed."""
    sequence, place, best, best_s, numbers = search.sequence, search.place, search.best, search.best_s, search.numbers
    n = len(shop.work)
    for _ in range(count):
        makespan = _times(shop, search, paths)
        if makespan < best_s[0] * (1.0 - 1e-12):
            best_s[0] = makespan
            for k in range(n):
                best[k] = sequence[k]
            numbers[SINCE] = 0
        numbers[MOVES] += 1
        numbers[SINCE] += 1
        if numbers[SINCE] > PATIENCE:
            for k in range(n):
                sequence[k] = best[k]
                place[best[k]] = k
            numbers[SINCE], numbers[SHAKING] = 0, SHAKE
            continue
        length = _longest_path(makespan, shop, search, paths)
        source, target = _chosen_move(length, shop, search, paths)
        if source < 0:
            numbers[STUCK] = 1
            return
        _move(source, target, len(shop.lane_start) - 1, search)


@part
def _chosen_move(length: int, shop: _Shop, search: _Search, paths: _Paths) -> tuple[int, int]:
    """From which place of the sequence a task goes to which: the move of a block on the path whose schedule is
    estimated to be shortest and that is not tabu, or one at random where all are tabu or the search shakes. -1 where
    nothing can move."""
    lane, place, numbers, path = shop.lane, search.place, search.numbers, paths.path
    source, target, estimate, ties, move_count = -1, -1, math.inf, 0, 0
    loose_source, loose_target = -1, -1  # at random
    last = length - 1
    while last >= 0:  # the path runs backward: from the last task to the first
        first = last
        while (
            first > 0
            and place[path[first - 1]] == place[path[last]] + (last - first + 1)
            and lane[path[first - 1]] == lane[path[last]]
        ):
            first -= 1
        a, b = place[path[last]], place[path[first]]
        last = first - 1
        for move_kind in range(4):
            for inner in range(a, b + 1):
                start, to = _ends(move_kind, inner, a, b)
                if start == to or not _may_move(start, to, shop, search, paths):
                    continue
                guess = _estimate(start, to, shop, search, paths)
                move_count += 1
                if _drawn(numbers) % move_count == 0:
                    loose_source, loose_target = start, to
                if guess >= search.best_s[0] and _is_tabu(start, to, search):
                    continue
                if guess < estimate:
                    source, target, estimate, ties = start, to, guess, 1
                elif guess == estimate:
                    ties += 1
                    if _drawn(numbers) % ties == 0:
                        source, target = start, to
    if move_count > 0 and (source < 0 or numbers[SHAKING] > 0):
        source, target = loose_source, loose_target
        numbers[SHAKING] = max(0, numbers[SHAKING] - 1)
    return source, target


@part
def _ends(move_kind: int, inner: int, a: int, b: int) -> tuple[int, int]:
    """From where to where the task at `inner` of the block from `a` to `b` goes; nowhere where another kind does it."""
    if move_kind == 0:
        return inner, b  # behind the end
    if move_kind == 1:
        return (inner, a) if a + 1 < b else (a, a)  # before the beginning; of two tasks it is the same swap
    if inner in (a, b):
        return a, a
    return (a if move_kind == 2 else b), inner  # the beginning behind it, or the end before it


@part
def _move(source: int, target: int, lanes: int, search: _Search) -> None:
    """Put the task at `source` at `target`, and make going back tabu for a while."""
    sequence, place, numbers, n = search.sequence, search.place, search.numbers, len(search.sequence)
    width = 10 + n // max(1, lanes**2)
    until = numbers[MOVES] + width + _drawn(numbers) % (1 + width // 2)
    moved = sequence[source]
    step = 1 if target > source else -1
    at = source
    while at != target:
        other = sequence[at + step]
        sequence[at] = other
        place[other] = at
        if step > 0:
            search.tabu[moved * n + other] = until
        else:
            search.tabu[other * n + moved] = until
        at += step
    sequence[target] = moved
    place[moved] = target


@part
def _drawn(numbers: Ints) -> int:
    """A random number below 2^15."""
    numbers[SEED] = (numbers[SEED] * 1103515245 + 12345) % 2147483648
    return int(numbers[SEED] // 65536)


@part
def _times(shop: _Shop, search: _Search, paths: _Paths) -> float:
    """Longest ways into every task and from its start to the end; the makespan."""
    work, lane, lane_start, in_start, in_task, in_delay = (
        shop.work,
        shop.lane,
        shop.lane_start,
        shop.in_start,
        shop.in_task,
        shop.in_delay,
    )
    out_start, out_task, out_delay, sequence, place = (
        shop.out_start,
        shop.out_task,
        shop.out_delay,
        search.sequence,
        search.place,
    )
    heads, tails, missing, order = paths.heads, paths.tails, paths.missing, paths.order
    n, visited, queued = len(work), 0, 0
    for i in range(n):
        missing[i] = in_start[i + 1] - in_start[i] + (1 if place[i] > lane_start[lane[i]] else 0)
        if missing[i] == 0:
            order[queued] = i
            queued += 1
    makespan = 0.0
    while visited < queued:
        i = order[visited]
        visited += 1
        head = 0.0
        if place[i] > lane_start[lane[i]]:
            before = sequence[place[i] - 1]
            head = heads[before] + work[before]
        for e in range(in_start[i], in_start[i + 1]):
            head = max(head, heads[in_task[e]] + work[in_task[e]] + in_delay[e])
        heads[i] = head
        makespan = max(makespan, head + work[i])
        if place[i] + 1 < lane_start[lane[i] + 1]:
            j = sequence[place[i] + 1]
            missing[j] -= 1
            if missing[j] == 0:
                order[queued] = j
                queued += 1
        for e in range(out_start[i], out_start[i + 1]):
            j = out_task[e]
            missing[j] -= 1
            if missing[j] == 0:
                order[queued] = j
                queued += 1
    for k in range(queued - 1, -1, -1):
        i = order[k]
        rest = 0.0
        if place[i] + 1 < lane_start[lane[i] + 1]:
            rest = tails[sequence[place[i] + 1]]
        for e in range(out_start[i], out_start[i + 1]):
            rest = max(rest, out_delay[e] + tails[out_task[e]])
        tails[i] = work[i] + rest
    return makespan


@part
def _longest_path(makespan: float, shop: _Shop, search: _Search, paths: _Paths) -> int:
    """One of the longest paths, backward, into `path`; its length. Which one is drawn."""
    work, in_start, in_task, in_delay = shop.work, shop.in_start, shop.in_task, shop.in_delay
    lane, lane_start, sequence, place, numbers = (
        shop.lane,
        shop.lane_start,
        search.sequence,
        search.place,
        search.numbers,
    )
    heads, path = paths.heads, paths.path
    at, ties = -1, 0
    for i in range(len(work)):
        if heads[i] + work[i] == makespan:
            ties += 1
            if _drawn(numbers) % ties == 0:
                at = i
    length = 0
    while at >= 0:
        path[length] = at
        length += 1
        before, ties = -1, 0
        if heads[at] > 0.0:
            if place[at] > lane_start[lane[at]]:
                j = sequence[place[at] - 1]
                if heads[j] + work[j] == heads[at]:
                    before, ties = j, 1
            for e in range(in_start[at], in_start[at + 1]):
                j = in_task[e]
                if heads[j] + work[j] + in_delay[e] == heads[at] and j != before:
                    ties += 1
                    if _drawn(numbers) % ties == 0:
                        before = j
        at = before
    return length


@part
def _may_move(start: int, to: int, shop: _Shop, search: _Search, paths: _Paths) -> bool:
    """Whether it is sure that a task can go to another place of its lane and nobody waits for himself."""
    lane, place, task, other = shop.lane, search.place, search.sequence[start], search.sequence[to]
    work, in_start, in_task = shop.work, shop.in_start, shop.in_task
    out_start, out_task, heads, tails = shop.out_start, shop.out_task, paths.heads, paths.tails
    if to > start:
        for e in range(out_start[task], out_start[task + 1]):
            j = out_task[e]
            if tails[j] > tails[other] or (lane[j] == lane[task] and place[j] <= to):
                return False
    else:
        for e in range(in_start[task], in_start[task + 1]):
            j = in_task[e]
            if heads[j] + work[j] > heads[other] + work[other] or (lane[j] == lane[task] and place[j] >= to):
                return False
    return True


@part
def _is_tabu(start: int, to: int, search: _Search) -> bool:
    """Whether a move would put a task before another one that it had been moved behind not long ago."""
    sequence, tabu, n, now = search.sequence, search.tabu, len(search.sequence), search.numbers[MOVES]
    task = sequence[start]
    step = 1 if to > start else -1
    at = start
    while at != to:
        at += step
        other = sequence[at]
        if (tabu[other * n + task] if step > 0 else tabu[task * n + other]) > now:
            return True
    return False


@part
def _estimate(start: int, to: int, shop: _Shop, search: _Search, paths: _Paths) -> float:
    """The longest path through the tasks that a move shifts, with what is around them as it was."""
    work, in_start, in_task, in_delay = shop.work, shop.in_start, shop.in_task, shop.in_delay
    out_start, out_task, out_delay, sequence = shop.out_start, shop.out_task, shop.out_delay, search.sequence
    heads, tails, new_heads, new_tails = paths.heads, paths.tails, paths.new_heads, paths.new_tails
    lane_start, lane = shop.lane_start, shop.lane
    low, high = min(start, to), max(start, to)
    k = lane[sequence[start]]
    ready = 0.0
    if low > lane_start[k]:
        before = sequence[low - 1]
        ready = heads[before] + work[before]
    for at in range(low, high + 1):
        i = _shifted(at, start, to, sequence)
        for e in range(in_start[i], in_start[i + 1]):
            ready = max(ready, heads[in_task[e]] + work[in_task[e]] + in_delay[e])
        new_heads[at] = ready
        ready += work[i]
    rest = 0.0
    if high + 1 < lane_start[k + 1]:
        rest = tails[sequence[high + 1]]
    longest = 0.0
    for at in range(high, low - 1, -1):
        i = _shifted(at, start, to, sequence)
        for e in range(out_start[i], out_start[i + 1]):
            rest = max(rest, out_delay[e] + tails[out_task[e]])
        rest += work[i]
        new_tails[at] = rest
        longest = max(longest, new_heads[at] + rest)
    return longest


@part
def _shifted(at: int, start: int, to: int, sequence: Ints) -> int:
    """The task at a place once the one at `start` stands at `to`."""
    if at == to:
        return int(sequence[start])
    if start < to:
        return int(sequence[at + 1])
    return int(sequence[at - 1])
