"""Plays a schedule's consequences: live memory over time, lane use, and where time and energy go.

Inside its task an op takes a part of the task's time in proportion to its own seconds. A storage lives from the start
of the op that first writes it (or allocates it) to the end of the op that uses it last, over all tasks; what outlives
the step is never let go, and what persists (parameters, buffers, optimizer state, input) is there all the time.

On an accelerator memory is planned task by task before the step runs: a storage lives from the start of the first task
that touches it to the end of the last, and what a task makes and drops by itself takes its own peak all the time that
the task runs.

    energy = sum over tasks + cross-lane messages + static power x makespan
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pararev_hw.devices.board_power import has_board_power, share_of_draw
from pararev_hw.errors import BadInput
from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by
from pararev_hw.simulate import energy_by_group
from pararev_hw.types import (
    PHASES,
    ROLES,
    BlockGraph,
    Device,
    EnergyParts,
    MemoryCurve,
    Placement,
    Prediction,
    Schedule,
    SchedulingProblem,
)

_NOT_MODELLED = (
    "memory that Python holds after its last use, allocator rounding and fragmentation, library workspaces",
)


def predict(
    graph: BlockGraph,
    device: Device,
    problem: SchedulingProblem,
    schedule: Schedule,
    op_seconds: Sequence[float],
    *,
    launch: str = "eager",
) -> Prediction:
    """What a schedule of a graph's tasks costs on a device.

    `costs` and `op_seconds` come from one cost model for this graph and device; `launch` is "eager" or "graph", and ""
    in the result where the device has no launching host. Energy by phase adds up to the whole: static energy is
    allotted by busy lane time. Raises BadInput where graph, costs and schedule are not of the same tasks.
    """
    placed = _placements(graph, problem, schedule, op_seconds)
    curve = memory_curve(graph, placed, schedule.makespan_s, None if device.plans_memory else op_seconds)
    time_by_phase: dict[str, float] = {p: 0.0 for p in PHASES if any(t.phase == p for t in graph.tasks)}
    lane_busy = [0.0] * schedule.lanes
    for task, p in zip(graph.tasks, placed, strict=True):
        time_by_phase[task.phase] += p.end_s - p.start_s
        lane_busy[p.lane] += p.end_s - p.start_s
    energy_by_phase = _within_board_power(
        device, _energy_by_phase(graph, problem, placed, schedule.makespan_s, time_by_phase), schedule.makespan_s
    )
    energy = _summed(energy_by_phase.values())
    return Prediction(
        device=device.name,
        scheduler=schedule.scheduler,
        launch=launch if device.kind == "gpu" else "",
        schedule=replace(schedule, peak_bytes=curve.peak_bytes, energy_j=energy),
        latency_s=schedule.makespan_s,
        host_s=sum(c.host_s for c in problem.tasks),
        lane_busy_s=tuple(lane_busy),
        peak_bytes=curve.peak_bytes,
        memory=curve,
        energy_j=energy,
        energy_by_phase_j=energy_by_phase,
        time_by_phase_s=time_by_phase,
        provenance=device.provenance,
        assumptions=tuple(dict.fromkeys((*graph.assumptions, *problem.assumptions))),
        not_modelled=(*problem.not_modelled, *_NOT_MODELLED),
    )


def _placements(
    graph: BlockGraph, problem: SchedulingProblem, schedule: Schedule, op_seconds: Sequence[float]
) -> tuple[Placement, ...]:
    """The placement of each task of the graph, in the graph's order."""
    if len(op_seconds) != len(graph.ops):
        raise BadInput(f"{len(op_seconds)} op times for {len(graph.ops)} ops: one per op is needed")
    if tuple(c.task for c in problem.tasks) != tuple(t.id for t in graph.tasks):
        raise BadInput(f"the costs are not those of {graph.model}'s tasks: cost the same graph")
    where = {p.task: p for p in schedule.placements}
    missing = [t.id for t in graph.tasks if t.id not in where]
    if missing:
        raise BadInput(f"the schedule does not place task {missing[0]!r}: it must place all {len(graph.tasks)}")
    return tuple(where[t.id] for t in graph.tasks)


def memory_curve(
    graph: BlockGraph, placed: Sequence[Placement], makespan_s: float, op_seconds: Sequence[float] | None
) -> MemoryCurve:
    """Live bytes by role from 0 to `makespan_s`, at every time at which a storage comes or goes.

    The last value is what the step leaves behind. `placed[k]` is the placement of `graph.tasks[k]`. `op_seconds` None:
    memory is planned task by task.
    """
    n = len(graph.storages)
    start, end = _task_times(graph, placed) if op_seconds is None else _op_times(graph, placed, op_seconds)
    born_s, gone_s = _lives(graph, start, end)
    persists = np.fromiter(map(lives_throughout, graph.storages), np.bool_, n)
    outlives = np.fromiter((s.freed >= len(graph.ops) for s in graph.storages), np.bool_, n)
    born_s[persists] = 0.0
    gone_s[persists | (outlives & np.isfinite(born_s))] = np.inf

    alive = born_s < gone_s  # leaves out what no op touches
    if op_seconds is None:
        alive &= _planned(graph)
    size = np.fromiter((s.bytes for s in graph.storages), np.int64, n)[alive]
    role = np.fromiter((ROLES.index(s.role) for s in graph.storages), np.int64, n)[alive]
    born_s, gone_s = born_s[alive], gone_s[alive]
    goes = np.isfinite(gone_s)
    times = np.unique(np.concatenate((born_s, gone_s[goes], [0.0, makespan_s])))
    change = np.zeros((len(ROLES), len(times)), np.int64)
    np.add.at(change, (role, np.searchsorted(times, born_s)), size)
    np.subtract.at(change, (role[goes], np.searchsorted(times, gone_s[goes])), size[goes])
    live = np.cumsum(change, axis=1)
    return MemoryCurve(
        times_s=tuple(times.tolist()),
        bytes={name: tuple(live[k].tolist()) for k, name in enumerate(ROLES) if live[k].any()},
    )


