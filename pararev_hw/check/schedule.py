"""Says whether a schedule keeps the rules of its problem. Written apart from every scheduler and from the simulator."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from pararev_hw.errors import IllegalSchedule
from pararev_hw.types import Placement, Schedule, SchedulingProblem, TaskCost

TOLERANCE = 1e-9  # relative to the makespan: what adding up 1e5 rounded times may lose


def check_schedule(problem: SchedulingProblem, schedule: Schedule) -> None:
    """Returns where the schedule is legal, raises IllegalSchedule with the first rule it breaks where it is not.

    The rules: device and lanes are the problem's; every task runs exactly once, on a lane it may use; no lane runs two
    at once; nothing starts before its predecessors have ended (plus the delay from another lane); a task gets exactly
    its work done, at the rate 1/U of the fluid model (with a host clock: it takes no less than its time, and what has
    ended by t needed no more than t of the host); the makespan is the last end, not below the stated bound, equal to
    it where the schedule claims to be optimal; a wait's second task starts when its first has ended; what is alive at
    once, and the stated peak, are within the memory limit; placements are sorted. A front's schedules keep them too.
    """
    if schedule.device != problem.device:
        raise IllegalSchedule(f"the schedule is for device {schedule.device!r}, the problem for {problem.device!r}")
    if schedule.lanes != problem.lanes:
        raise IllegalSchedule(f"the schedule has {schedule.lanes} lanes, the problem {problem.lanes}")
    placed = _placed(problem, schedule.placements)
    slack_s = TOLERANCE * max((p.end_s for p in schedule.placements), default=0.0)
    _check_lanes(schedule.placements, slack_s)
    _check_edges(problem, placed, slack_s)
    if any(c.host_s > 0 for c in problem.tasks):
        _check_host(problem, placed, slack_s)
    else:
        _check_work(problem, placed, slack_s)
    _check_makespan(schedule, slack_s)
    _check_order(schedule.placements)
    _check_waits(placed, schedule.waits, slack_s)
    _check_memory(problem, placed, schedule.peak_bytes, slack_s)
    for point in schedule.front:
        check_schedule(problem, replace(point, front=()))


def _s(time_s: float) -> str:
    return f"{time_s:.9g} s"


def _placed(problem: SchedulingProblem, placements: Sequence[Placement]) -> Mapping[str, Placement]:
    """Each task's one placement, on a lane that it may use, at finite times."""
    tasks = {c.task: c for c in problem.tasks}
    placed: dict[str, Placement] = {}
    for p in placements:
        if p.task not in tasks:
            raise IllegalSchedule(f"{p.task!r} is placed, but the problem has no such task")
        if p.task in placed:
            raise IllegalSchedule(f"{p.task!r} is placed twice, at {_s(placed[p.task].start_s)} and {_s(p.start_s)}")
        if not 0 <= p.lane < problem.lanes:
            raise IllegalSchedule(f"{p.task!r} is on lane {p.lane}: lanes are 0 to {problem.lanes - 1}")
        if not (math.isfinite(p.start_s) and math.isfinite(p.end_s) and p.start_s >= 0):
            raise IllegalSchedule(f"{p.task!r} runs from {p.start_s} to {p.end_s}: times are finite and not negative")
        if tasks[p.task].times_s[p.lane] == math.inf:
            allowed = ", ".join(str(k) for k, t in enumerate(tasks[p.task].times_s) if t < math.inf)
            raise IllegalSchedule(f"{p.task!r} is on lane {p.lane}: it may run on {allowed} only")
        placed[p.task] = p
    for c in problem.tasks:
        if c.task not in placed:
            raise IllegalSchedule(f"{c.task!r} is not placed: every task runs once")
    return placed


def _check_lanes(placements: Sequence[Placement], slack_s: float) -> None:
    last: dict[int, Placement] = {}
    for p in sorted(placements, key=lambda p: (p.start_s, p.end_s)):
        before = last.get(p.lane)
        if before is not None and p.start_s < before.end_s - slack_s:
            raise IllegalSchedule(
                f"{p.task!r} starts at {_s(p.start_s)} on lane {p.lane}, "
                f"where {before.task!r} runs until {_s(before.end_s)}"
            )
        last[p.lane] = p


def _check_edges(problem: SchedulingProblem, placed: Mapping[str, Placement], slack_s: float) -> None:
    for e in problem.edges:
        src, dst = placed[problem.tasks[e.src].task], placed[problem.tasks[e.dst].task]
        if dst.start_s < src.end_s - slack_s:
            raise IllegalSchedule(
                f"{dst.task!r} starts at {_s(dst.start_s)}, before {src.task!r} ends at {_s(src.end_s)}"
            )
        if src.lane != dst.lane and dst.start_s < src.end_s + e.delay_s - slack_s:
            raise IllegalSchedule(
                f"{dst.task!r} starts at {_s(dst.start_s)}, before what {src.task!r} sends to lane {dst.lane} "
                f"arrives at {_s(src.end_s + e.delay_s)}"
            )


