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

from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.dispatch import dispatch, lane_orders, lanes_are_alike
from pararev_hw.schedulers.evaluate import PROVED, evaluate_orders, makespan_of
from pararev_hw.schedulers.heft import upward_ranks
from pararev_hw.schedulers.insertion import place
from pararev_hw.types import Schedule, SchedulingProblem

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
    bound = lower_bound(problem)
    lanes = search(problem, min(PLACEMENTS, PASSES * len(problem.tasks)), bound=bound)
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
    problem: SchedulingProblem, placements: int, seed: int = 0, bound: tuple[float, str] | None = None
) -> list[list[int]]:
    """The best lane orders that were found with `placements` tasks placed."""
    n, draw = len(problem.tasks), random.Random(seed)
    passes = _uniform(problem) if lanes_are_alike(problem) else _uneven(problem)
    forward, backward, spent_each = passes
    order = problem.topological_order()
    levels = upward_ranks(problem, order)
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
    return not any(c.compute_demand or c.bandwidth_demand or c.host_s for c in problem.tasks)


_Passes = tuple[Callable[[Sequence[float]], _Pass], Callable[[Sequence[float]], _Pass], int]


def _uniform(problem: SchedulingProblem) -> _Passes:
    n = len(problem.tasks)
    times_s = [c.best_s for c in problem.tasks]
    out: list[list[int]] = [[] for _ in range(n)]
    into: list[list[int]] = [[] for _ in range(n)]
    for e in problem.edges:
        out[e.src].append(e.dst)
        into[e.dst].append(e.src)
    order = problem.topological_order()

    def one_way(after: list[list[int]], before: list[list[int]], order: Sequence[int]) -> Callable[..., _Pass]:
        waits = [len(b) for b in before]

        def run(rank: Sequence[float]) -> _Pass:
            starts_s, ends_s = dispatch(times_s, after, waits, rank, problem.lanes)
            return _Pass(starts_s, ends_s, lambda: lane_orders(starts_s, ends_s, order, problem.lanes))

        return run

    return one_way(out, into, order), one_way(into, out, order[::-1]), n


def _uneven(problem: SchedulingProblem) -> _Passes:
    n = len(problem.tasks)
    times_s = [c.times_s for c in problem.tasks]
    into: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    out: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for e in problem.edges:
        into[e.dst].append((e.src, e.delay_s))
        out[e.src].append((e.dst, e.delay_s))
    order = problem.topological_order()

    def one_way(before: list[list[tuple[int, float]]], order: Sequence[int]) -> Callable[..., _Pass]:
        def run(rank: Sequence[float]) -> _Pass:
            placed = place(times_s, before, _listed(rank, before, order), problem.lanes)
            return _Pass(placed.start_s, placed.end_s, lambda: placed.lanes)

        return run

    return one_way(into, order), one_way(out, order[::-1]), INSERTION * n


def _listed(rank: Sequence[float], before: Sequence[Sequence[tuple[int, float]]], order: Sequence[int]) -> list[int]:
    """Tasks by rank, but none before its predecessors: a task takes the highest rank of those and itself."""
    least = list(rank)
    for i in order:
        for j, _ in before[i]:
            if least[j] > least[i]:
                least[i] = least[j]
    return sorted(order, key=least.__getitem__)