def _task_times(graph: BlockGraph, placed: Sequence[Placement]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When the task of each op starts and ends: inf and -inf for an op of no task."""
    start, end = np.full(len(graph.ops), np.inf), np.full(len(graph.ops), -np.inf)
    for task, p in zip(graph.tasks, placed, strict=True):
        start[list(task.ops)], end[list(task.ops)] = p.start_s, p.end_s
    return start, end


def _planned(graph: BlockGraph) -> NDArray[np.bool_]:
    """Storages that need room of their own; the rest live inside one task when that is below its own peak."""
    owned = owned_by(graph)
    need = np.ones(len(graph.storages), np.bool_)
    need[[s for storages in owned for s in storages]] = False
    need[[s for storages in own_at_peak(graph, owned) for s in storages]] = True
    return need


def _op_times(
    graph: BlockGraph, placed: Sequence[Placement], op_seconds: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each op starts and ends. Ops of a task that takes no time by itself share its placement evenly; an op of no
    task (a view that nothing uses) never runs: it starts at inf and ends at -inf."""
    seconds = np.asarray(op_seconds, np.float64)
    start, end = np.full(len(graph.ops), np.inf), np.full(len(graph.ops), -np.inf)
    for task, p in zip(graph.tasks, placed, strict=True):
        if not task.ops:
            continue
        ops = np.asarray(task.ops)
        until = np.cumsum(seconds[ops])
        if until[-1] <= 0:
            until = np.arange(1, len(ops) + 1, dtype=np.float64)
        # one array of bounds, so that an op starts exactly where the one before it ends
        bounds = np.concatenate(([p.start_s], p.start_s + (p.end_s - p.start_s) * (until / until[-1])))
        bounds[-1] = p.end_s
        start[ops], end[ops] = bounds[:-1], bounds[1:]
    return start, end


def _lives(
    graph: BlockGraph, start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start of the first write (or allocation) and end of the last use of each storage; inf and -inf where no op is."""
    born = np.fromiter((s.born for s in graph.storages), np.int64, len(graph.storages))
    inside = np.flatnonzero(born >= 0)
    writes = _flat([op.writes for op in graph.ops])
    reads = _flat([op.reads for op in graph.ops])
    born_s, gone_s = np.full(len(graph.storages), np.inf), np.full(len(graph.storages), -np.inf)
    np.minimum.at(born_s, writes[1], start[writes[0]])
    np.minimum.at(born_s, inside, start[born[inside]])
    for op, storage in (writes, reads, (born[inside], inside)):
        np.maximum.at(gone_s, storage, end[op])
    return born_s, gone_s


def _flat(lists: list[tuple[int, ...]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(op, storage) of every access."""
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    return np.repeat(np.arange(len(lists)), counts), np.fromiter(chain.from_iterable(lists), np.int64)


def _energy_by_phase(
    graph: BlockGraph,
    problem: SchedulingProblem,
    placed: Sequence[Placement],
    makespan_s: float,
    time_by_phase: Mapping[str, float],
) -> dict[str, EnergyParts]:
    """Joule by phase and part, with "total"; a message between lanes is paid by the phase that receives it."""
    phases = list(time_by_phase)
    parts = energy_by_group(
        problem, [p.lane for p in placed], [phases.index(t.phase) for t in graph.tasks], len(phases)
    )
    by_phase = dict(zip(phases, parts, strict=True))
    static_j = problem.static_power_w * makespan_s
    busy_s = sum(time_by_phase.values())
    for phase, into in by_phase.items():
        share = time_by_phase[phase] / busy_s if busy_s > 0 else 1.0 / len(by_phase)
        into["static"] = static_j * share
        into["total"] = sum(into.values())
    return dict(by_phase)


def _within_board_power(
    device: Device, by_phase: Mapping[str, EnergyParts], makespan_s: float
) -> Mapping[str, EnergyParts]:
    """The energies as a GPU's board lets them be: what its kernels would draw beyond the limit, it does not give."""
    if not has_board_power(device):
        return by_phase
    share = share_of_draw(device, _summed(by_phase.values()), makespan_s)
    slowed = {
        phase: {
            part: joules * (1.0 if part == "static" else share) for part, joules in parts.items() if part != "total"
        }
        for phase, parts in by_phase.items()
    }
    return {phase: {**parts, "total": sum(parts.values())} for phase, parts in slowed.items()}


def _summed(phases: Iterable[EnergyParts]) -> EnergyParts:
    whole: dict[str, float] = {}
    for parts in phases:
        for part, joule in parts.items():
            whole[part] = whole.get(part, 0.0) + joule
    return whole