def _check_work(problem: SchedulingProblem, placed: Mapping[str, Placement], slack_s: float) -> None:
    """Work done between start and end is the integral of 1/U, for which one running sum over all events serves."""
    events = sorted(
        (at, sign, c.compute_demand, c.bandwidth_demand)
        for c in problem.tasks
        for at, sign in ((placed[c.task].start_s, 1), (placed[c.task].end_s, -1))
    )
    done_at: dict[float, float] = {0.0: 0.0}  # time -> integral of 1/U up to it
    now = done = compute = bandwidth = 0.0
    for at, sign, c_demand, b_demand in events:
        done += (at - now) / max(1.0, compute, bandwidth)
        now = at
        done_at[at] = done
        compute += sign * c_demand
        bandwidth += sign * b_demand
    for c in problem.tasks:
        p = placed[c.task]
        got_s, need_s = done_at[p.end_s] - done_at[p.start_s], c.times_s[p.lane]
        if abs(got_s - need_s) > slack_s:
            raise IllegalSchedule(
                f"{c.task!r} gets {_s(got_s)} of work done between {_s(p.start_s)} and {_s(p.end_s)}, "
                f"it needs {_s(need_s)} on lane {p.lane}"
            )


def _check_host(problem: SchedulingProblem, placed: Mapping[str, Placement], slack_s: float) -> None:
    """Durations are long enough, and one host can have issued everything in time (earliest end first)."""
    ends: list[tuple[float, TaskCost]] = []
    for c in problem.tasks:
        p = placed[c.task]
        if p.end_s - p.start_s < c.times_s[p.lane] - slack_s:
            raise IllegalSchedule(
                f"{c.task!r} takes {_s(p.end_s - p.start_s)}, "
                f"it needs at least {_s(c.times_s[p.lane])} on lane {p.lane}"
            )
        ends.append((p.end_s, c))
    host_s = 0.0
    for end_s, c in sorted(ends, key=lambda pair: pair[0]):
        host_s += c.host_s
        if c.host_s > 0 and host_s > end_s + slack_s:
            raise IllegalSchedule(f"{c.task!r} ends at {_s(end_s)}, before the host can have issued it at {_s(host_s)}")


def _check_waits(placed: Mapping[str, Placement], waits: Sequence[tuple[str, str]], slack_s: float) -> None:
    for before, after in waits:
        for task in (before, after):
            if task not in placed:
                raise IllegalSchedule(f"{task!r} is in a wait, but the problem has no such task")
        if placed[after].start_s < placed[before].end_s - slack_s:
            raise IllegalSchedule(
                f"{after!r} starts at {_s(placed[after].start_s)}, it is to wait for {before!r}, "
                f"which ends at {_s(placed[before].end_s)}"
            )


def _check_memory(
    problem: SchedulingProblem, placed: Mapping[str, Placement], stated: int | None, slack_s: float
) -> None:
    """Live bytes are looked at wherever something comes to life: just then, what ended before has gone."""
    at = [placed[c.task] for c in problem.tasks]
    alive = []
    for b in problem.held():
        first_s = min(at[i].start_s for i in b.tasks)
        last_s = math.inf if b.stays else max(at[i].end_s for i in b.tasks)
        alive.append((first_s, last_s, b.bytes))
    going: list[tuple[float, int]] = []
    live = peak = 0
    for first_s, together in groupby(sorted(a for a in alive if a[2]), key=lambda a: a[0]):
        while going and going[0][0] <= first_s + slack_s:
            live -= heapq.heappop(going)[1]
        for _, last_s, size in together:
            live += size
            heapq.heappush(going, (last_s, size))
        peak = max(peak, live)
    peak += problem.static_bytes
    limit = problem.memory_limit_bytes
    for need in (stated, peak):
        if limit is not None and need is not None and need > limit:
            raise IllegalSchedule(f"the schedule needs {need} bytes at its peak, the limit is {limit}")


def _check_makespan(schedule: Schedule, slack_s: float) -> None:
    last_s = max((p.end_s for p in schedule.placements), default=0.0)
    if schedule.makespan_s != last_s:
        raise IllegalSchedule(f"the makespan is given as {schedule.makespan_s!r} s, the last task ends at {last_s!r} s")
    bound_s = schedule.lower_bound_s
    if not bound_s <= last_s + slack_s:
        raise IllegalSchedule(f"the makespan {_s(last_s)} is below its own lower bound {_s(bound_s)}")
    if schedule.optimal and last_s > bound_s + slack_s:
        raise IllegalSchedule(f"called optimal at {_s(last_s)}, but the lower bound is {_s(bound_s)}")


def _check_order(placements: Sequence[Placement]) -> None:
    keys = [(p.start_s, p.lane, p.task) for p in placements]
    for before, after in pairwise(keys):
        if after < before:
            raise IllegalSchedule(
                f"{after[2]!r} is listed after {before[2]!r}: placements are sorted by start, lane and task"
            )
