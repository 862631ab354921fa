"""Buffers with the descendants of every task as a set of bits, as they were until 0.2.0: plain, and quadratic."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from pararev_hw.graph.liveness import lives_throughout
from pararev_hw.graph.order import task_of_op
from pararev_hw.graph.reach import descendants
from pararev_hw.types import BlockGraph, Buffer


def bitset_buffers(graph: BlockGraph) -> tuple[Buffer, ...]:
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
    after = descendants(len(graph.tasks), [(e.src, e.dst) for e in graph.edges])
    for storage, uses in zip(graph.storages, touched, strict=True):
        if not uses or not storage.bytes or lives_throughout(storage):
            continue
        users, stays = tuple(sorted(uses)), storage.freed >= len(graph.ops)
        if len(users) > 1 or stays:
            shared[users, stays] += storage.bytes
        for task, ops in uses.items():
            first = all(after[task] >> u & 1 for u in users if u != task)
            born = ops[0] if first else graph.tasks[task].ops[0]
            last = not stays and all(after[u] >> task & 1 for u in reversed(users) if u != task)
            inside[task].append((born, ops[-1] if last else graph.tasks[task].ops[-1], storage.bytes))
            whole[task] += storage.bytes if len(users) > 1 or stays else 0
    for task, alive in enumerate(inside):
        peak = _peak(graph.tasks[task].ops, alive)
        if peak > whole[task]:
            shared[(task,), False] += peak - whole[task]
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
