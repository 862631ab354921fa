"""A problem and all its alternatives side by side: every task that may run, and under which choice it does.

Which alternatives there are is for others to find; `pararev_hw.types.Alternative` says what one means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pararev_hw.types import Alternative, Buffer, CommEdge, SchedulingProblem, TaskCost


@dataclass(frozen=True, slots=True)
class HeldBy:
    """A buffer of `users`, of which those count that run; nothing, where the `owner` does not run (None: no owner)."""

    bytes: int
    users: tuple[int, ...]
    stays: bool
    owner: int | None


@dataclass(frozen=True, slots=True)
class Expanded:
    """Tasks of the problem first, in its order, then those of each alternative.

    `owner[i]` is the alternative that task i belongs to, -1 for the problem's own; `replaced_by[i]` the alternatives
    that take the place of task i. An arc joins tasks by their position here, and counts where both of them run.
    """

    lanes: int
    tasks: tuple[TaskCost, ...]
    owner: tuple[int, ...]
    replaced_by: tuple[tuple[int, ...], ...]
    arcs: tuple[CommEdge, ...]
    buffers: tuple[HeldBy, ...]


def expand(problem: SchedulingProblem, alternatives: Sequence[Alternative] = ()) -> Expanded:
    """All that a schedule of the problem may choose from."""
    tasks, owner = list(problem.tasks), [-1] * len(problem.tasks)
    base: list[int] = []
    replaced_by: list[list[int]] = [[] for _ in tasks]
    for a, alternative in enumerate(alternatives):
        base.append(len(tasks))
        for i in alternative.replaces:
            replaced_by[i].append(a)
        for c in alternative.tasks:
            tasks.append(c)
            owner.append(a)
            replaced_by.append([])

    def stands_for(task: int, edge: int, leaving: bool) -> list[int]:
        stand_ins = [task]
        for a in replaced_by[task]:
            edges = (alternatives[a].out_edges if leaving else alternatives[a].in_edges).get(edge, ())
            stand_ins += [base[a] + at for at in edges]
        return stand_ins

    arcs: list[CommEdge] = []
    for k, e in enumerate(problem.edges):
        for src in stands_for(e.src, k, True):
            for dst in stands_for(e.dst, k, False):
                if owner[src] < 0 or owner[src] != owner[dst]:
                    arcs.append(replace(e, src=src, dst=dst))
    for a, alternative in enumerate(alternatives):
        arcs += [replace(e, src=base[a] + e.src, dst=base[a] + e.dst) for e in alternative.internal_edges]
        for e in alternative.extra_deps:
            others = [b for b in replaced_by[e.src] if b != a]
            sources = [e.src, *(base[b] + at for b in others for at in range(len(alternatives[b].tasks)))]
            arcs += [replace(e, src=src, dst=base[a] + e.dst) for src in sources]
    return Expanded(
        problem.lanes,
        tuple(tasks),
        tuple(owner),
        tuple(map(tuple, replaced_by)),
        tuple(arcs),
        _buffers(problem, alternatives, base, tasks, replaced_by, arcs),
    )


def select_alternatives(problem: SchedulingProblem, expanded: Expanded, chosen: Sequence[int]) -> SchedulingProblem:
    """The problem that is left when these alternatives are chosen: its own tasks first, then theirs, in order."""
    selected = set(chosen)
    runs = [
        i
        for i, owner in enumerate(expanded.owner)
        if (owner in selected if owner >= 0 else not selected.intersection(expanded.replaced_by[i]))
    ]
    at = {i: k for k, i in enumerate(runs)}
    buffers = []
    for b in expanded.buffers:
        users = tuple(at[i] for i in b.users if i in at)
        if users and (b.owner is None or b.owner in at):
            buffers.append(Buffer(b.bytes, users, b.stays))
    if problem.buffers and runs and not buffers:
        buffers.append(Buffer(0, (0,)))  # without any, the tasks' `memory_bytes` would count
    return replace(
        problem,
        tasks=tuple(expanded.tasks[i] for i in runs),
        edges=tuple(replace(e, src=at[e.src], dst=at[e.dst]) for e in expanded.arcs if e.src in at and e.dst in at),
        buffers=tuple(buffers),
    )


def _buffers(
    problem: SchedulingProblem,
    alternatives: Sequence[Alternative],
    base: Sequence[int],
    tasks: Sequence[TaskCost],
    replaced_by: Sequence[Sequence[int]],
    arcs: Sequence[CommEdge],
) -> tuple[HeldBy, ...]:
    buffers: list[HeldBy] = []
    for b, buffer in enumerate(problem.buffers):
        users = list(buffer.tasks)
        for i in buffer.tasks:
            for a in replaced_by[i]:
                members = alternatives[a].buffers.get(b, tuple(range(len(alternatives[a].tasks))))
                users += [base[a] + at for at in members]
        buffers.append(HeldBy(buffer.bytes, tuple(sorted(set(users))), buffer.stays, None))
    consumers: list[set[int]] = [{i} for i in range(len(tasks))]
    for e in arcs:
        consumers[e.src].add(e.dst)
    for i, c in enumerate(tasks):
        if c.memory_bytes and (i >= len(problem.tasks) or not problem.buffers):
            buffers.append(HeldBy(c.memory_bytes, tuple(sorted(consumers[i])), False, i))
    return tuple(b for b in buffers if b.bytes)
