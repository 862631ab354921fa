"""The front of latency against memory: schedules of which none is both faster and smaller than another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from pararev_hw.errors import BadInput
from pararev_hw.schedulers.deadline import Deadline, deadline_in, meeting
from pararev_hw.schedulers.memory_sweep import least_peak_bytes, many_limits, unhurried, within
from pararev_hw.types import Schedule, SchedulingProblem

NAME = "pareto"
POINTS = 12


def schedule(problem: SchedulingProblem, points: int = POINTS, seconds: float | None = None) -> Schedule:
    """The fastest schedule that was found, with the whole front in `front`: least memory first, fastest last.

    The memory limits that are tried are `points` steps of equal ratio from what one task at a time needs to what the
    fastest schedule needs; under each, `memory-list` looks for the best schedule. Every point is a schedule of its own,
    with the waits that keep its peak. After `seconds` nothing more is tried, and a note says how many limits were.
    Raises Infeasible where nothing fits a memory limit of the problem.
    """
    if points < 2:
        raise BadInput(f"a front of {points} points: give at least 2")
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise BadInput(f"a front in {seconds} seconds: give a positive number")
    with meeting(deadline_in(seconds)) as deadline:
        candidates, tried = schedules_by(problem, points, deadline)
    notes: tuple[str, ...] = ()
    if tried < points - 1:
        notes = (f"{tried} of {points - 1} memory limits were tried in the {seconds:g} s given",)
    points_of_front = front(candidates)
    return replace(points_of_front[-1], front=points_of_front, notes=(*points_of_front[-1].notes, *notes))


def schedules_by(problem: SchedulingProblem, points: int, deadline: Deadline) -> tuple[list[Schedule], int]:
    """The schedules that were found before the deadline, at least one, and how many of `points` - 1 limits were tried
    or need not be."""
    limits = many_limits(problem, NAME, points, deadline)
    candidates = unhurried(limits)
    if deadline.passed():
        return candidates, 0
    low = least_peak_bytes(problem)
    high = min(candidates, key=lambda s: s.makespan_s).peak_bytes or 0
    longest_s = 0.0  # of the limits so far: another one is begun where it fits
    if 0 < low < high:
        for k in range(points - 1):
            if not deadline.affords(longest_s):
                return candidates, k
            began_s = time.process_time()
            candidate = within(limits, round(low * (high / low) ** (k / (points - 1))))
            longest_s = max(longest_s, time.process_time() - began_s)
            if candidate is not None:
                candidates.append(candidate)
    return candidates, points - 1


def front(schedules: Iterable[Schedule]) -> tuple[Schedule, ...]:
    """Those that none of the others beats in one of latency and memory without losing in the other, by memory."""
    points: list[Schedule] = []
    for candidate in sorted(schedules, key=lambda s: (s.peak_bytes or 0, s.makespan_s)):
        if not points or candidate.makespan_s < points[-1].makespan_s:
            points.append(candidate)
    return tuple(points)
