"""Which storages a graph's ops and tasks touch, as arrays: what leaves a task, and what may stay on chip inside it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pararev_hw.types import BlockGraph

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accesses:
    """Every access of every op: `op[k]` touches `storage[k]`."""

    op: Ints
    storage: Ints

    @staticmethod
    def of(per_op: Iterable[tuple[int, ...]], n_ops: int) -> Accesses:
        lists = list(per_op)
        counts = np.fromiter(map(len, lists), np.int64, n_ops)
        return Accesses(np.repeat(np.arange(n_ops), counts), np.fromiter(chain.from_iterable(lists), np.int64))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The accesses of a graph and where they stand. All arrays are indexed by op, storage or task number.

    An op may belong to no task (`task_of_op` -1): a view that nothing uses.
    """

    reads: Accesses
    writes: Accesses
    task_of_op: Ints
    storage_bytes: Ints
    internal: NDArray[np.bool_]  # storage: made, used and dropped inside one task
    output_bytes: Ints  # task: bytes of the storages it makes that other tasks read

    def per_task(self, per_op: Floats) -> Floats:
        """Sums over the ops of each task."""
        placed = self.task_of_op >= 0
        return np.bincount(self.task_of_op[placed], per_op[placed], len(self.output_bytes)).astype(np.float64)


def traffic(graph: BlockGraph) -> Traffic:
    """The traffic of a graph. Every op belongs to at most one task."""
    n = len(graph.ops)
    reads = Accesses.of((op.reads for op in graph.ops), n)
    writes = Accesses.of((op.writes for op in graph.ops), n)
    members = Accesses.of((t.ops for t in graph.tasks), len(graph.tasks))
    task_of_op = np.full(n, -1)
    task_of_op[members.storage] = members.op

    size = np.fromiter((s.bytes for s in graph.storages), np.int64, len(graph.storages))
    born = np.fromiter((s.born for s in graph.storages), np.int64, len(graph.storages))
    freed = np.fromiter((s.freed for s in graph.storages), np.int64, len(graph.storages))

    storage = np.concatenate((reads.storage, writes.storage))
    task = task_of_op[np.concatenate((reads.op, writes.op))]
    first = np.full(len(size), len(graph.tasks))
    last = np.full(len(size), -1)
    np.minimum.at(first, storage, task)
    np.maximum.at(last, storage, task)

    is_made_here = born >= 0
    maker = np.where(is_made_here, task_of_op[np.maximum(born, 0)] if n else 0, -1)
    read_elsewhere = np.zeros(len(size), np.bool_)
    read_elsewhere[reads.storage[task_of_op[reads.op] != maker[reads.storage]]] = True
    leaves = read_elsewhere & (maker >= 0)
    output = np.zeros(len(graph.tasks), np.int64)
    np.add.at(output, maker[leaves], size[leaves])

    return Traffic(reads, writes, task_of_op, size, is_made_here & (freed < n) & (first == last), output)


def kept_on_chip(t: Traffic, capacity_bytes: float) -> NDArray[np.bool_]:
    """Which internal storages stay in a core's own memory from their first op to their last.

    A task's ops run in program order; a storage is kept if it fits beside those that are kept at that moment, and
    otherwise lives in main memory (no tiling, no spilling).
    """
    n = len(t.storage_bytes)
    op = np.concatenate((t.reads.op, t.writes.op))
    storage = np.concatenate((t.reads.storage, t.writes.storage))
    first = np.full(n, np.iinfo(np.int64).max)
    last = np.full(n, -1)
    np.minimum.at(first, storage, op)
    np.maximum.at(last, storage, op)

    is_resident = np.zeros(n, np.bool_)
    candidates = np.flatnonzero(t.internal & (t.storage_bytes <= capacity_bytes) & (last >= 0))
    task = t.task_of_op[last[candidates]]
    now, used = -1, 0
    live: list[tuple[int, int]] = []  # (last op, bytes) of what is kept
    order = np.lexsort((candidates, first[candidates], task))
    for s, of_task in zip(candidates[order].tolist(), task[order].tolist(), strict=True):
        if of_task != now:
            now, used, live = of_task, 0, []
        while live and live[0][0] < first[s]:
            used -= heapq.heappop(live)[1]
        size = int(t.storage_bytes[s])
        if used + size <= capacity_bytes:
            is_resident[s] = True
            used += size
            heapq.heappush(live, (int(last[s]), size))
    return is_resident


def share_of_bytes(accesses: Accesses, t: Traffic, chosen: NDArray[np.bool_]) -> Floats:
    """Per op: what share of the bytes of the storages it accesses belongs to the chosen ones (0 where it has none)."""
    n = len(t.task_of_op)
    size = t.storage_bytes[accesses.storage].astype(np.float64)
    total = np.bincount(accesses.op, weights=size, minlength=n)
    part = np.bincount(accesses.op, weights=size * chosen[accesses.storage], minlength=n)
    return np.divide(part, total, out=np.zeros(n), where=total > 0)
