"""The best schedule that the quick algorithms find: what slower ones start from."""

from __future__ import annotations

from pararev_hw.schedulers import forward_backward, heft, local_search, memory_list, pareto
from pararev_hw.schedulers.deadline import Deadline
from pararev_hw.types import Schedule, SchedulingProblem

LEAST_STEPS = 30


def warm_start(problem: SchedulingProblem, share: float, seed: int, deadline: Deadline) -> Schedule:
    """The shortest schedule of those tried, ties to the first. Raises Infeasible where none fits the memory limit.

    `share` of the steps that local search takes by itself, but at least LEAST_STEPS, and all of it before the deadline:
    at least one pass of list scheduling is made.
    """
    best = forward_backward.schedule_by(problem, deadline)
    for algorithm in (_heft, memory_list.schedule_by, _least_of_front):
        if not best.optimal and not deadline.passed():
            best = min(best, algorithm(problem, deadline), key=lambda s: s.makespan_s)
    if not best.optimal and not deadline.passed():
        steps = max(LEAST_STEPS, round(share * local_search.default_iterations(problem)))
        best = min(best, local_search.schedule_by(problem, deadline, seed, steps), key=lambda s: s.makespan_s)
    return best


def _heft(problem: SchedulingProblem, _: Deadline) -> Schedule:
    return heft.schedule(problem)


def _least_of_front(problem: SchedulingProblem, deadline: Deadline) -> Schedule:
    schedules, _ = pareto.schedules_by(problem, pareto.POINTS, deadline)
    return min(schedules, key=lambda s: (s.makespan_s, s.peak_bytes or 0))
