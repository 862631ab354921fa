"""List scheduling that is improved by scheduling backward from the end and forward again.

A backward pass lists the tasks of the reversed problem by latest end first, which pushes each as late as the makespan
allows; the next forward pass lists them by those starts. K. Y. Li, R. J. Willis, 1992,
doi 10.1016/0377-2217(92)90320-9; V. Valls, F. Ballestín, S. Quintanilla ("justification"), 2005,
doi 10.1016/j.ejor.2004.04.008.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.deadline import NEVER, Deadline
from pararev_hw.schedulers.dispatch import dispatch, lanes_are_alike, orders_of_times
from pararev_hw.schedulers.evaluate import PROVED, evaluate_orders, makespan_of
from pararev_hw.schedulers.heft import upward_ranks
from pararev_hw.schedulers.insertion import place_arrays
from pararev_hw.types import Schedule, SchedulingProblem
from pararev_hw.types.problem_arrays import Adjacency, Floats, Ints

NOISE = 0.3  # a fresh start multiplies each rank by up to 1 + NOISE
STALE = 2  # pairs of passes without progress before a fresh start
PLACEMENTS = 40_000  # tasks placed in all passes together, at least two passes: it bounds the time, without a clock
PASSES = 500  # at most, for problems so small that the placements would take them further
INSERTION = 5  # placing a task in a gap of the best lane takes about so many times as long as dispatching it


def schedule(problem: SchedulingProblem) -> Schedule:
    """Passes from HEFT's ranks until the bound is met, then from ranks with noise (seeded), while the budget lasts.

    Lanes that are all alike are served as tasks get ready; on others each task goes where it ends first, in gaps too.
    The passes plan without sharing, host clock and memory; the best of them is chosen by what the simulator gives with
    sharing and host. Raises Infeasible where nothing fits the memory limit.
    """
    return schedule_by(problem, NEVER)


def schedule_by(problem: SchedulingProblem, deadline: Deadline) -> Schedule:
    """The same in the passes before the deadline, at least one."""
    bound = lower_bound(problem)
    lanes = search(problem, min(PLACEMENTS, PASSES * len(problem.tasks)), bound=bound, deadline=deadline)
    return evaluate_orders(problem, lanes, "forward-backward", problem_bound=bound)


@dataclass(frozen=True, slots=True)
class _Pass:
    starts_s: Sequence[float]
    ends_s: Sequence[float]
    lanes: Callable[[], list[list[int]]]

    @property
    def makespan_s(self) -> float:
        return max(self.ends_s, default=0.0)


def search(
    problem: SchedulingProblem,
    placements: int,
    seed: int = 0,
    bound: tuple[float, str] | None = None,
    deadline: Deadline = NEVER,
) -> list[list[int]]:
    """The best lane orders that were found with `placements` tasks placed, or in the passes before the deadline."""
    n, draw = len(problem.tasks), random.Random(seed)
    passes = _uniform(problem) if lanes_are_alike(problem) else _uneven(problem)
    forward, backward, spent_each = passes
    levels = upward_ranks(problem)
    bound_s, _ = lower_bound(problem) if bound is None else bound
    enough_s = bound_s * (1 + PROVED)
    plain = is_plain(problem)
    best: list[list[int]] | None = None
    best_s, spent, rank = float("inf"), 0, [-level for level in levels]
    while best is None or spent < placements:
        local_s, stale = float("inf"), 0
        while best is None or (stale < STALE and spent < placements):
            pair_s = float("inf")
            for mirrored, run in ((False, forward), (True, backward)):
                listed = run(rank)
                spent += spent_each
                took_s = listed.makespan_s
                if not plain or took_s < best_s:
                    lanes = [line[::-1] for line in listed.lanes()] if mirrored else listed.lanes()
                    took_s = took_s if plain else makespan_of(problem, lanes)
                    if best is None or took_s < best_s:
                        best, best_s = lanes, took_s
                    if best_s <= enough_s:
                        return best
                if deadline.passed() and best is not None:
                    return best
                pair_s = min(pair_s, took_s)
                rank = [
                    -end_s for end_s in listed.ends_s
                ]  # latest end first: of the forward pass, then of the mirrored
            stale = 0 if pair_s < local_s else stale + 1
            local_s = min(local_s, pair_s)
        rank = [-level * (1 + NOISE * draw.random()) for level in levels]
    return best if n else [[] for _ in range(problem.lanes)]


def is_plain(problem: SchedulingProblem) -> bool:
    """Whether tasks take exactly their times: nothing is shared and no host launches."""
    return problem.arrays.plain


_Passes = tuple[Callable[[Sequence[float]], _Pass], Callable[[Sequence[float]], _Pass], int]


def _uniform(problem: SchedulingProblem) -> _Passes:
    arrays, order = problem.arrays, problem.topological_order()

    def one_way(after: Adjacency, before: Adjacency, order: Sequence[int]) -> Callable[..., _Pass]:
        waits = np.diff(before.start)

        def run(rank: Sequence[float]) -> _Pass:
            starts_s, ends_s = dispatch(arrays.best_s, after, waits, rank, problem.lanes)
            return _Pass(starts_s, ends_s, lambda: orders_of_times(starts_s, ends_s, order, problem.lanes))

        return run

    both = one_way(arrays.out, arrays.into, order), one_way(arrays.into, arrays.out, order[::-1])
    return *both, len(problem.tasks)


def _uneven(problem: SchedulingProblem) -> _Passes:
    arrays = problem.arrays
    topological = np.array(problem.topological_order(), np.int64)

    def one_way(before: Adjacency, order: Ints) -> Callable[..., _Pass]:
        def run(rank: Sequence[float]) -> _Pass:
            placed = place_arrays(arrays.times_s, before, _listed(np.asarray(rank, np.float64), before, order))
            return _Pass(placed.start_s, placed.end_s, lambda: placed.lanes)

        return run

    both = one_way(arrays.into, topological), one_way(arrays.out, topological[::-1])
    return *both, INSERTION * len(problem.tasks)


def _listed(rank: Floats, before: Adjacency, order: Ints) -> Ints:
    """Tasks by rank, but none before its predecessors: a task takes the highest rank of those and itself."""
    least = np.array(_latest_ranks(len(order) + len(before.task), rank, before.start, before.task, order))
    listed: Ints = order[np.argsort(least[order], kind="stable")]
    return listed


@loop
def _latest_ranks(rank: Floats, first: Ints, before: Ints, order: Ints) -> list[float]:
    latest = [rank[i] for i in range(len(rank))]
    for k in range(len(order)):
        i = order[k]
        for e in range(first[i], first[i + 1]):
            latest[i] = max(latest[i], latest[before[e]])
    return latest
