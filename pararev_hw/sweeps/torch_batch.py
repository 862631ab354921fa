"""What configurations cost, many at once, by PyTorch: the arithmetic of `core_columns`, `roofline_columns`, `replay`
and `memory_columns` on a GPU, or on the CPU to compare it there.

The same operations on the same 64-bit numbers, those of a sum in the same order but for the roofline's products of
matrices: rows agree with numpy's to 1e-9. Arrays go to the device and come back as numpy's, the last axis the
configuration; no step of a loop asks the device for a number but for whether any task is left, now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from pararev_hw.costmodels.roofline_terms import Rates, Work
from pararev_hw.errors import BadInput
from pararev_hw.sweeps.columns import Floats, Ints, TaskColumns
from pararev_hw.sweeps.memory_columns import MemoryEvents
from pararev_hw.sweeps.replay import WAIT, LaneOrders, messages_by_sender

BATCH = {"cpu": 8192, "cuda": 131_072}  # configurations at once: in a GPU's memory some 2 GB for 100 tasks
TURNS = 16  # of the loop over events between two looks at whether any task is left


def check_device(name: str) -> None:
    """Raises BadInput where PyTorch finds no such device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--compute cuda: PyTorch finds no CUDA GPU here: leave it out, or run where there is one")


@dataclass(frozen=True, slots=True)
class TorchBatch:
    """The arithmetic on one device."""

    device: str

    @property
    def size(self) -> int:
        """How many configurations are evaluated at once."""
        return BATCH[self.device]

    def core_tasks(
        self,
        starts: Ints,
        layers: tuple[Floats, Floats, Floats],
        class_bytes: Floats,
        which: Ints,
        reach: Floats,
        bandwidth: Floats,
    ) -> tuple[Floats, Floats]:
        """As `core_columns` by numpy: seconds and share of the bandwidth [classes, B]. `layers` are seconds, overhead
        and bytes of the main memory [rows, cores], `class_bytes` is [classes, cores]."""
        core = self._on(which)
        layer_s, overhead_s, dram_bytes = (self._on(v)[:, core] for v in layers)
        taken = torch.maximum(layer_s, dram_bytes / self._on(reach) + overhead_s)
        seconds = _sums_of_ranges(taken, starts)
        asked = self._on(class_bytes)[:, core] / self._on(bandwidth)
        return _numpy(seconds), _numpy(_share(asked, seconds))

    def roofline_tasks(
        self, work: Work, rates: Rates, overhead_s: Floats, counts: Floats, dram_bytes: Floats, bandwidth: Floats
    ) -> tuple[Floats, Floats]:
        """As `roofline_columns` by numpy: seconds and share of the bandwidth [tasks, B]. `counts` is [tasks, op rows],
        `overhead_s` [op rows, B], `dram_bytes` [tasks]."""
        dram, flops = self._on(work.dram_bytes), self._on(work.flops)
        busy = (flops + self._on(work.has_matrix_work) * self._on(rates.half_flops)) / self._on(rates.matrix)
        busy = torch.maximum(busy, self._on(work.vector_flops) / self._on(rates.vector))
        pulled = dram + torch.where(dram > 0, 1.0, 0.0) * self._on(rates.half_bytes)
        busy = torch.maximum(busy, pulled / self._on(rates.bandwidth))
        busy = torch.maximum(busy, self._on(work.moved_bytes) / self._on(rates.sram_bandwidth))
        seconds = self._on(counts) @ (busy + self._on(overhead_s))
        return _numpy(seconds), _numpy(_share(self._on(dram_bytes)[:, None] / self._on(bandwidth), seconds))

    def played(self, orders: LaneOrders, memory: MemoryEvents, costs: TaskColumns) -> tuple[Floats, Ints]:
        """Makespans and peak bytes [B] of the lane orders."""
        rows = self._on(costs.row_of_task)
        seconds, demand = self._on(costs.seconds)[rows], self._on(costs.bandwidth_demand)[rows]
        delay, per_byte = self._on(costs.delay_s), self._on(costs.delay_s_per_byte)
        starts, ends = _unshared(orders, seconds, delay, per_byte)
        if sum(1 for order in orders.lanes if order) > 1:
            most = _sum(demand.sort(0).values[-len(orders.lanes) :])
            contended = torch.nonzero(most > 1.0)[:, 0]
            if len(contended):
                some = (v[..., contended] for v in (seconds, demand, delay, per_byte))
                starts[:, contended], ends[:, contended] = self._shared(orders, *some)
        return _numpy(ends.amax(0)), _numpy_of_ints(self._peak_bytes(memory, starts, ends))

    def sequential_seconds(self, costs: TaskColumns) -> Floats:
        """As `replay.sequential_seconds`."""
        alone = self._on(costs.seconds) * self._on(costs.bandwidth_demand).clamp(min=1.0)
        return _numpy(_sum(alone[self._on(costs.row_of_task)]))

    def _on(self, values: NDArray[np.generic] | float) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=self.device)

    def _shared(
        self,
        orders: LaneOrders,
        seconds: torch.Tensor,
        demand: torch.Tensor,
        delay: torch.Tensor,
        per_byte: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts and ends [tasks, B] where running tasks slow each other down, event by event."""
        events = _Events(orders, seconds, demand, delay, per_byte)
        for turn in range(2 * len(seconds)):  # every turn starts or ends a task of each configuration that has any left
            if turn % TURNS == 0 and not bool((events.unfinished > 0).any()):
                break
            events.turn()
        return events.starts[:-1], events.ends[:-1]

    def _peak_bytes(self, memory: MemoryEvents, starts: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """As `memory_columns.peak_bytes`."""
        n, count = starts.shape
        at_end, at_start = self._on(memory.at_end), self._on(memory.at_start)
        change = torch.cat((-at_end, at_start))[:, None].repeat(1, count)
        for tasks, size in memory.first_of:
            _add_at(change, n + _first(tasks, -starts), size)
        for tasks, size in memory.last_of:
            _add_at(change, _first(tasks, ends), -size)
        # ends first: at one instant what goes makes room for what comes
        order = torch.cat((ends, starts)).argsort(dim=0, stable=True)
        return memory.always + change.gather(0, order).cumsum(0).amax(0)


class _Events:
    """Configurations that each run their own events, all of them one event a turn: the fluid model and the virtual
    clock of `replay`. The last of the tasks stands for "none left"."""

    def __init__(
        self,
        orders: LaneOrders,
        seconds: torch.Tensor,
        demand: torch.Tensor,
        delay: torch.Tensor,
        per_byte: torch.Tensor,
    ) -> None:
        n, b = seconds.shape
        on = seconds.device
        lanes = [order for order in orders.lanes if order]
        zeros = torch.zeros((1, b), dtype=seconds.dtype, device=on)
        self.work, self.asks = torch.cat((seconds, zeros)), torch.cat((demand, zeros))
        self.delay, self.per_byte = delay, per_byte
        lane_of, following = np.zeros(n + 1, np.int64), np.full(n + 1, n)
        for k, order in enumerate(lanes):
            lane_of[list(order)] = k
            for i, j in pairwise(order):
                following[i] = j
        targets, sizes, _ = messages_by_sender(orders, n)
        left = np.bincount([j for _, j, _ in orders.crossing], minlength=n + 1)
        left[n] = 1  # "none left" never becomes ready
        head = np.array([order[0] for order in lanes])
        self.lane_of, self.following, self.targets, self.sizes = (
            torch.as_tensor(v, device=on) for v in (lane_of, following, targets, sizes)
        )
        self.left = torch.as_tensor(left, device=on)[:, None].repeat(1, b)  # messages that are still to come
        self.head = torch.as_tensor(head, device=on)[:, None].repeat(1, b)  # what a lane runs or waits for
        self.starts, self.ends = torch.zeros_like(self.work), torch.zeros_like(self.work)
        self.arrives = torch.zeros_like(self.work)  # when the last message from another lane is there
        self.free = zeros.repeat(len(lanes), 1)
        self.never = torch.full_like(self.free, torch.inf)
        self.ready = torch.where(self.left.gather(0, self.head) == 0, 0.0, self.never)
        self.end_virtual = self.never.clone()  # virtual time at which a lane's task is done
        self.now, self.virtual, self.asked = zeros[0], zeros[0], zeros[0]
        self.slow = torch.ones_like(zeros[0])
        self.running = torch.zeros_like(self.left[0])
        self.unfinished = torch.full_like(self.left[0], n)

    def turn(self) -> None:
        """Tasks that become ready start, or else those that are done first end."""
        first_done, first_ready = self.end_virtual.amin(0), self.ready.amin(0)
        done_at = self.now + (first_done - self.virtual).clamp(min=0.0) * self.slow
        starting = (first_ready <= done_at) & (first_ready < torch.inf)
        at = torch.where(starting, first_ready, done_at)
        active = at < torch.inf
        onward = self.virtual + (at - self.now) / self.slow
        virtual = torch.where(starting, onward, torch.maximum(self.virtual, first_done))
        self.virtual, self.now = torch.where(active, virtual, 0.0), torch.where(active, at, 0.0)
        finishing = (self.end_virtual == first_done) & (~starting & active)
        self._begin((self.ready == first_ready) & starting)
        self._end(finishing)
        self.slow = self.asked.clamp(min=1.0)

    def _begin(self, begins: torch.Tensor) -> None:
        head = self.head
        self.starts.scatter_(0, head, torch.where(begins, self.now, self.starts.gather(0, head)))
        self.end_virtual = torch.where(begins, self.virtual + self.work.gather(0, head), self.end_virtual)
        self.ready = torch.where(begins, torch.inf, self.ready)
        self.asked = _sum(torch.where(begins, self.asks.gather(0, head), 0.0), self.asked)
        self.running = self.running + begins.sum(0)

    def _end(self, ending: torch.Tensor) -> None:
        task = self.head
        self.ends.scatter_(0, task, torch.where(ending, self.now, self.ends.gather(0, task)))
        self.end_virtual = torch.where(ending, torch.inf, self.end_virtual)
        asked = _sum(torch.where(ending, -self.asks.gather(0, task), 0.0), self.asked)
        count = ending.sum(0)
        self.running, self.unfinished = self.running - count, self.unfinished - count
        self.asked = torch.where(self.running == 0, 0.0, asked)
        self.head = head = torch.where(ending, self.following[task], task)
        self.free = torch.where(ending, self.now, self.free)
        arrived = torch.maximum(self.arrives.gather(0, head), self.now)
        next_ready = torch.where(self.left.gather(0, head) == 0, arrived, self.never)
        self.ready = torch.where(ending, next_ready, self.ready)
        for s in range(self.targets.shape[1]):
            self._send(ending, self.targets[:, s][task], self.sizes[:, s][task])

    def _send(self, ending: torch.Tensor, to: torch.Tensor, size: torch.Tensor) -> None:
        """The messages of the tasks that end, each to its task, "none left" where there is no message."""
        sends = ending & (to < len(self.work) - 1)
        message = self.now + torch.where(size == WAIT, 0.0, self.delay + size * self.per_byte)
        self.arrives.scatter_reduce_(0, to, torch.where(sends, message, -torch.inf), "amax")
        self.left.scatter_add_(0, to, -sends.to(self.left.dtype))
        lane = self.lane_of[to]
        can_start = sends & (self.left.gather(0, to) == 0) & (self.head.gather(0, lane) == to)
        ready = torch.maximum(self.arrives.gather(0, to), self.free.gather(0, lane))
        self.ready.scatter_reduce_(0, lane, torch.where(can_start, ready, torch.inf), "amin")


def _unshared(
    orders: LaneOrders, seconds: torch.Tensor, delay: torch.Tensor, per_byte: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    n = len(seconds)
    before = {b: a for order in orders.lanes for a, b in pairwise(order)}
    into: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for a, b, size in orders.crossing:
        into[b].append((a, size))
    starts, ends = torch.zeros_like(seconds), torch.zeros_like(seconds)
    for i in orders.topological:
        start = ends[before[i]] if i in before else starts[i]
        for a, size in into[i]:
            start = torch.maximum(start, ends[a] if size == WAIT else ends[a] + (delay + size * per_byte))
        starts[i], ends[i] = start, start + seconds[i]
    return starts, ends


def _share(asked_s: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """What share of the bandwidth tasks ask for, 0 where they take no time, or for ever."""
    timed = (seconds > 0) & seconds.isfinite()
    return torch.where(timed, asked_s / torch.where(timed, seconds, 1.0), 0.0).clamp(0.0, 1.0)


def _sum(values: torch.Tensor, of: torch.Tensor | None = None) -> torch.Tensor:
    """`of` and the rows, added one after the other."""
    total = torch.zeros_like(values[0]) if of is None else of
    for row in values:
        total = total + row
    return total


def _sums_of_ranges(values: torch.Tensor, starts: Ints) -> torch.Tensor:
    """Sums of the rows from each start to the next, added one after the other."""
    begins, sizes = starts[:-1], np.diff(starts)
    sums = torch.zeros((len(sizes), values.shape[1]), dtype=values.dtype, device=values.device)
    for k in range(int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > k)
        sums[longer] += values[begins[longer] + k]
    return sums


def _first(tasks: Sequence[int], values: torch.Tensor) -> torch.Tensor:
    """The first of the tasks that has the largest value, in each configuration."""
    chosen = torch.full_like(values[0], tasks[0], dtype=torch.int64)
    best = values[tasks[0]]
    for i in tasks[1:]:
        larger = values[i] > best
        chosen, best = torch.where(larger, i, chosen), torch.where(larger, values[i], best)
    return chosen


def _add_at(into: torch.Tensor, row: torch.Tensor, number: int) -> None:
    into.scatter_add_(0, row[None], torch.full_like(row[None], number))


def _numpy(values: torch.Tensor) -> Floats:
    out: Floats = values.cpu().numpy()
    return out


def _numpy_of_ints(values: torch.Tensor) -> Ints:
    out: Ints = values.cpu().numpy()
    return out
