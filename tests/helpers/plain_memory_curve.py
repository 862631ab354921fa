"""Live memory over time, worked out anew for every schedule of a graph: what `StepStorages` is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by
from pararev_hw.types import ROLES, BlockGraph, MemoryCurve, Placement


def plain_memory_curve(
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
