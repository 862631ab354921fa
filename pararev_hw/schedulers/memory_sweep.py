"""One problem under many memory limits: what least memory, and a front of latency and memory, are looked for with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pararev_hw.errors import Infeasible
from pararev_hw.schedulers import forward_backward, heft, memory_list
from pararev_hw.schedulers.bounds.makespan import bound_within, lower_bound
from pararev_hw.schedulers.compiled_dispatch import dispatch
from pararev_hw.schedulers.deadline import NEVER, Deadline
from pararev_hw.schedulers.evaluate import evaluate_orders
from pararev_hw.schedulers.memory_order import peak_by_order
from pararev_hw.schedulers.safe_dispatch import STEPS
from pararev_hw.types import Schedule, SchedulingProblem

PLACEMENTS = 12_000  # tasks placed under each limit
PASSES = 30  # under each limit, until those from every start go stale


@dataclass(frozen=True, slots=True)
class ManyLimits:
    """A problem and what bounds it, for those who look under many limits; their schedules go under `name`."""

    problem: SchedulingProblem
    name: str
    bound: tuple[float, str]
    deadline: Deadline = NEVER


def many_limits(problem: SchedulingProblem, name: str, count: int, deadline: Deadline = NEVER) -> ManyLimits:
    """What is worked out once for all of `count` limits."""
    dispatch.expect(STEPS * count * min(PLACEMENTS, PASSES * len(problem.tasks)))
    return ManyLimits(problem, name, lower_bound(problem), deadline)


def unhurried(limits: ManyLimits) -> list[Schedule]:
    """Schedules that the problem's own limit alone holds back. Raises Infeasible where nothing fits it."""
    worked_out = limits.problem.worked_out
    schedules = worked_out.get("unhurried")
    if schedules is None:
        schedules = list(_unhurried(limits))
        if not limits.deadline.passed():  # what the clock cut short is not for those who have time
            worked_out["unhurried"] = schedules
    return [replace(schedule, scheduler=limits.name) for schedule in schedules]


def _unhurried(limits: ManyLimits) -> Iterator[Schedule]:
    problem, name, bound, deadline = limits.problem, limits.name, limits.bound, limits.deadline
    lanes = forward_backward.search(problem, PLACEMENTS, bound=bound, deadline=deadline)
    yield evaluate_orders(problem, lanes, name, problem_bound=bound)
    if deadline.passed():
        return
    yield evaluate_orders(problem, heft.heft_orders(problem), name, problem_bound=bound)
    if deadline.passed():
        return
    listed = memory_list.search(problem, PLACEMENTS, bound, deadline)
    yield (
        evaluate_orders(problem, None, name, problem_bound=bound)
        if listed is None
        else evaluate_orders(problem, listed.lanes, name, waits=listed.waits, problem_bound=bound)
    )


def within(limits: ManyLimits, limit: int) -> Schedule | None:
    """A schedule that stays within `limit` bytes, judged by the problem as it is; None where none was found."""
    schedule_within: dict[int, Schedule | None] = limits.problem.worked_out.setdefault("within", {})
    if limit in schedule_within:
        schedule = schedule_within[limit]
    else:
        schedule = _within(limits, limit)
        if not limits.deadline.passed():
            schedule_within[limit] = schedule
    return None if schedule is None else replace(schedule, scheduler=limits.name)


def _within(limits: ManyLimits, limit: int) -> Schedule | None:
    problem = limits.problem
    tight = problem.limited_to(limit)
    listed = memory_list.search(tight, PLACEMENTS, bound_within(tight, limits.bound), limits.deadline)
    if listed is None:
        return None
    try:
        schedule = evaluate_orders(problem, listed.lanes, limits.name, waits=listed.waits, problem_bound=limits.bound)
    except Infeasible:
        return None
    return schedule if schedule.peak_bytes is None or schedule.peak_bytes <= limit else None


def least_peak_bytes(problem: SchedulingProblem) -> int:
    """Bytes within which one task at a time fits."""
    return min(peak_by_order(problem).values())
