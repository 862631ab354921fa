"""HEFT: longest way to the end first, each task where it ends first, in gaps too.

H. Topcuoglu, S. Hariri, M.-Y. Wu, "Performance-effective and low-complexity task scheduling for heterogeneous
computing", 2002, doi 10.1109/71.993206.
"""

from __future__ import annotations

import math

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.schedulers.insertion import place_arrays
from pararev_hw.types import Schedule, SchedulingProblem
from pararev_hw.types.problem_arrays import Floats, Ints


def schedule(problem: SchedulingProblem) -> Schedule:
    """Tasks by upward rank, ties in topological order, each on the lane of earliest finish, ties to the lowest lane.

    It plans without sharing, host clock and memory; the makespan is what the simulator gives with them. The sequential
    schedule is returned where it is faster, or where only it fits the memory. Raises Infeasible where none fits.
    """
    return evaluate_orders(problem, heft_orders(problem), "heft")


def heft_orders(problem: SchedulingProblem) -> list[list[int]]:
    """What each lane runs, in order."""
    ranks = np.array(upward_ranks(problem))
    order = np.array(problem.topological_order(), np.int64)
    first = order[np.argsort(-ranks[order], kind="stable")]  # stable: a task of no time stays behind its predecessors
    return place_arrays(problem.arrays.times_s, problem.arrays.into, first).lanes


def upward_ranks(problem: SchedulingProblem) -> list[float]:
    """Mean time of the longest way from each task, itself included, to the end; a delay counts where there are lanes.

    `rank(i) = mean time(i) + max over successors j of (delay(i, j) + rank(j))`, means over the lanes that are allowed.
    """
    arrays, out = problem.arrays, problem.arrays.out
    delay_s = out.delay_s if problem.lanes > 1 else np.zeros_like(out.delay_s)
    order = np.array(problem.topological_order(), np.int64)
    steps = arrays.times_s.size + len(out.task)
    ranks: list[float] = _ranks(steps, problem.lanes, arrays.times_s.reshape(-1), out.start, out.task, delay_s, order)
    return ranks


@loop
def _ranks(lanes: int, times_s: Floats, first: Ints, after: Ints, delay_s: Floats, order: Ints) -> list[float]:
    n = len(order)
    ranks = [0.0] * n
    for at in range(n - 1, -1, -1):
        i = order[at]
        total, allowed, rest = 0.0, 0, 0.0
        for k in range(lanes):
            time = times_s[i * lanes + k]
            if time < math.inf:
                total += time
                allowed += 1
        for e in range(first[i], first[i + 1]):
            rest = max(rest, delay_s[e] + ranks[after[e]])
        ranks[i] = total / allowed + rest
    return ranks
