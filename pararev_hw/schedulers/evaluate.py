"""From lane orders to a Schedule: played, compared with the sequential one, bounded, and checked against the memory.

Every scheduler ends here, so that all of them mean the same by makespan, bound, energy and peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pararev_hw.errors import Infeasible
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.buffer_table import buffer_table_of, peak_of, waits_that_keep
from pararev_hw.schedulers.memory_order import least_peak_order
from pararev_hw.simulate import Timeline, energy_by_group, placements, sequential_timeline, timeline
from pararev_hw.types import Placement, Schedule, SchedulingProblem

PROVED = 1e-12  # a makespan this close to its bound, relative, is optimal: two sums of the same times differ by less


def evaluate_orders(
    problem: SchedulingProblem,
    lanes: Sequence[Sequence[int]] | None,
    name: str,
    *,
    waits: Iterable[tuple[int, int]] = (),
    bound: tuple[float, str] = (0.0, "nothing to do"),
    problem_bound: tuple[float, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Schedule:
    """The schedule that `lanes` (task indices per lane) gives when played; None stands for the sequential one.

    `waits` are pairs of tasks of which the second starts after the first has ended; `bound` is one that the scheduler
    has found, and the best bound counts; `problem_bound` is what `lower_bound` gave for the problem, if it was asked.

    Where the sequential schedule is faster, or fits the memory limit and `lanes` does not, it is returned instead,
    under `name`: in program order, and where that does not fit either, in the order of least peak that is found; a note
    says so where it was the memory. Raises Infeasible where none fits, IllegalSchedule where `lanes` is no legal order.
    """
    waits = tuple(waits)
    sequential = sequential_timeline(problem)
    times = sequential if lanes is None else timeline(problem, lanes, waits)
    peak_bytes, fits = _peak(problem, times)
    if not fits and lanes is not None:
        notes += (
            f"in parallel the tasks would need {peak_bytes:,} bytes, more than there is: "
            "they run one at a time (see memory-list)",
        )
    if times is not sequential and (not fits or sequential.makespan_s < times.makespan_s):
        sequential_peak, sequential_fits = _peak(problem, sequential)
        if sequential_fits:
            times, peak_bytes, fits = sequential, sequential_peak, True
    if not fits:
        times = sequential_timeline(problem, least_peak_order(problem))
        peak_bytes, fits = _peak(problem, times)
    if not fits:
        raise Infeasible(does_not_fit(problem, min(times, sequential, key=lambda t: _peak(problem, t)[0])))
    makespan_s = times.makespan_s
    bound_s, bound_by = max(lower_bound(problem) if problem_bound is None else problem_bound, bound, key=lambda b: b[0])
    optimal = makespan_s <= bound_s * (1 + PROVED)
    tasks = problem.tasks
    played = placements(problem, times.lane, times.starts_s, times.ends_s)
    limited = problem.memory_limit_bytes is not None and buffer_table_of(problem).matters
    keeping = waits_that_keep(problem, played) if waits or limited else []
    return Schedule(
        device=problem.device,
        scheduler=name,
        lanes=problem.lanes,
        placements=played,
        makespan_s=makespan_s,
        sequential_s=sequential.makespan_s,
        lower_bound_s=min(bound_s, makespan_s) if optimal else bound_s,
        bound_by=bound_by,
        optimal=optimal,
        peak_bytes=peak_bytes if _states_memory(problem) else None,
        energy_j=_energy(problem, times.lane, makespan_s),
        waits=tuple((tasks[a].task, tasks[b].task) for a, b in keeping),
        notes=notes,
    )


def with_better_bound(schedule: Schedule, bound: tuple[float, str]) -> Schedule:
    """The schedule with the better of this bound and the one that it states."""
    return with_bound(schedule, max((schedule.lower_bound_s, schedule.bound_by), bound, key=lambda b: b[0]))


def with_bound(schedule: Schedule, bound: tuple[float, str]) -> Schedule:
    """The schedule with this bound in place of the one that it states."""
    bound_s, bound_by = bound
    optimal = schedule.makespan_s <= bound_s * (1 + PROVED)
    bound_s = min(bound_s, schedule.makespan_s) if optimal else bound_s
    return replace(schedule, lower_bound_s=bound_s, bound_by=bound_by, optimal=optimal)


def makespan_of(problem: SchedulingProblem, lanes: Sequence[Sequence[int]]) -> float:
    """How long lane orders take when they are played."""
    return timeline(problem, lanes).makespan_s


def makespan(placements: Sequence[Placement]) -> float:
    """The last end, 0 where there is none."""
    return max((p.end_s for p in placements), default=0.0)


def energy(problem: SchedulingProblem, placements: Sequence[Placement]) -> Mapping[str, float]:
    """Joules by part, with "total": the tasks' own, "noc" for edges between lanes, "static" power over the makespan.

    Empty where the problem says nothing about energy.
    """
    lane = {p.task: p.lane for p in placements}
    return _energy(problem, [lane[c.task] for c in problem.tasks], makespan(placements))


def _energy(problem: SchedulingProblem, lane: Sequence[int], makespan_s: float) -> Mapping[str, float]:
    (parts,) = energy_by_group(problem, lane, [0] * len(problem.tasks), 1)
    if any(e.energy_j for e in problem.edges):
        parts.setdefault("noc", 0.0)
    if problem.static_power_w:
        parts["static"] = parts.get("static", 0.0) + problem.static_power_w * makespan_s
    return {**dict(sorted(parts.items())), "total": sum(parts[p] for p in sorted(parts))} if parts else {}


def _states_memory(problem: SchedulingProblem) -> bool:
    return (
        problem.static_bytes > 0 or any(b.bytes for b in problem.buffers) or any(c.memory_bytes for c in problem.tasks)
    )


def _peak(problem: SchedulingProblem, times: Timeline) -> tuple[int, bool]:
    """The peak in bytes, and whether it is within the limit."""
    peak, _ = peak_of(problem, times.starts_s, times.ends_s)
    return peak, problem.memory_limit_bytes is None or peak <= problem.memory_limit_bytes


def does_not_fit(problem: SchedulingProblem, times: Timeline) -> str:
    """Need, have, and the tasks that hold most at the peak of a schedule."""
    need, live = peak_of(problem, times.starts_s, times.ends_s)
    holds: dict[int, int] = {}
    for b in problem.held():
        owner = min(b.tasks, key=lambda i: (times.starts_s[i], i))
        holds[owner] = holds.get(owner, 0) + b.bytes
    largest = sorted(live, key=lambda i: (-holds[i], i))[:3]
    buffer_list = ", ".join(f"{problem.tasks[i].task!r} {holds[i]:,}" for i in largest)
    return (
        f"no schedule on {problem.device!r} keeps to {problem.memory_limit_bytes:,} bytes of memory: the smallest "
        f"takes {need:,} at its peak ({problem.static_bytes:,} static; the largest of {len(live)} outputs alive then: "
        f"{buffer_list or 'none'})"
    )
