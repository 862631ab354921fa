"""The best schedule that the quick algorithms find: what slower ones start from."""

from __future__ import annotations

from dataclasses import replace

from pararev_hw.schedulers import forward_backward, heft, local_search, memory_list, pareto
from pararev_hw.types import Schedule, SchedulingProblem

LEAST_STEPS = 30


def warm_start(problem: SchedulingProblem, share: float = 1.0, seed: int = 0, seconds: float | None = None) -> Schedule:
    """The shortest schedule of those tried, ties to the first. Raises Infeasible where none fits the memory limit.

    `share` of the steps that local search takes by itself, but at least LEAST_STEPS, and no more than fit `seconds`.
    """
    starts = [forward_backward.schedule(problem)]
    for algorithm in (heft, memory_list, pareto):
        if not any(s.optimal for s in starts):
            starts.append(replace(algorithm.schedule(problem), front=()))
    if not any(s.optimal for s in starts):
        steps = max(LEAST_STEPS, round(share * local_search.default_iterations(problem)))
        starts.append(local_search.schedule(problem, seconds, seed, steps))
    return min(starts, key=lambda s: s.makespan_s)
