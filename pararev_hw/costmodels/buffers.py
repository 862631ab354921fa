"""What a step keeps in memory, as buffers of its tasks: never less than what is alive at any moment of any schedule.

A storage that several tasks touch is a buffer of those tasks. What lives inside one task counts by the task's own peak:
the most that its ops have alive at once, beyond the buffers that the task touches anyway. Storages with the same tasks
are one buffer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by, touched_by
from pararev_hw.graph.order import task_of_op
from pararev_hw.graph.reach import which_follow
from pararev_hw.types import BlockGraph, Buffer


def buffers(graph: BlockGraph) -> tuple[Buffer, ...]:
    """The buffers of a graph's tasks; what is there throughout the step is not among them."""
    task_of = task_of_op(graph)
    touched: list[dict[int, list[int]]] = [{} for _ in graph.storages]  # storage -> task -> its ops, in order
    for k, op in enumerate(graph.ops):
        if task_of[k] >= 0:
            for s in {*op.reads, *op.writes}:
                touched[s].setdefault(task_of[k], []).append(k)
    for s, storage in enumerate(graph.storages):
        if storage.born >= 0 and task_of[storage.born] >= 0:
            touched[s].setdefault(task_of[storage.born], []).insert(0, storage.born)
    shared: dict[tuple[tuple[int, ...], bool], int] = defaultdict(int)
    inside: list[list[tuple[int, int, int]]] = [[] for _ in graph.tasks]  # (first op, last op, bytes), alive in a task
    whole = [0] * len(graph.tasks)  # bytes of the buffers that a task touches
    lasting = [
        (storage, uses)
        for storage, uses in zip(graph.storages, touched, strict=True)
        if uses and storage.bytes and not lives_throughout(storage)
    ]
    ordered = _ordered_ends(graph, [tuple(sorted(uses)) for _, uses in lasting])
    for (storage, uses), (leads, follows) in zip(lasting, ordered, strict=True):
        users, stays = tuple(sorted(uses)), storage.freed >= len(graph.ops)
        if len(users) > 1 or stays:
            shared[users, stays] += storage.bytes
        for task, ops in uses.items():
            born = ops[0] if leads and task == users[0] else graph.tasks[task].ops[0]
            last = ops[-1] if follows and task == users[-1] and not stays else graph.tasks[task].ops[-1]
            inside[task].append((born, last, storage.bytes))
            whole[task] += storage.bytes if len(users) > 1 or stays else 0
    for task, alive in enumerate(inside):
        peak = _peak(graph.tasks[task].ops, alive)
        if peak > whole[task]:
            shared[(task,), False] += peak - whole[task]
    return tuple(Buffer(size, users, stays) for (users, stays), size in sorted(shared.items()))


def _ordered_ends(graph: BlockGraph, users: Sequence[tuple[int, ...]]) -> list[tuple[bool, bool]]:
    """For each set of tasks whether all others must come after its first one, and before its last one: no other task
    can be so, since tasks stand in a topological order."""
    edges = [(e.src, e.dst) for e in graph.edges]
    pairs = [pair for u in users for k in range(1, len(u)) for pair in ((u[0], u[k]), (u[k - 1], u[-1]))]
    ordered = iter(which_follow(len(graph.tasks), edges, pairs))
    ends = []
    for u in users:
        answers = [(next(ordered), next(ordered)) for _ in u[1:]]
        ends.append((all(leads for leads, _ in answers), all(follows for _, follows in answers)))
    return ends


def planned_buffers(graph: BlockGraph) -> tuple[Buffer, ...]:
    """The buffers where memory is planned before the step runs: what a task touches from its start to its end, and
    beside it what it owns at its own peak, as `pararev_hw.prediction.memory_curve` counts."""
    owned = owned_by(graph)
    inside = {s for storages in owned for s in storages}
    shared: dict[tuple[tuple[int, ...], bool], int] = defaultdict(int)
    for s, (_, users) in enumerate(touched_by(graph)):
        storage = graph.storages[s]
        if users and storage.bytes and s not in inside and not lives_throughout(storage):
            shared[users, storage.freed >= len(graph.ops)] += storage.bytes
    for task, storages in enumerate(own_at_peak(graph, owned)):
        size = sum(graph.storages[s].bytes for s in storages)
        if size:
            shared[(task,), False] += size
    return tuple(Buffer(size, users, stays) for (users, stays), size in sorted(shared.items()))


def _peak(ops: tuple[int, ...], alive: list[tuple[int, int, int]]) -> int:
    """The most bytes alive at any of the ops."""
    if len(ops) == 1:
        return sum(size for _, _, size in alive)
    at = {op: k for k, op in enumerate(ops)}
    change = np.zeros(len(ops) + 1, np.int64)
    for first, last, size in alive:
        change[at[first]] += size
        change[at[last] + 1] -= size
    return int(np.cumsum(change).max(initial=0))
