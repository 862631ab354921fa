"""One configuration after another in compiled loops: what `replay` and `memory_columns` do for all of them at once.

The same sums in the same order, so the same numbers; but whatever a configuration needs stays in the processor's first
cache, and events of different configurations do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pararev_hw.compiled import loop, part
from pararev_hw.sweeps.columns import Floats, Ints, TaskColumns
from pararev_hw.sweeps.memory_columns import MemoryEvents
from pararev_hw.sweeps.replay import LaneOrders


@dataclass(frozen=True, slots=True)
class ReplayArrays:
    """Lane orders and memory events as arrays, in the order in which the loops take them."""

    lane_start: Ints
    lane_task: Ints
    before: Ints  # the task before it on its lane, -1 for the first
    topological: Ints
    lane_of: Ints
    out_start: Ints  # messages by sender, and by receiver
    out_task: Ints
    out_bytes: Ints
    into_start: Ints
    into_task: Ints
    into_bytes: Ints
    lanes: int  # idle ones too
    always: int
    at_start: Ints
    at_end: Ints
    first_start: Ints
    first_task: Ints
    first_bytes: Ints
    last_start: Ints
    last_task: Ints
    last_bytes: Ints

    @property
    def all(self) -> tuple[Ints | int, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def replay_arrays(orders: LaneOrders, memory: MemoryEvents) -> ReplayArrays:
    """The arrays of lane orders and of the memory events of their tasks."""
    n = len(orders.lane_of)
    lanes = [order for order in orders.lanes if order]
    before, lane_of = np.full(n, -1), np.zeros(n, np.int64)
    for k, order in enumerate(lanes):
        lane_of[list(order)] = k
        for a, b in pairwise(order):
            before[b] = a
    out = _by_task(n, [(a, b, size) for a, b, size in orders.crossing])
    into = _by_task(n, [(b, a, size) for a, b, size in orders.crossing])
    return ReplayArrays(
        _starts([len(order) for order in lanes]),
        np.array([i for order in lanes for i in order], np.int64),
        before,
        np.array(orders.topological, np.int64),
        lane_of,
        *out,
        *into,
        len(orders.lanes),
        memory.always,
        memory.at_start,
        memory.at_end,
        *_groups(memory.first_of),
        *_groups(memory.last_of),
    )


def _starts(counts: Sequence[int]) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))))


def _by_task(n: int, messages: Sequence[tuple[int, int, int]]) -> tuple[Ints, Ints, Ints]:
    """(task, other, bytes) as ranges of others by task."""
    table = np.array(messages, np.int64).reshape(-1, 3)
    order = np.argsort(table[:, 0], kind="stable")
    return _starts(np.bincount(table[:, 0], minlength=n).tolist()), table[order, 1].copy(), table[order, 2].copy()


def _groups(groups: Sequence[tuple[tuple[int, ...], int]]) -> tuple[Ints, Ints, Ints]:
    tasks = np.array([i for members, _ in groups for i in members], np.int64)
    return _starts([len(m) for m, _ in groups]), tasks, np.array([size for _, size in groups], np.int64)


def compile_replay() -> None:
    """Take the compiled loop from here on, wherever it pays: rows do not depend on what the process did before."""
    _replay.compile()


def pays(arrays: ReplayArrays, count: int) -> bool:
    """Whether so many configurations are played by compiled loops."""
    return _replay.compiled_for(count * (len(arrays.topological) + 1)) is not None


def makespans_and_peaks(arrays: ReplayArrays, costs: TaskColumns) -> tuple[Floats, Ints] | None:
    """Makespans and peak bytes [B] of the lane orders; None where the loops cannot be compiled, or would not pay."""
    count = costs.seconds.shape[1]
    compiled = _replay.compiled_for(count * (len(arrays.topological) + 1))
    if compiled is None:
        return None
    makespan_s, peak = np.zeros(count), np.zeros(count, np.int64)
    compiled(
        np.ascontiguousarray(costs.seconds.T),
        np.ascontiguousarray(costs.bandwidth_demand.T),
        costs.row_of_task,
        costs.delay_s,
        costs.delay_s_per_byte,
        *arrays.all,
        makespan_s,
        peak,
    )
    return makespan_s, peak


@loop
def _replay(
    seconds: Floats,  # [B, rows]
    demand: Floats,
    row_of_task: Ints,
    delay_s: Floats,
    delay_s_per_byte: Floats,
    lane_start: Ints,
    lane_task: Ints,
    before: Ints,
    topological: Ints,
    lane_of: Ints,
    out_start: Ints,
    out_task: Ints,
    out_bytes: Ints,
    into_start: Ints,
    into_task: Ints,
    into_bytes: Ints,
    lanes: int,
    always: int,
    at_start: Ints,
    at_end: Ints,
    first_start: Ints,
    first_task: Ints,
    first_bytes: Ints,
    last_start: Ints,
    last_task: Ints,
    last_bytes: Ints,
    makespan_s: Floats,
    peak: Ints,
) -> None:
    n = len(topological)
    work, asks = np.zeros(n), np.zeros(n)
    starts, ends = np.zeros(n), np.zeros(n)
    most, comes, goes = np.zeros(lanes), np.zeros(n, np.int64), np.zeros(n, np.int64)
    used = len(lane_start) - 1
    for c in range(len(makespan_s)):
        for i in range(n):
            work[i], asks[i] = seconds[c, row_of_task[i]], demand[c, row_of_task[i]]
        for at in range(n):
            i = topological[at]
            start = ends[before[i]] if before[i] >= 0 else 0.0
            for e in range(into_start[i], into_start[i + 1]):
                sent_s = delay_s[c] + into_bytes[e] * delay_s_per_byte[c] if into_bytes[e] >= 0 else 0.0  # WAIT
                start = max(start, ends[into_task[e]] + sent_s)
            starts[i], ends[i] = start, start + work[i]
        if used > 1 and _most_demand(asks, most) > 1.0:
            _share(
                work, asks, delay_s[c], delay_s_per_byte[c], lane_start, lane_task, lane_of, out_start, out_task,
                out_bytes, into_start, starts, ends,
            )  # fmt: skip
        last = 0.0
        for i in range(n):
            last = max(last, ends[i])
            comes[i], goes[i] = at_start[i], at_end[i]
        makespan_s[c] = last
        for g in range(len(first_bytes)):
            chosen = first_task[first_start[g]]
            for e in range(first_start[g] + 1, first_start[g + 1]):
                if starts[first_task[e]] < starts[chosen]:
                    chosen = first_task[e]
            comes[chosen] += first_bytes[g]
        for g in range(len(last_bytes)):
            chosen = last_task[last_start[g]]
            for e in range(last_start[g] + 1, last_start[g + 1]):
                if ends[last_task[e]] > ends[chosen]:
                    chosen = last_task[e]
            goes[chosen] += last_bytes[g]
        peak[c] = always + (_peak(lane_start, lane_task, starts, ends, comes, goes) if n > 0 else 0)


@part
def _most_demand(asks: Floats, most: Floats) -> float:
    """The most that as many tasks as there are lanes ask for; `most` is where they are sorted."""
    most[:] = -1.0
    for i in range(len(asks)):
        k = 0
        if asks[i] > most[0]:
            while k + 1 < len(most) and most[k + 1] < asks[i]:
                most[k] = most[k + 1]
                k += 1
            most[k] = asks[i]
    total = 0.0
    for k in range(len(most)):
        total += max(most[k], 0.0)
    return total


@part
def _share(
    work: Floats,
    asks: Floats,
    delay_s: float,
    delay_s_per_byte: float,
    lane_start: Ints,
    lane_task: Ints,
    lane_of: Ints,
    out_start: Ints,
    out_task: Ints,
    out_bytes: Ints,
    into_start: Ints,
    starts: Floats,
    ends: Floats,
) -> None:
    """Starts and ends where running tasks slow each other down, event by event."""
    n, used = len(work), len(lane_start) - 1
    arrives, missing = np.zeros(n), np.zeros(n, np.int64)
    for i in range(n):
        missing[i] = into_start[i + 1] - into_start[i]
    at = lane_start[:-1].copy()  # where in its order a lane is
    free, ready, end_virtual = np.zeros(used), np.full(used, np.inf), np.full(used, np.inf)
    ended = np.zeros(used, np.int64)
    for k in range(used):
        if missing[lane_task[at[k]]] == 0:
            ready[k] = 0.0
    now, virtual, slow, demand = 0.0, 0.0, 1.0, 0.0
    running, unfinished = 0, n
    while unfinished > 0:
        first_done, first_ready = np.inf, np.inf
        for k in range(used):
            first_done, first_ready = min(first_done, end_virtual[k]), min(first_ready, ready[k])
        done_at = now + max(first_done - virtual, 0.0) * slow
        if first_ready <= done_at and first_ready < np.inf:
            virtual += (first_ready - now) / slow
            now = first_ready
            for k in range(used):
                if ready[k] == first_ready:
                    i = lane_task[at[k]]
                    starts[i] = now
                    end_virtual[k] = virtual + work[i]
                    ready[k] = np.inf
                    demand += asks[i]
                    running += 1
        else:
            virtual = max(virtual, first_done)
            now = done_at
            for k in range(used):
                ended[k] = -1
                if end_virtual[k] == first_done:
                    i = lane_task[at[k]]
                    ends[i] = now
                    ended[k] = i
                    end_virtual[k] = np.inf
                    demand -= asks[i]
                    running -= 1
                    unfinished -= 1
                    free[k] = now
                    at[k] += 1
                    if at[k] < lane_start[k + 1] and missing[lane_task[at[k]]] == 0:
                        ready[k] = max(arrives[lane_task[at[k]]], now)
            if running == 0:
                demand = 0.0
            for k in range(used):
                if ended[k] >= 0:
                    for e in range(out_start[ended[k]], out_start[ended[k] + 1]):
                        j = out_task[e]
                        sent_s = delay_s + out_bytes[e] * delay_s_per_byte if out_bytes[e] >= 0 else 0.0  # WAIT
                        arrives[j] = max(arrives[j], now + sent_s)
                        missing[j] -= 1
                        other = lane_of[j]
                        if missing[j] == 0 and at[other] < lane_start[other + 1] and lane_task[at[other]] == j:
                            ready[other] = max(arrives[j], free[other])
        slow = max(demand, 1.0)


@part
def _peak(lane_start: Ints, lane_task: Ints, starts: Floats, ends: Floats, comes: Ints, goes: Ints) -> int:
    """The most bytes alive at once: lanes are in order of time, so their starts and ends only have to be merged."""
    used = len(lane_start) - 1
    next_start, next_end = lane_start[:-1].copy(), lane_start[:-1].copy()
    starts_at, ends_at = np.empty(used), np.empty(used)
    for k in range(used):
        starts_at[k], ends_at[k] = starts[lane_task[next_start[k]]], ends[lane_task[next_end[k]]]
    live, most = 0, -(2**62)
    for _ in range(2 * len(lane_task)):
        lane, ending, at_s = 0, True, ends_at[0]
        for k in range(1, used):
            if ends_at[k] < at_s:
                lane, at_s = k, ends_at[k]
        for k in range(used):  # at one instant what goes makes room for what comes
            if starts_at[k] < at_s:
                lane, ending, at_s = k, False, starts_at[k]
        if ending:
            live -= goes[lane_task[next_end[lane]]]
            next_end[lane] += 1
            at = next_end[lane]
            ends_at[lane] = ends[lane_task[at]] if at < lane_start[lane + 1] else np.inf
        else:
            live += comes[lane_task[next_start[lane]]]
            next_start[lane] += 1
            at = next_start[lane]
            starts_at[lane] = starts[lane_task[at]] if at < lane_start[lane + 1] else np.inf
            most = max(most, live)
    return most
