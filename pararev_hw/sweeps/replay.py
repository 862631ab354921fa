"""Plays one set of lane orders on many configurations at once: `pararev_hw.simulate.play` with a last axis.

Starts and ends are arrays [tasks, B]. Without sharing, tasks in a topological order of edges and lane orders each take
the latest of what they wait for. Where running tasks may ask for more bandwidth than there is, every configuration
runs its own events, all of them one event per turn: the same fluid model, the same virtual clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.column_sums import column_sums
from pararev_hw.sweeps.columns import Floats, Ints, TaskColumns

WAIT = -1  # the bytes of a wait: it holds its task back until another has ended, and sends nothing


@dataclass(frozen=True, slots=True)
class LaneOrders:
    """Lane orders of a graph's tasks, the edges that cross lanes and the waits; the rest of the edges follow from the
    orders."""

    lanes: tuple[tuple[int, ...], ...]
    lane_of: tuple[int, ...]
    topological: tuple[int, ...]
    crossing: tuple[tuple[int, int, int], ...]  # (from, to, bytes, or WAIT)
    noc_bytes: int  # over all crossing edges, those that never delay anything included


def orders_with_waits(
    lanes: Sequence[Sequence[int]], edges: Sequence[tuple[int, int, int]], waits: Sequence[tuple[int, int]] = ()
) -> LaneOrders:
    """`lanes[k]` is the order of tasks on lane k, `edges` are (from, to, bytes), `waits` pairs of tasks on different
    lanes. Expects orders that agree with edges and waits.

    An edge that crosses lanes is left out where the task after it on its own lane, or one before its end on the other
    lane, waits at least as long anyway.
    """
    n = sum(map(len, lanes))
    lane_of, position = [0] * n, [0] * n
    for k, order in enumerate(lanes):
        for at, i in enumerate(order):
            lane_of[i], position[i] = k, at
    crossing = [e for e in edges if lane_of[e[0]] != lane_of[e[1]]]
    needed = _that_delay([*crossing, *((a, b, WAIT) for a, b in waits)], lane_of, position)
    missing, after = [0] * n, [[] for _ in range(n)]  # type: tuple[list[int], list[list[int]]]
    links = [(a, b) for a, b, _ in needed] + [pair for order in lanes for pair in pairwise(order)]
    for a, b in links:
        after[a].append(b)
        missing[b] += 1
    topological = [i for i in range(n) if missing[i] == 0]
    for i in topological:  # grows while it is read
        for j in after[i]:
            missing[j] -= 1
            if missing[j] == 0:
                topological.append(j)
    assert len(topological) == n, "lane orders contradict the edges"
    used = tuple(tuple(order) for order in lanes)
    return LaneOrders(used, tuple(lane_of), tuple(topological), tuple(needed), sum(b for _, _, b in crossing))


def _that_delay(
    crossing: Sequence[tuple[int, int, int]], lane_of: Sequence[int], position: Sequence[int]
) -> list[tuple[int, int, int]]:
    """The edges and waits, each in its place, that no other one between the same two lanes makes superfluous: one that
    leaves no earlier, arrives no later, and carries no less. O(n log n), by a tree of the most bytes that arrive up to
    a place.
    """
    by_lanes: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for a, b, size in set(crossing):
        by_lanes.setdefault((lane_of[a], lane_of[b]), []).append((a, b, size))
    delaying: set[tuple[int, int, int]] = set()
    for edges in by_lanes.values():
        rank = {at: k for k, at in enumerate(sorted({position[b] for _, b, _ in edges}), start=1)}
        most = [WAIT - 1] * (len(rank) + 1)  # a Fenwick tree (P. M. Fenwick, 1994, doi 10.1002/spe.4380240306)
        for a, b, size in sorted(edges, key=lambda e: (-position[e[0]], position[e[1]], -e[2])):
            k, carried = rank[position[b]], WAIT - 1
            while k > 0:
                carried = max(carried, most[k])
                k &= k - 1
            if carried >= size:
                continue
            delaying.add((a, b, size))
            k = rank[position[b]]
            while k < len(most):
                most[k] = max(most[k], size)
                k += k & -k
    return [e for e in crossing if e in delaying]


def replay(orders: LaneOrders, costs: TaskColumns) -> tuple[Floats, Floats]:
    """Starts and ends [tasks, B] of all tasks."""
    starts, ends = _unshared(orders, costs)
    used = sum(1 for order in orders.lanes if order)
    if used < 2:
        return starts, ends
    demand = costs.bandwidth_demand
    most = column_sums(np.sort(demand[costs.row_of_task], axis=0)[-len(orders.lanes) :])
    contended = np.flatnonzero(most > 1.0)
    if len(contended):
        starts[:, contended], ends[:, contended] = _shared(orders, costs, contended)
    return starts, ends


def _unshared(orders: LaneOrders, costs: TaskColumns) -> tuple[Floats, Floats]:
    n, count = len(costs.row_of_task), costs.seconds.shape[1]
    starts, ends = np.zeros((n, count)), np.zeros((n, count))
    before: dict[int, int] = {b: a for order in orders.lanes for a, b in pairwise(order)}
    into: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for a, b, size in orders.crossing:
        into[b].append((a, size))
    for i in orders.topological:
        start = starts[i]
        if i in before:
            start[:] = ends[before[i]]
        for a, size in into[i]:
            np.maximum(start, ends[a] + _delay(costs, size), out=start)
        np.add(start, costs.seconds[costs.row_of_task[i]], out=ends[i])
    return starts, ends


def _delay(costs: TaskColumns, size: int) -> Floats | float:
    return 0.0 if size == WAIT else costs.delay_s + size * costs.delay_s_per_byte


def _shared(orders: LaneOrders, costs: TaskColumns, inverse: Ints) -> tuple[Floats, Floats]:
    """Starts and ends where running tasks slow each other down, for the configurations `which`.

    A turn moves each configuration to its next event: tasks that become ready start, or else those that are done
    first end. Arrays of all tasks are flat, [tasks + 1, B] row by row; the last task stands for "none left".
    """
    n, b = len(costs.row_of_task), len(inverse)
    seconds = np.zeros((n + 1, b))
    demand = np.zeros((n + 1, b))
    seconds[:n] = costs.seconds[costs.row_of_task][:, inverse]
    demand[:n] = costs.bandwidth_demand[costs.row_of_task][:, inverse]
    delay, per_byte = costs.delay_s[inverse], costs.delay_s_per_byte[inverse]
    work, asks = seconds.reshape(-1), demand.reshape(-1)
    lanes = [order for order in orders.lanes if order]
    lane_number = np.zeros(n + 1, np.int64)
    following = np.full(n + 1, n)
    for k, order in enumerate(lanes):
        lane_number[list(order)] = k
        for i, j in pairwise(order):
            following[i] = j
    targets, sizes, fan_out = messages_by_sender(orders, n)
    waiting = np.zeros(n + 1, np.int64)
    for _, j, _ in orders.crossing:
        waiting[j] += 1

    starts, ends = np.zeros((n + 1) * b), np.zeros((n + 1) * b)
    arrives = np.zeros((n + 1) * b)  # when the last message from another lane is there
    left = np.repeat(waiting, b)  # messages that are still to come
    left[n * b :] = 1  # "none left" never becomes ready
    head = np.repeat(np.array([order[0] for order in lanes]), b)  # [lanes, B]: the task that a lane runs or waits for
    free = np.zeros(len(lanes) * b)  # when a lane became free
    ready = np.where(left[head * b + np.tile(np.arange(b), len(lanes))] == 0, 0.0, np.inf).reshape(len(lanes), b)
    end_virtual = np.full((len(lanes), b), np.inf)  # virtual time at which a lane's task is done
    flat_ready, flat_done = ready.reshape(-1), end_virtual.reshape(-1)
    now, virtual, slow, total_demand = np.zeros(b), np.zeros(b), np.ones(b), np.zeros(b)
    running = np.zeros(b, np.int64)
    unfinished = np.full(b, n)
    while unfinished.any():
        first_done, first_ready = end_virtual.min(0), ready.min(0)
        done_at = now + np.maximum(first_done - virtual, 0.0) * slow
        starting = first_ready <= done_at
        starting &= first_ready < np.inf
        at = np.where(starting, first_ready, done_at)
        active = at < np.inf
        assert active[unfinished > 0].all(), "a lane waits for ever"
        virtual = np.where(starting, virtual + (at - now) / slow, np.maximum(virtual, first_done))
        virtual = np.where(active, virtual, 0.0)
        now = np.where(active, at, 0.0)
        begin = np.flatnonzero(((ready == first_ready) & starting).reshape(-1))
        if len(begin):
            config = begin % b
            place = head[begin] * b + config
            starts[place] = now[config]
            flat_done[begin] = virtual[config] + work[place]
            flat_ready[begin] = np.inf
            _add(total_demand, config, asks[place])
            _add(running, config, 1)
        finish = np.flatnonzero(((end_virtual == first_done) & ~starting & active).reshape(-1))
        if len(finish):
            config = finish % b
            task = head[finish]
            place = task * b + config
            then = now[config]
            ends[place] = then
            flat_done[finish] = np.inf
            _add(total_demand, config, -asks[place])
            _add(running, config, -1)
            total_demand[running == 0] = 0.0
            _add(unfinished, config, -1)
            following_task = following[task]
            head[finish] = following_task
            free[finish] = then
            onward = following_task * b + config
            flat_ready[finish] = np.where(left[onward] == 0, np.maximum(arrives[onward], then), np.inf)
            for s in range(int(fan_out[task].max(initial=0))):
                sends = np.flatnonzero(fan_out[task] > s)
                sender, where = task[sends], config[sends]
                to = targets[sender, s]
                spot = to * b + where
                size = sizes[sender, s]
                message = then[sends] + np.where(size == WAIT, 0.0, delay[where] + size * per_byte[where])
                _latest(arrives, spot, message)
                _add(left, spot, -1)
                lane_spot = lane_number[to] * b + where
                now_ready = (left[spot] == 0) & (head[lane_spot] == to)
                spot, lane_spot = spot[now_ready], lane_spot[now_ready]
                flat_ready[lane_spot] = np.maximum(arrives[spot], free[lane_spot])
        slow = np.maximum(total_demand, 1.0)
    return starts.reshape(n + 1, b)[:n], ends.reshape(n + 1, b)[:n]


def _add(into: NDArray[np.generic], at: Ints, values: object) -> None:
    """`np.add.at`: two lanes of one configuration may have their event at once."""
    np.add.at(into, at, values)  # type: ignore[arg-type]


def _latest(into: Floats, at: Ints, values: Floats) -> None:
    np.maximum.at(into, at, values)


def messages_by_sender(orders: LaneOrders, n: int) -> tuple[Ints, Ints, Ints]:
    """Messages that each task sends: (targets, sizes) [tasks, most], filled up with `n`, and how many."""
    fan_out = np.zeros(n + 1, np.int64)
    for i, _, _ in orders.crossing:
        fan_out[i] += 1
    most = int(fan_out.max(initial=0))
    targets, sizes = np.full((n + 1, most), n), np.zeros((n + 1, most), np.int64)
    filled = np.zeros(n + 1, np.int64)
    for i, j, size in orders.crossing:
        targets[i, filled[i]], sizes[i, filled[i]] = j, size
        filled[i] += 1
    return targets, sizes, fan_out


def sequential_seconds(costs: TaskColumns) -> Floats:
    """The time [B] of all tasks one after another on one of equal lanes."""
    alone = costs.seconds * np.maximum(costs.bandwidth_demand, 1.0)
    return column_sums(alone[costs.row_of_task])
