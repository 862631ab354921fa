"""List scheduling in the order of the program: each task on the lane where it can start first."""

from __future__ import annotations

from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.types import Schedule, SchedulingProblem


def schedule(problem: SchedulingProblem) -> Schedule:
    """Tasks in topological order, ties by index, appended to the lane of earliest start, then end, then lowest number.

    O(tasks x lanes + edges). The sequential schedule is returned where it is faster. Raises Infeasible where neither
    fits the memory limit.
    """
    into = problem.predecessors()
    lanes: list[list[int]] = [[] for _ in range(problem.lanes)]
    free_s = [0.0] * problem.lanes
    lane, end_s = [0] * len(problem.tasks), [0.0] * len(problem.tasks)
    for i in problem.topological_order():
        best = (float("inf"), float("inf"), 0)
        for k, time_s in enumerate(problem.tasks[i].times_s):
            if time_s < float("inf"):
                start = free_s[k]
                for e in into[i]:
                    start = max(start, end_s[e.src] + (e.delay_s if lane[e.src] != k else 0.0))
                best = min(best, (start, start + time_s, k))
        _, end_s[i], lane[i] = best
        free_s[lane[i]] = end_s[i]
        lanes[lane[i]].append(i)
    return evaluate_orders(problem, lanes, "asap")
