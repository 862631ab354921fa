"""The least peak memory with which a latency bound can still be kept."""

from __future__ import annotations

import math
from dataclasses import replace

from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.schedulers.bounds.memory import least_memory
from pararev_hw.schedulers.memory_sweep import ManyLimits, least_peak_bytes, many_limits, unhurried, within
from pararev_hw.types import Schedule, SchedulingProblem

NAME = "memory-min"
PROBES = 20  # halvings of the interval between the least memory of all and the least that is known to be enough
CLOSE = 1e-3  # relative: an interval as small as this is not halved further


def schedule(problem: SchedulingProblem, latency_bound: float | None = None) -> Schedule:
    """A schedule of at most `latency_bound` seconds with as little memory at its peak as was found.

    The limit is halved between what one task at a time needs and what the fastest schedules need, and the schedule
    within each is that of `memory-list`. Without a bound the least memory counts first and the makespan second. A note
    says what no schedule can do without. Raises Infeasible where no schedule that was found keeps the bound, or fits a
    memory limit of the problem.
    """
    if latency_bound is not None and not (latency_bound > 0 and math.isfinite(latency_bound)):
        raise BadInput(f"a latency bound of {latency_bound} seconds: give a positive number")
    allowed_s = math.inf if latency_bound is None else latency_bound * (1 + 1e-12)
    low = least_peak_bytes(problem)
    limits = many_limits(problem, NAME, PROBES)
    candidates = unhurried(limits)
    least = within(limits, low)
    in_time = [s for s in ([least] if least else []) + candidates if s.makespan_s <= allowed_s]
    if not in_time:
        fastest = min(candidates, key=lambda s: s.makespan_s)
        raise Infeasible(
            f"no schedule of {latency_bound:.6g} s was found for {problem.device!r}: the fastest takes "
            f"{fastest.makespan_s:.6g} s, and none can take less than {fastest.lower_bound_s:.6g} s"
        )
    best = min(in_time, key=_order)
    if least is not None and least.makespan_s > allowed_s:
        best = _halved(limits, best, low, allowed_s)
    forced, task = least_memory(problem)
    # a peak is that of the clock, which tells no order of what happens in one instant: around tasks that take no time
    # it can be below what their order forces
    if best.peak_bytes is None or task is None or best.peak_bytes < forced:
        return best
    held_by = f"for {problem.tasks[task].task!r} and what must be alive then"
    return replace(best, notes=(f"every schedule needs at least {forced} bytes, {held_by}",))


def _order(schedule: Schedule) -> tuple[int, float]:
    return schedule.peak_bytes or 0, schedule.makespan_s


def _halved(limits: ManyLimits, best: Schedule, low: int, allowed_s: float) -> Schedule:
    """The best of schedules within limits above `low`, at which the latency bound could not be kept."""
    for _ in range(PROBES):
        high = best.peak_bytes or 0
        if high - low <= max(1, CLOSE * high):
            break
        limit = (low + high) // 2
        candidate = within(limits, limit)
        if candidate is not None and candidate.makespan_s <= allowed_s:
            best = min(best, candidate, key=_order)
        else:
            low = limit
    return best
