"""One task at a time: what every other schedule is compared with."""

from __future__ import annotations

from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.types import Schedule, SchedulingProblem


def schedule(problem: SchedulingProblem) -> Schedule:
    """All tasks on the lane that runs them fastest, predecessors first, ties by index.

    Raises Infeasible where it does not fit the memory limit.
    """
    return evaluate_orders(problem, None, "sequential")
