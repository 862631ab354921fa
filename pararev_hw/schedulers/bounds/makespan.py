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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.schedulers.bounds.memory import area_bound, excluding_sets
from pararev_hw.schedulers.bounds.overlap import pairing_bound
from pararev_hw.schedulers.buffer_table import buffer_table_of
from pararev_hw.types import SchedulingProblem
from pararev_hw.types.problem_arrays import Floats, Ints

MAX_LANE_SETS = 32  # sets of lanes that are looked at one by one; each costs O(n log n)
_with_pairs: ContextVar[bool] = ContextVar("with_pairs", default=True)


@contextmanager
def without_pairs() -> Iterator[None]:
    """Inside, `lower_bound` leaves out the linear program over pairs of tasks: of some hundred tasks it takes longer
    than the schedules that it bounds. Schedules that turn out to be of use take the whole bound with `with_bound`."""
    token = _with_pairs.set(False)
    try:
        yield
    finally:
        _with_pairs.reset(token)


def lower_bound(problem: SchedulingProblem) -> tuple[float, str]:
    """The best of the bounds in seconds, and what sets it; (0.0, "nothing to do") for a problem without work.

    Heads and tails take each task's best time and no communication. On a tie the name that comes first below wins.
    """
    limited = problem.memory_limit_bytes is not None and buffer_table_of(problem).matters
    worked_out = problem.worked_out if limited else problem.of_tasks
    pairs = _with_pairs.get()
    name = "makespan" if pairs or "makespan" in worked_out else "makespan without pairs"
    if name not in worked_out:
        worked_out[name] = _lower_bound(problem, pairs)
    bound: tuple[float, str] = worked_out[name]
    return bound


def _lower_bound(problem: SchedulingProblem, pairs: bool) -> tuple[float, str]:
    arrays = problem.arrays
    works = arrays.best_s
    heads, tails = map(np.array, heads_and_tails(problem, works.tolist()))
    everything = np.arange(len(works))
    best_s, bound_by = 0.0, "nothing to do"
    for bound_s, name in (
        (float((heads + works + tails).max(initial=0.0)), "critical path"),
        (sum(works.tolist()) / problem.lanes, "work over lanes"),
        *_lane_bounds(arrays.times_s, works, heads, tails),
        *(
            (_machine(everything, heads, works * demand, tails), name)
            for demand, name in (
                (arrays.compute_demand, "shared compute"),
                (arrays.bandwidth_demand, "shared bandwidth"),
            )
            if demand.any()
        ),
        *_host_bound(arrays.host_s, tails),
        *_memory_bounds(problem, works, heads, tails),
        *(_pairing_bound(problem) if pairs else ()),
    ):
        if bound_s > best_s * (1 + 1e-12):  # a bound that only rounds higher does not take the name
            best_s, bound_by = bound_s, name
    return _whole(problem, best_s), bound_by


def bound_within(problem: SchedulingProblem, roomy: tuple[float, str]) -> tuple[float, str]:
    """The best of `roomy`, the bound of the same problem with a wider memory limit, and of what its own limit adds.

    Less than `lower_bound` gives where tasks may share a chip: which of them can overlap within a limit is a linear
    program, and costs more than a limit's schedules.
    """
    works = problem.arrays.best_s
    heads, tails = map(np.array, heads_and_tails(problem, works.tolist()))
    return max((roomy, *_memory_bounds(problem, works, heads, tails)), key=lambda b: b[0])


def _whole(problem: SchedulingProblem, bound_s: float) -> float:
    """Where every time is a multiple of some whole number, and nothing stretches tasks, so is every makespan."""
    arrays = problem.arrays
    if not arrays.plain:
        return bound_s
    times = np.concatenate((arrays.times_s[arrays.times_s < math.inf], arrays.delay_s))
    if times.max(initial=0.0) > 2**50 or (times != np.trunc(times)).any():
        return bound_s
    step = int(np.gcd.reduce(times.astype(np.int64), initial=0))
    return float(step * math.ceil(bound_s / step * (1 - 1e-12))) if step else bound_s


def heads_and_tails(problem: SchedulingProblem, works: Sequence[float]) -> tuple[list[float], list[float]]:
    """The longest path into and out of each task in the times `works`, without its own time."""
    out = problem.arrays.out
    order = np.array(problem.topological_order(), np.int64)
    heads, tails = _heads_and_tails(
        len(works) + len(out.task), np.asarray(works, np.float64), out.start, out.task, order
    )
    return heads, tails


