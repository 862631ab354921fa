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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from pararev_hw.types.problem_arrays import Ints

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
    storages_of: Callable[[BlockGraph, Sequence[float] | None], StepStorages] | None = None,
) -> Prediction:
    """What a schedule of a graph's tasks costs on a device.

    `costs` and `op_seconds` come from one cost model for this graph and device; `launch` is "eager" or "graph", and ""
    in the result where the device has no launching host. Energy by phase adds up to the whole: static energy is
    allotted by busy lane time. `storages_of` is asked in place of `step_storages`, by who keeps what it gave. Raises
    BadInput where graph, costs and schedule are not of the same tasks.
    """
    placed = _placements(graph, problem, schedule, op_seconds)
    storages = (storages_of or step_storages)(graph, None if device.plans_memory else op_seconds)
    curve = storages.curve(placed, schedule.makespan_s)
    peak_bytes = curve.peak_bytes
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
        schedule=replace(schedule, peak_bytes=peak_bytes, energy_j=energy),
        latency_s=schedule.makespan_s,
        host_s=sum(c.host_s for c in problem.tasks),
        lane_busy_s=tuple(lane_busy),
        peak_bytes=peak_bytes,
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


@dataclass(frozen=True, slots=True)
class StepStorages:
    """When a graph's storages come and go, but for the times of its tasks: one for all schedules of a graph.

    `op` are the tasks' ops, task by task, `task` the task of each, and `done` the share of its time that has gone when
    the op ends; None where memory is planned task by task. Storages are those that need room.
    """

    op: Ints
    task: Ints
    done: NDArray[np.float64] | None
    starts: NDArray[np.bool_]  # whether an op is the first of its task
    ends: NDArray[np.bool_]
    births: tuple[Ints, Ints]  # op and storage of what writes or makes a storage
    uses: tuple[Ints, Ints]  # the same of whatever touches one
    persists: NDArray[np.bool_]
    outlives: NDArray[np.bool_]
    needed: NDArray[np.bool_]
    size: Ints
    role: Ints
    ops: int

    def curve(self, placed: Sequence[Placement], makespan_s: float) -> MemoryCurve:
        """Live bytes by role from 0 to `makespan_s`; `placed[k]` is the placement of the graph's task k."""
        start, end = self._op_times(placed)
        born_s, gone_s = np.full(len(self.size), np.inf), np.full(len(self.size), -np.inf)
        np.minimum.at(born_s, self.births[1], start[self.births[0]])
        np.maximum.at(gone_s, self.uses[1], end[self.uses[0]])
        born_s[self.persists] = 0.0
        gone_s[self.persists | (self.outlives & np.isfinite(born_s))] = np.inf

        alive = (born_s < gone_s) & self.needed  # leaves out what no op touches
        size, role, born_s, gone_s = self.size[alive], self.role[alive], born_s[alive], gone_s[alive]
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

    def _op_times(self, placed: Sequence[Placement]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When each op starts and ends. An op of no task (a view that nothing uses) never runs: it starts at inf and
        ends at -inf."""
        task_start = np.fromiter((p.start_s for p in placed), np.float64, len(placed))[self.task]
        task_end = np.fromiter((p.end_s for p in placed), np.float64, len(placed))[self.task]
        start, end = np.full(self.ops, np.inf), np.full(self.ops, -np.inf)
        if self.done is None:
            start[self.op], end[self.op] = task_start, task_end
            return start, end
        until = np.where(self.ends, task_end, task_start + (task_end - task_start) * self.done)
        # an op starts exactly where the one before it ends
        start[self.op], end[self.op] = np.where(self.starts, task_start, np.roll(until, 1)), until
        return start, end


def step_storages(graph: BlockGraph, op_seconds: Sequence[float] | None) -> StepStorages:
    """The storages of a graph; `op_seconds` None: memory is planned task by task."""
    n, count = len(graph.storages), len(graph.ops)
    task, op = _flat([t.ops for t in graph.tasks])
    sizes = np.fromiter((len(t.ops) for t in graph.tasks), np.int64, len(graph.tasks))
    last = np.cumsum(sizes)[sizes > 0] - 1
    starts, ends = np.zeros((2, len(op)), np.bool_)
    starts[(last - sizes[sizes > 0]) + 1] = ends[last] = True
    writes, reads = _flat([op.writes for op in graph.ops]), _flat([op.reads for op in graph.ops])
    born = np.fromiter((s.born for s in graph.storages), np.int64, n)
    inside = np.flatnonzero(born >= 0)
    births = np.concatenate((writes[0], born[inside])), np.concatenate((writes[1], inside))
    return StepStorages(
        op=op,
        task=task,
        done=None if op_seconds is None else _shares_done(graph, np.asarray(op_seconds, np.float64)),
        starts=starts,
        ends=ends,
        births=births,
        uses=(np.concatenate((births[0], reads[0])), np.concatenate((births[1], reads[1]))),
        persists=np.fromiter(map(lives_throughout, graph.storages), np.bool_, n),
        outlives=np.fromiter((s.freed >= count for s in graph.storages), np.bool_, n),
        needed=np.ones(n, np.bool_) if op_seconds is not None else _planned(graph),
        size=np.fromiter((s.bytes for s in graph.storages), np.int64, n),
        role=np.fromiter((ROLES.index(s.role) for s in graph.storages), np.int64, n),
        ops=count,
    )


def memory_curve(
    graph: BlockGraph, placed: Sequence[Placement], makespan_s: float, op_seconds: Sequence[float] | None
) -> MemoryCurve:
    """Live bytes by role from 0 to `makespan_s`, at every time at which a storage comes or goes.

    The last value is what the step leaves behind. `placed[k]` is the placement of `graph.tasks[k]`. `op_seconds` None:
    memory is planned task by task.
    """
    return step_storages(graph, op_seconds).curve(placed, makespan_s)


def _flat(lists: list[tuple[int, ...]]) -> tuple[Ints, Ints]:
    """(list, member) of every member of every list."""
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    return np.repeat(np.arange(len(lists)), counts), np.fromiter(chain.from_iterable(lists), np.int64)


def _shares_done(graph: BlockGraph, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each op of each task the share of the task's time that has gone when it ends. Ops of a task that takes no
    time by itself share its placement evenly."""
    shares = [np.zeros(0)]
    for task in graph.tasks:
        until = np.cumsum(seconds[list(task.ops)])
        if task.ops and until[-1] <= 0:
            until = np.arange(1, len(until) + 1, dtype=np.float64)
        shares.append(until / until[-1:])
    return np.concatenate(shares)


def _planned(graph: BlockGraph) -> NDArray[np.bool_]:
    """Storages that need room of their own; the rest live inside one task when that is below its own peak."""
    owned = owned_by(graph)
    need = np.ones(len(graph.storages), np.bool_)
    need[[s for storages in owned for s in storages]] = False
    need[[s for storages in own_at_peak(graph, owned) for s in storages]] = True
    return need


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
