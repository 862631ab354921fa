"""A scheduling problem: tasks with times on lanes, what must come before what, and other ways to do parts of it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pararev_hw.errors import BadInput
from pararev_hw.sizes import counted
from pararev_hw.types.base import html_table

if TYPE_CHECKING:
    from pararev_hw.types.problem_arrays import BufferArrays, ProblemArrays

EnergyParts = Mapping[str, float]  # part -> joule; parts: "compute", "sram", "dram", "noc", "neuron", "static", ...


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one task costs on a device.

    `times_s[k]` is its time on lane k when nothing else runs, `inf` where it may not run there. While it runs it asks
    for the shares `compute_demand` and `bandwidth_demand` (0..1) of what the lanes have in common; where the total
    asked for exceeds 1, all running tasks slow down in proportion. `host_s` is the time the launching host needs for
    it (0: no host clock). `memory_bytes` is its output, alive until its last consumer ends. `lane_energy_j[k]` is its
    energy on lane k where lanes differ; empty where `energy_j` holds for all.
    """

    task: str
    times_s: tuple[float, ...]
    compute_demand: float = 0.0
    bandwidth_demand: float = 0.0
    host_s: float = 0.0
    memory_bytes: int = 0
    energy_j: EnergyParts = field(default_factory=dict)
    lane_energy_j: tuple[EnergyParts, ...] = ()

    @property
    def best_s(self) -> float:
        return min(self.times_s)

    def energy_on(self, lane: int) -> EnergyParts:
        """Energy of the task on that lane."""
        return self.lane_energy_j[lane] if self.lane_energy_j else self.energy_j


