"""From lane orders to a Schedule: played, compared with the sequential one, bounded, and checked against the memory.

Every scheduler ends here, so that all of them mean the same by makespan, bound, energy and peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pararev_hw.errors import Infeasible
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.buffer_table import holding, peak_memory, waits_that_keep
from pararev_hw.schedulers.memory_order import least_peak_order
from pararev_hw.simulate import play, play_sequential
from pararev_hw.types import Placement, Schedule, SchedulingProblem

PROVED = 1e-12  # a makespan this close to its bound, relative, is optimal: two sums of the same times differ by less


def evaluate_orders(
    costs: SchedulingProblem,
    lanes: Sequence[Sequence[int]] | None,
    name: str,
    *,
    waits: Iterable[tuple[int, int]] = (),
    bound: tuple[float, str] = (0.0, "nothing to do"),
    known: tuple[float, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Schedule:
    """The schedule that `lanes` (task indices per lane) gives when played; None stands for the sequential one.

    `waits` are pairs of tasks of which the second starts after the first has ended; `bound` is one that the scheduler
    has found, and the best bound counts; `known` is what `lower_bound` gave for the problem, if it was asked.

    Where the sequential schedule is faster, or fits the memory limit and `lanes` does not, it is returned instead,
    under `name`: in program order, and where that does not fit either, in the order of least peak that is found; a note
    says so where it was the memory. Raises Infeasible where none fits, IllegalSchedule where `lanes` is no legal order.
    """
    waits = tuple(waits)
    sequential = play_sequential(costs)
    played = sequential if lanes is None else play(costs, lanes, waits)
    peak_bytes = _fitting_peak(costs, played)
    if peak_bytes is None and lanes is not None:
        need, _ = peak_memory(costs, played)
        notes += (f"side by side the tasks would need {need} bytes: one at a time instead (see memory-list)",)
    if peak_bytes is None or makespan(sequential) < makespan(played):
        sequential_peak = _fitting_peak(costs, sequential)
        if sequential_peak is not None:
            played, peak_bytes = sequential, sequential_peak
    if peak_bytes is None:
        played = play_sequential(costs, least_peak_order(costs))
        peak_bytes = _fitting_peak(costs, played)
    if peak_bytes is None:
        raise Infeasible(does_not_fit(costs, min(played, sequential, key=lambda p: peak_memory(costs, p)[0])))
    makespan_s = makespan(played)
    bound_s, bound_by = max(lower_bound(costs) if known is None else known, bound, key=lambda b: b[0])
    optimal = makespan_s <= bound_s * (1 + PROVED)
    tasks = costs.tasks
    limited = costs.memory_limit_bytes is not None and holding(costs).matters
    keeping = waits_that_keep(costs, played) if waits or limited else []
    return Schedule(
        device=costs.device,
        scheduler=name,
        lanes=costs.lanes,
        placements=played,
        makespan_s=makespan_s,
        sequential_s=makespan(sequential),
        lower_bound_s=min(bound_s, makespan_s) if optimal else bound_s,
        bound_by=bound_by,
        optimal=optimal,
        peak_bytes=peak_bytes if _states_memory(costs) else None,
        energy_j=energy(costs, played),
        waits=tuple((tasks[a].task, tasks[b].task) for a, b in keeping),
        notes=notes,
    )


def with_bound(schedule: Schedule, bound: tuple[float, str], *, only: bool = False) -> Schedule:
    """The schedule with this bound where it is better than its own, or whatever its own is (`only`)."""
    own = (0.0, "nothing to do") if only else (schedule.lower_bound_s, schedule.bound_by)
    bound_s, bound_by = max(own, bound, key=lambda b: b[0])
    optimal = schedule.makespan_s <= bound_s * (1 + PROVED)
    bound_s = min(bound_s, schedule.makespan_s) if optimal else bound_s
    return replace(schedule, lower_bound_s=bound_s, bound_by=bound_by, optimal=optimal)


def makespan_of(costs: SchedulingProblem, lanes: Sequence[Sequence[int]]) -> float:
    """How long lane orders take when they are played."""
    return makespan(play(costs, lanes))


def makespan(placements: Sequence[Placement]) -> float:
    """The last end, 0 where there is none."""
    return max((p.end_s for p in placements), default=0.0)


def energy(costs: SchedulingProblem, placements: Sequence[Placement]) -> Mapping[str, float]:
    """Joules by part, with "total": the tasks' own, "noc" for edges between lanes, "static" power over the makespan.

    Empty where the problem says nothing about energy.
    """
    lane = {p.task: p.lane for p in placements}
    lanes = [lane[c.task] for c in costs.tasks]
    parts: dict[str, float] = {}
    for c in costs.tasks:
        for part, joule in c.energy_on(lane[c.task]).items():
            parts[part] = parts.get(part, 0.0) + joule
    if any(e.energy_j for e in costs.edges):
        parts["noc"] = parts.get("noc", 0.0) + sum(e.energy_j for e in costs.edges if lanes[e.src] != lanes[e.dst])
    if costs.static_power_w:
        parts["static"] = parts.get("static", 0.0) + costs.static_power_w * makespan(placements)
    return {**dict(sorted(parts.items())), "total": sum(parts[p] for p in sorted(parts))} if parts else {}


def _states_memory(costs: SchedulingProblem) -> bool:
    return costs.static_bytes > 0 or any(b.bytes for b in costs.buffers) or any(c.memory_bytes for c in costs.tasks)


def _fitting_peak(costs: SchedulingProblem, placements: Sequence[Placement]) -> int | None:
    """The peak in bytes, or None where it is above the limit."""
    peak, _ = peak_memory(costs, placements)
    return peak if costs.memory_limit_bytes is None or peak <= costs.memory_limit_bytes else None


def does_not_fit(costs: SchedulingProblem, placements: Sequence[Placement]) -> str:
    """Need, have, and the tasks that hold most at the peak of a schedule."""
    need, live = peak_memory(costs, placements)
    holds: dict[int, int] = {}
    at = {p.task: p.start_s for p in placements}
    for b in costs.held():
        owner = min(b.tasks, key=lambda i: (at[costs.tasks[i].task], i))
        holds[owner] = holds.get(owner, 0) + b.bytes
    largest = sorted(live, key=lambda i: (-holds[i], i))[:3]
    held = ", ".join(f"{costs.tasks[i].task!r} {holds[i]}" for i in largest)
    return (
        f"the schedule does not fit {costs.device!r}: "
        f"it needs {need} bytes at its peak and has {costs.memory_limit_bytes} "
        f"({costs.static_bytes} static; the largest of {len(live)} outputs alive then: {held or 'none'})"
    )
