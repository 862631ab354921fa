"""Memory seen task by task: which tasks touch a storage, and what each task holds by itself at its own peak.

On a chip whose memory is planned before the step runs, a task has what it touches from its start to its end. What it
makes and drops by itself, op after op, takes as much as is alive at the worst of its ops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pararev_hw.graph.order import task_of_op
from pararev_hw.types import BlockGraph, Storage

_PERSISTENT = ("parameter", "buffer", "optimizer", "input")


def lives_throughout(storage: Storage) -> bool:
    """True for what is alive during the whole step: it was there before, or its role makes it stay."""
    return storage.born < 0 or storage.role in _PERSISTENT


def touched_by(graph: BlockGraph) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Per storage: the tasks that make or write it, and all that touch it, sorted. Ops of no task do not count."""
    task_of = task_of_op(graph)
    makers: list[set[int]] = [set() for _ in graph.storages]
    users: list[set[int]] = [set() for _ in graph.storages]
    for task, op in zip(task_of, graph.ops, strict=True):
        if task >= 0:
            for s in op.writes:
                makers[s].add(task)
            for s in op.reads:
                users[s].add(task)
    for s, storage in enumerate(graph.storages):
        if storage.born >= 0 and task_of[storage.born] >= 0:
            makers[s].add(task_of[storage.born])
        users[s] |= makers[s]
    return tuple((tuple(sorted(m)), tuple(sorted(u))) for m, u in zip(makers, users, strict=True))


def owned_by(graph: BlockGraph) -> tuple[tuple[int, ...], ...]:
    """Per task: the storages that it makes, uses and drops by itself."""
    owned: list[list[int]] = [[] for _ in graph.tasks]
    task_of = task_of_op(graph)
    for s, (_, users) in enumerate(touched_by(graph)):
        storage = graph.storages[s]
        inside = len(users) == 1 and not lives_throughout(storage) and storage.freed < len(graph.ops)
        if inside and task_of[storage.born] == users[0]:
            owned[users[0]].append(s)
    return tuple(map(tuple, owned))


def own_at_peak(graph: BlockGraph, owned: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Per task: which of the storages that it owns are alive at their peak, ops in program order."""
    born_at: dict[int, list[int]] = {}
    for storages in owned:
        for s in storages:
            born_at.setdefault(graph.storages[s].born, []).append(s)
    alive_at_peak = []
    for task, storages in zip(graph.tasks, owned, strict=True):
        begin = dict.fromkeys(storages, len(task.ops))
        end = dict.fromkeys(storages, 0)
        for k, op in enumerate(task.ops):
            for s in (*graph.ops[op].reads, *graph.ops[op].writes, *born_at.get(op, ())):
                if s in begin:
                    begin[s], end[s] = min(begin[s], k), max(end[s], k)
        change = np.zeros(len(task.ops) + 1, np.int64)
        for s in storages:
            change[begin[s]] += graph.storages[s].bytes
            change[end[s] + 1] -= graph.storages[s].bytes
        peak = int(np.cumsum(change).argmax())
        alive_at_peak.append(tuple(s for s in storages if begin[s] <= peak <= end[s]))
    return tuple(alive_at_peak)
