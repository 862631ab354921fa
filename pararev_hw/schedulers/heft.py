"""HEFT: longest way to the end first, each task where it ends first, in gaps too.

H. Topcuoglu, S. Hariri, M.-Y. Wu, "Performance-effective and low-complexity task scheduling for heterogeneous
computing", 2002, doi 10.1109/71.993206.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.schedulers.insertion import place
from pararev_hw.types import Schedule, SchedulingProblem


def schedule(problem: SchedulingProblem) -> Schedule:
    """Tasks by upward rank, ties in topological order, each on the lane of earliest finish, ties to the lowest lane.

    It plans without sharing, host clock and memory; the makespan is what the simulator gives with them. The sequential
    schedule is returned where it is faster, or where only it fits the memory. Raises Infeasible where none fits.
    """
    return evaluate_orders(problem, lane_orders(problem), "heft")


def lane_orders(problem: SchedulingProblem) -> list[list[int]]:
    """What each lane runs, in order."""
    order = problem.topological_order()
    ranks = upward_ranks(problem, order)
    into = [[(e.src, e.delay_s) for e in edges] for edges in problem.predecessors()]
    first = sorted(order, key=lambda i: -ranks[i])  # stable: a task of no time stays behind its predecessors
    return place([c.times_s for c in problem.tasks], into, first, problem.lanes).lanes


def upward_ranks(problem: SchedulingProblem, order: Sequence[int]) -> list[float]:
    """Mean time of the longest way from each task, itself included, to the end; a delay counts where there are lanes.

    `rank(i) = mean time(i) + max over successors j of (delay(i, j) + rank(j))`, means over the lanes that are allowed.
    `order` is topological.
    """
    out = problem.successors()
    ranks = [0.0] * len(problem.tasks)
    for i in reversed(order):
        allowed = [t for t in problem.tasks[i].times_s if t < math.inf]
        rest = max(((e.delay_s if problem.lanes > 1 else 0.0) + ranks[e.dst] for e in out[i]), default=0.0)
        ranks[i] = sum(allowed) / len(allowed) + rest
    return ranks