@dataclass(frozen=True, slots=True)
class CommEdge:
    """`dst` waits `delay_s` after the end of `src` where they run on different lanes, nothing on the same lane."""

    src: int
    dst: int
    delay_s: float = 0.0
    bytes: int = 0
    energy_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that is alive from the first start to the last end of `tasks`, or to the end of the step if it `stays`."""

    bytes: int
    tasks: tuple[int, ...]  # indices into SchedulingProblem.tasks: who writes it and who reads it
    stays: bool = False


@dataclass(frozen=True, repr=False)  # no slots: cached properties need a place
class SchedulingProblem:
    """A scheduling problem: tasks with times on lanes, and what must come before what.

    Memory is what `buffers` say; where there are none, each task's `memory_bytes` is a buffer of the task and its
    consumers (`held()` gives one or the other).

    Valid once constructed: ids unique, edges between known tasks, no cycle (a cycle is named), every task allowed on
    at least one lane, times finite or inf but never NaN or negative, sizes not negative.
    """

    device: str
    lanes: int
    tasks: tuple[TaskCost, ...]
    edges: tuple[CommEdge, ...]
    memory_limit_bytes: int | None = None
    static_bytes: int = 0  # alive all the time: parameters, optimizer state, input
    static_power_w: float = 0.0  # leakage or idle power: energy = power x makespan
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    buffers: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise BadInput(f"a schedule needs at least one lane, not {self.lanes}")
        names: set[str] = set()
        for cost in self.tasks:
            if cost.task in names:
                raise BadInput(f"task id {cost.task!r} occurs twice: ids must be unique")
            names.add(cost.task)
            if len(cost.times_s) != self.lanes:
                raise BadInput(
                    f"task {cost.task!r} has {counted(len(cost.times_s), 'time')} for {counted(self.lanes, 'lane')}: "
                    "one per lane"
                )
            for time_s in cost.times_s:
                if not time_s >= 0:
                    raise BadInput(f"task {cost.task!r} has a time of {time_s}: times are numbers >= 0")
            if cost.best_s == math.inf:
                raise BadInput(f"task {cost.task!r} may run on no lane: allow at least one of 0..{self.lanes - 1}")
            if cost.memory_bytes < 0:
                raise BadInput(f"task {cost.task!r} has {cost.memory_bytes} memory bytes: they must not be negative")
        for b in self.buffers:
            if b.bytes < 0 or not b.tasks or not all(0 <= i < len(self.tasks) for i in b.tasks):
                raise BadInput(f"a buffer of {b.bytes} bytes for tasks {b.tasks}: bytes >= 0, tasks that exist")
        self.topological_order()

    @cached_property
    def arrays(self) -> ProblemArrays:
        """Tasks and edges as arrays."""
        from pararev_hw.types.problem_arrays import problem_arrays  # numpy: late, for what only names the types

        return problem_arrays(self.tasks, self.edges, self.lanes)

    @cached_property
    def buffer_arrays(self) -> BufferArrays:
        """What `held` gives, without what holds nothing, as arrays."""
        from pararev_hw.types.problem_arrays import buffer_arrays, output_buffers

        return buffer_arrays(self.buffers) if self.buffers else output_buffers(self.tasks, self.arrays)

    @cached_property
    def worked_out(self) -> dict[str, Any]:
        """What was worked out from all of the problem, by name, for those who ask again."""
        return {}

    @cached_property
    def of_buffers(self) -> dict[str, Any]:
        """The same from tasks, edges and buffers: one for the problem under all of its limits."""
        return {}

    @cached_property
    def of_tasks(self) -> dict[str, Any]:
        """The same from tasks and edges: one for the problem with any buffers."""
        return {}

    def limited_to(self, limit_bytes: int | None) -> SchedulingProblem:
        """The same problem with another memory limit, without checking the rest or working it out again."""
        return self._changed({"worked_out"}, memory_limit_bytes=limit_bytes)

    def holding(self, buffers: tuple[Buffer, ...]) -> SchedulingProblem:
        """The same problem with these buffers of its tasks."""
        return self._changed({"worked_out", "of_buffers", "_held", "buffer_arrays"}, buffers=buffers)

    def _changed(self, forgotten: Collection[str], **changes: object) -> SchedulingProblem:
        for shared in ("arrays", "of_buffers", "of_tasks"):
            getattr(self, shared)  # made here, so that both have the same
        changed = object.__new__(type(self))
        changed.__dict__.update({k: v for k, v in self.__dict__.items() if k not in forgotten} | changes)
        return changed

    def __repr__(self) -> str:
        return (
            f"<SchedulingProblem on {self.device}: {len(self.tasks):,} tasks, {len(self.edges):,} edges, "
            f"{counted(self.lanes, 'lane')}>"
        )

    def _repr_html_(self) -> str:
        limit = "none" if self.memory_limit_bytes is None else f"{self.memory_limit_bytes:,} bytes"
        return html_table(
            f"scheduling problem on {self.device}",
            ("tasks", f"{len(self.tasks):,}"),
            ("edges", f"{len(self.edges):,}"),
            ("lanes", str(self.lanes)),
            ("memory limit", limit),
        )

    def held(self) -> tuple[Buffer, ...]:
        """What lives in memory beside `static_bytes`: who touches it, and how large it is."""
        return self._held

    @cached_property
    def _held(self) -> tuple[Buffer, ...]:
        if self.buffers:
            return self.buffers
        users = [[i] for i in range(len(self.tasks))]
        for e in self.edges:
            users[e.src].append(e.dst)
        return tuple(Buffer(c.memory_bytes, tuple(u)) for c, u in zip(self.tasks, users, strict=True) if c.memory_bytes)

    def successors(self) -> tuple[tuple[CommEdge, ...], ...]:
        """Outgoing edges of each task."""
        out: list[list[CommEdge]] = [[] for _ in self.tasks]
        for e in self.edges:
            out[e.src].append(e)
        return tuple(map(tuple, out))

    def predecessors(self) -> tuple[tuple[CommEdge, ...], ...]:
        """Incoming edges of each task."""
        into: list[list[CommEdge]] = [[] for _ in self.tasks]
        for e in self.edges:
            into[e.dst].append(e)
        return tuple(map(tuple, into))

    def topological_order(self) -> tuple[int, ...]:
        """Task indices, predecessors first, ties by index. Raises BadInput naming the cycle, if there is one."""
        return self._order

    @cached_property
    def _order(self) -> tuple[int, ...]:
        n = len(self.tasks)
        if all(0 <= e.src < e.dst < n for e in self.edges):
            return tuple(range(n))
        missing = [0] * n
        out: list[list[int]] = [[] for _ in range(n)]
        for e in self.edges:
            if not (0 <= e.src < n and 0 <= e.dst < n):
                raise BadInput(f"edge {e.src} -> {e.dst} names a task that does not exist: there are {n}")
            out[e.src].append(e.dst)
            missing[e.dst] += 1
        ready = [i for i in range(n) if missing[i] == 0]
        order: list[int] = []
        while ready:
            i = heapq.heappop(ready)
            order.append(i)
            for j in out[i]:
                missing[j] -= 1
                if missing[j] == 0:
                    heapq.heappush(ready, j)
        if len(order) < n:
            raise BadInput(f"the tasks form a cycle: {' -> '.join(self._cycle(missing))}")
        return tuple(order)

    def _cycle(self, missing: list[int]) -> list[str]:
        """Ids along one cycle among the tasks that could not be ordered, the first one repeated at the end."""
        before: dict[int, int] = {}
        for e in self.edges:
            if missing[e.src] > 0 and missing[e.dst] > 0:
                before[e.dst] = min(e.src, before.get(e.dst, e.src))
        at = next(i for i in sorted(before) if missing[i] > 0)
        path: list[int] = []
        while at not in path:
            path.append(at)
            at = before[at]
        loop = path[path.index(at) :][::-1]
        return [self.tasks[i].task for i in (*loop, loop[0])]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to do part of a step: `tasks` take the place of the tasks `replaces` of a problem.

    Two alternatives that replace a common task exclude each other. The problem's edges follow: an edge that enters a
    replaced task enters `in_edges[edge]` instead, one that leaves it leaves `out_edges[edge]` (positions in `tasks`);
    an edge that is not named vanishes. `internal_edges` join `tasks` by position. `extra_deps` are further edges, from
    a task of the problem, or whatever stands for it, to a position in `tasks`.

    `tasks` may hold a task of no time: it stands for memory that is kept from its start until its last consumer ends.

    Where the problem has buffers, one that a replaced task touches is touched by the positions `buffers[buffer]`
    instead, by all of `tasks` where it is not named; the `memory_bytes` of `tasks` live until their last consumers end.
    """

    name: str  # "fuse stages.0.blocks.1 g + stages.0.blocks.2 f, forward"
    kind: Literal["share", "fuse", "split", "store", "wait"]
    replaces: tuple[int, ...]  # indices into SchedulingProblem.tasks
    tasks: tuple[TaskCost, ...]
    in_edges: Mapping[int, tuple[int, ...]]  # keys are indices into SchedulingProblem.edges
    out_edges: Mapping[int, tuple[int, ...]]
    internal_edges: tuple[CommEdge, ...] = ()
    extra_deps: tuple[CommEdge, ...] = ()  # src: index into SchedulingProblem.tasks, dst: position in `tasks`
    buffers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # keys: indices into the problem's buffers
