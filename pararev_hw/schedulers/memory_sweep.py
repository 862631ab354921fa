"""One problem under many memory limits: what least memory, and a front of latency and memory, are looked for with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pararev_hw.errors import Infeasible
from pararev_hw.schedulers import forward_backward, heft, memory_list
from pararev_hw.schedulers.buffer_table import holding, peak_along
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.schedulers.memory_order import least_peak_order
from pararev_hw.types import Schedule, SchedulingProblem

PLACEMENTS = 12_000  # tasks placed under each limit


def unhurried(problem: SchedulingProblem, name: str) -> Iterator[Schedule]:
    """Schedules that the problem's own limit alone holds back. Raises Infeasible where nothing fits it."""
    yield evaluate_orders(problem, forward_backward.search(problem, PLACEMENTS), name)
    yield evaluate_orders(problem, heft.lane_orders(problem), name)
    listed = memory_list.search(problem, PLACEMENTS)
    yield (
        evaluate_orders(problem, None, name)
        if listed is None
        else evaluate_orders(problem, listed.lanes, name, waits=listed.waits)
    )


def within(problem: SchedulingProblem, limit: int, name: str) -> Schedule | None:
    """A schedule that stays within `limit` bytes, judged by the problem as it is; None where none was found."""
    tight = replace(problem, memory_limit_bytes=limit)
    listed = memory_list.search(tight, PLACEMENTS)
    if listed is None:
        return None
    try:
        schedule = evaluate_orders(problem, listed.lanes, name, waits=listed.waits)
    except Infeasible:
        return None
    return schedule if schedule.peak_bytes is None or schedule.peak_bytes <= limit else None


def least_known(problem: SchedulingProblem) -> int:
    """Bytes within which one task at a time fits."""
    held = holding(problem)
    return peak_along(held, least_peak_order(problem, held))
