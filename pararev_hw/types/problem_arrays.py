"""A scheduling problem as arrays: times and demands by task, edges by the task that they leave and that they enter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pararev_hw.types.problem import Buffer, CommEdge, TaskCost

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Adjacency:
    """Neighbours of task i are `task[start[i]:start[i + 1]]`, in the order of the edges, with the edges' delays."""

    start: Ints
    task: Ints
    delay_s: Floats


@dataclass(frozen=True, slots=True)
class ProblemArrays:
    """`times_s` is [tasks, lanes]; every other array has one entry per task or per edge."""

    times_s: Floats
    best_s: Floats
    compute_demand: Floats
    bandwidth_demand: Floats
    host_s: Floats
    src: Ints
    dst: Ints
    delay_s: Floats
    out: Adjacency
    into: Adjacency

    @property
    def plain(self) -> bool:
        """Whether tasks take exactly their times: nothing is shared and no host launches."""
        return not (self.compute_demand.any() or self.bandwidth_demand.any() or self.host_s.any())


@dataclass(frozen=True, slots=True)
class BufferArrays:
    """Users of buffer b are `user[start[b]:start[b + 1]]`. `size` holds Python's integers where 64 bits do not."""

    size: NDArray[np.int64] | NDArray[np.object_]
    start: Ints
    user: Ints
    stays: NDArray[np.bool_]


def problem_arrays(tasks: Sequence[TaskCost], edges: Sequence[CommEdge], lanes: int) -> ProblemArrays:
    """The arrays of a problem with these tasks and edges."""
    n, m = len(tasks), len(edges)
    times_s = np.array([c.times_s for c in tasks], np.float64).reshape(n, lanes)
    src = np.fromiter(map(attrgetter("src"), edges), np.int64, m)
    dst = np.fromiter(map(attrgetter("dst"), edges), np.int64, m)
    delay_s = np.fromiter(map(attrgetter("delay_s"), edges), np.float64, m)
    return ProblemArrays(
        times_s=times_s,
        best_s=times_s.min(1) if n else np.zeros(0),
        compute_demand=np.fromiter(map(attrgetter("compute_demand"), tasks), np.float64, n),
        bandwidth_demand=np.fromiter(map(attrgetter("bandwidth_demand"), tasks), np.float64, n),
        host_s=np.fromiter(map(attrgetter("host_s"), tasks), np.float64, n),
        src=src,
        dst=dst,
        delay_s=delay_s,
        out=adjacency(src, dst, delay_s, n),
        into=adjacency(dst, src, delay_s, n),
    )


def adjacency(of: Ints, task: Ints, delay_s: Floats, count: int) -> Adjacency:
    """Per entry of `of`, below `count`: the entries of `task` and `delay_s` at the same places."""
    by_task = stable_order(of)
    start = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(of, minlength=count), out=start[1:])
    return Adjacency(start, task[by_task], delay_s[by_task])


def stable_order(numbers: Ints) -> Ints:
    """The order that sorts numbers from 0 to 2^32, of equal ones the first first."""
    low = np.argsort(numbers.astype(np.uint16), kind="stable")  # of 16 bits, which numpy sorts by counting
    if numbers.max(initial=0) < 2**16:
        return low
    order: Ints = low[np.argsort((numbers[low] >> 16).astype(np.uint16), kind="stable")]
    return order


def output_buffers(tasks: Sequence[TaskCost], arrays: ProblemArrays) -> BufferArrays:
    """The outputs of tasks that have any, as buffers of the task and its consumers."""
    sizes = list(map(attrgetter("memory_bytes"), tasks))
    size = _sizes(sizes)
    holds = np.flatnonzero(size != 0)
    user = np.insert(arrays.out.task, arrays.out.start[:-1], np.arange(len(tasks)))
    count = np.diff(arrays.out.start) + 1
    start = np.zeros(len(holds) + 1, np.int64)
    np.cumsum(count[holds], out=start[1:])
    return BufferArrays(size[holds], start, user[np.repeat(size != 0, count)], np.zeros(len(holds), np.bool_))


def _sizes(sizes: Sequence[int]) -> NDArray[np.int64] | NDArray[np.object_]:
    return np.array(sizes, np.int64 if sum(sizes) < 2**62 else object)


def buffer_arrays(buffers: Sequence[Buffer]) -> BufferArrays:
    """The buffers that hold anything."""
    nonempty = [b for b in buffers if b.bytes]
    start = np.zeros(len(nonempty) + 1, np.int64)
    np.cumsum([len(b.tasks) for b in nonempty], out=start[1:])
    return BufferArrays(
        size=_sizes([b.bytes for b in nonempty]),
        start=start,
        user=np.fromiter((i for b in nonempty for i in b.tasks), np.int64, int(start[-1])),
        stays=np.fromiter((b.stays for b in nonempty), np.bool_, len(nonempty)),
    )
