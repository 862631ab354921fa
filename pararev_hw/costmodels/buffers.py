"""What a step keeps in memory, as buffers of its tasks: never less than what is alive at any moment of any schedule.

A storage that several tasks touch is a buffer of those tasks. What lives inside one task counts by the task's own peak:
the most that its ops have alive at once, beyond the buffers that the task touches anyway. Storages with the same tasks
are one buffer.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by, touched_by
from pararev_hw.graph.order import task_of_op
from pararev_hw.graph.reach import descendants
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
    after = [_bits(later) for later in descendants(len(graph.tasks), [(e.src, e.dst) for e in graph.edges])]
    for storage, uses in zip(graph.storages, touched, strict=True):
        if not uses or not storage.bytes or lives_throughout(storage):
            continue
        users, stays = tuple(sorted(uses)), storage.freed >= len(graph.ops)
        if len(users) > 1 or stays:
            shared[users, stays] += storage.bytes
        for task, ops in uses.items():
            first = all(_holds(after[task], u) for u in users if u != task)
            born = ops[0] if first else graph.tasks[task].ops[0]
            last = not stays and all(_holds(after[u], task) for u in reversed(users) if u != task)
            inside[task].append((born, ops[-1] if last else graph.tasks[task].ops[-1], storage.bytes))
            whole[task] += storage.bytes if len(users) > 1 or stays else 0
    for task, alive in enumerate(inside):
        peak = _peak(graph.tasks[task].ops, alive)
        if peak > whole[task]:
            shared[(task,), False] += peak - whole[task]
    return tuple(Buffer(size, users, stays) for (users, stays), size in sorted(shared.items()))


def _bits(members: int) -> bytes:
    """A set of bits as bytes, in which one is looked up without touching the others."""
    return members.to_bytes((members.bit_length() + 7) // 8, "little")


def _holds(bits: bytes, member: int) -> bool:
    return member >> 3 < len(bits) and bool(bits[member >> 3] >> (member & 7) & 1)


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