@loop
def _heads_and_tails(works: Floats, first: Ints, after: Ints, order: Ints) -> tuple[list[float], list[float]]:
    n = len(works)
    heads, tails = [0.0] * n, [0.0] * n
    for k in range(n):
        i = order[k]
        end = heads[i] + works[i]
        for e in range(first[i], first[i + 1]):
            heads[after[e]] = max(heads[after[e]], end)
    for k in range(n - 1, -1, -1):
        i = order[k]
        for e in range(first[i], first[i + 1]):
            tails[i] = max(tails[i], tails[after[e]] + works[after[e]])
    return heads, tails


def _lane_bounds(times_s: Floats, works: Floats, heads: Floats, tails: Floats) -> Iterable[tuple[float, str]]:
    """For each set of lanes that some task is confined to: everything confined to it, served by those lanes only."""
    whole = tuple(range(times_s.shape[1]))
    members = {whole: np.arange(len(times_s))}
    may = times_s < math.inf
    if not may.all():
        masks, mask_of_task = np.unique(may, axis=0, return_inverse=True)
        members = {whole: np.zeros(0, np.int64)} | {
            tuple(np.flatnonzero(mask).tolist()): np.flatnonzero(mask_of_task == k) for k, mask in enumerate(masks)
        }
    busiest = sorted(members, key=lambda s: (-sum(works[members[s]].tolist()) / len(s), s))
    for confined in busiest[:MAX_LANE_SETS]:
        inside = set(confined)
        within = np.concatenate([tasks for s, tasks in members.items() if inside.issuperset(s)])
        name = "head-body-tail" if confined == whole else f"work on lane {', '.join(map(str, confined))}"
        yield _machine(within, heads, works / len(confined), tails), name


def _host_bound(host_s: Floats, tails: Floats) -> Iterable[tuple[float, str]]:
    """The host issues everything, and what is issued last still has its tail before it."""
    if host_s.any():
        yield _machine(np.flatnonzero(host_s > 0), np.zeros(len(host_s)), host_s, tails), "host clock"


def _memory_bounds(
    problem: SchedulingProblem, works: Floats, heads: Floats, tails: Floats
) -> Iterable[tuple[float, str]]:
    """What the memory limit adds; see `bounds.memory`."""
    if problem.memory_limit_bytes is not None and buffer_table_of(problem).matters:
        yield area_bound(problem, works.tolist(), tails.tolist()), "bytes x time that the memory offers"
        for members in excluding_sets(problem, works.tolist()):
            yield _machine(np.array(members), heads, works, tails), "tasks that do not fit the memory together"


def _pairing_bound(problem: SchedulingProblem) -> Iterable[tuple[float, str]]:
    """What two lanes can do side by side, where they share a chip or a memory that is limited; see `bounds.overlap`."""
    shared = problem.arrays.compute_demand.any() or problem.arrays.bandwidth_demand.any()
    limited = problem.memory_limit_bytes is not None
    if problem.lanes == 2 and (shared or (limited and buffer_table_of(problem).matters)):
        yield pairing_bound(problem), "overlap of two lanes"


def _machine(members: Ints, heads: Floats, works: Floats, tails: Floats) -> float:
    """The end of the preemptive one-machine schedule of `members` with heads and tails: longest tail first."""
    head, tail, work = heads[members], tails[members], works[members]
    arriving = np.lexsort((work, -tail, head))
    return float(_one_machine(len(members), head[arriving], tail[arriving], work[arriving]))


@loop
def _one_machine(heads: Floats, tails: Floats, works: Floats) -> float:
    """The same for tasks that are sorted by head."""
    waiting = [(0.0, 0.0) for _ in range(0)]  # (-tail, work left)
    now, end = 0.0, 0.0
    k, n = 0, len(heads)
    while k < n or len(waiting) > 0:
        if len(waiting) == 0:
            now = max(now, heads[k])
        while k < n and heads[k] <= now:
            heapq.heappush(waiting, (-tails[k], works[k]))
            k += 1
        tail, left = waiting[0]
        if k < n and heads[k] < now + left:
            heapq.heapreplace(waiting, (tail, left - (heads[k] - now)))
            now = heads[k]
        else:
            heapq.heappop(waiting)
            now += left
            end = max(end, now - tail)
    return end
