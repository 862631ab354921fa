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


def unhurried(costs: SchedulingProblem, name: str) -> Iterator[Schedule]:
    """Schedules that the problem's own limit alone holds back. Raises Infeasible where nothing fits it."""
    yield evaluate_orders(costs, forward_backward.search(costs, PLACEMENTS), name)
    yield evaluate_orders(costs, heft.lane_orders(costs), name)
    found = memory_list.search(costs, PLACEMENTS)
    yield (
        evaluate_orders(costs, None, name)
        if found is None
        else evaluate_orders(costs, found.lanes, name, waits=found.waits)
    )


def within(costs: SchedulingProblem, limit: int, name: str) -> Schedule | None:
    """A schedule that stays within `limit` bytes, judged by the problem as it is; None where none was found."""
    tight = replace(costs, memory_limit_bytes=limit)
    found = memory_list.search(tight, PLACEMENTS)
    if found is None:
        return None
    try:
        made = evaluate_orders(costs, found.lanes, name, waits=found.waits)
    except Infeasible:
        return None
    return made if made.peak_bytes is None or made.peak_bytes <= limit else None


def least_known(costs: SchedulingProblem) -> int:
    """Bytes within which one task at a time fits."""
    held = holding(costs)
    return peak_along(held, least_peak_order(costs, held))
