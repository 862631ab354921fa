"""Peak memory of many configurations at once: `pararev_hw.prediction.memory_curve` of whole tasks, with a last axis.

A storage is there from the start of the first task that touches it to the end of the last; what a task makes and drops
by itself takes its own peak while the task runs. So bytes come and go at starts and ends of tasks alone, and the peak
depends only on their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by, touched_by
from pararev_hw.sweeps.columns import Floats, Ints
from pararev_hw.types import BlockGraph


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """Bytes that come with each start and go with each end, and those that wait for the last of several ends."""

    always: int
    at_start: Ints  # task
    at_end: Ints  # task
    first_of: tuple[tuple[tuple[int, ...], int], ...]  # (tasks, bytes): come with the first start
    last_of: tuple[tuple[tuple[int, ...], int], ...]  # (tasks, bytes): go with the last end


def memory_events(graph: BlockGraph, ancestors: list[int]) -> MemoryEvents:
    """`ancestors[i]` has bit j set where task j ends before task i starts under every configuration."""
    ops = len(graph.ops)
    owned = owned_by(graph)
    inside = {s for storages in owned for s in storages}
    peaks = [sum(graph.storages[s].bytes for s in storages) for storages in own_at_peak(graph, owned)]
    always = 0
    first_of: dict[tuple[int, ...], int] = {}
    last_of: dict[tuple[int, ...], int] = {}
    for s, (storage, (makers, users)) in enumerate(zip(graph.storages, touched_by(graph), strict=True)):
        if lives_throughout(storage):
            always += storage.bytes
        elif users and s not in inside:
            firsts = tuple(i for i in makers if not any(ancestors[i] >> j & 1 for j in makers))
            first_of[firsts] = first_of.get(firsts, 0) + storage.bytes
            if storage.freed < ops:
                lasts = tuple(i for i in users if not any(ancestors[j] >> i & 1 for j in users))
                last_of[lasts] = last_of.get(lasts, 0) + storage.bytes
    starts, ends = np.array(peaks, np.int64), np.array(peaks, np.int64)
    for into, groups in ((starts, first_of), (ends, last_of)):
        for tasks in [t for t in groups if len(t) == 1]:
            into[tasks[0]] += groups.pop(tasks)
    return MemoryEvents(always, starts, ends, tuple(first_of.items()), tuple(last_of.items()))


def peak_bytes(events: MemoryEvents, starts: Floats, ends: Floats) -> Ints:
    """The peak [B] of schedules with these starts and ends [tasks, B]."""
    n, count = starts.shape
    if n == 0:
        return np.full(count, events.always)
    times = np.concatenate((ends, starts)).T  # ends first: at one instant what goes makes room for what comes
    change = np.empty((count, 2 * n), np.int64)
    change[:, :n] = -events.at_end
    change[:, n:] = events.at_start
    every = np.arange(count)
    for tasks, size in events.first_of:
        task_index = np.array(tasks)
        change[every, n + task_index[starts[task_index].argmin(0)]] += size
    for tasks, size in events.last_of:
        task_index = np.array(tasks)
        change[every, task_index[ends[task_index].argmax(0)]] -= size
    order = np.argsort(times, axis=1, kind="stable")
    live = np.cumsum(np.take_along_axis(change, order, axis=1), axis=1)
    peak: Ints = events.always + live.max(1)
    return peak
