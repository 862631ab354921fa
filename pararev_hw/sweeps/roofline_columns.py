"""The roofline of `pararev_hw.costmodels.roofline` for accelerators, many configurations at a time.

What a configuration changes are figures of the device. Everything else is worked out once per network: ops that cost
the same on every such device are one row, tasks made of the same rows are one row of a sparse matrix, so that

    task seconds [tasks, configurations] = counts [tasks, op rows] @ op seconds [op rows, configurations]

Which storages stay on chip depends on the SRAM alone, and changes at few capacities: tables are kept for each interval
of capacities that decides alike.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.column_sums import column_sums
from pararev_hw.costmodels.roofline_terms import Rates, Work, busy_seconds, op_parameters
from pararev_hw.costmodels.spikes import spiking_share
from pararev_hw.costmodels.traffic import Traffic, kept_on_chip, share_of_bytes, traffic
from pararev_hw.sweeps.columns import Columns, TaskColumns
from pararev_hw.types import BlockGraph, Device

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from pararev_hw.sweeps.torch_batch import TorchBatch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Table:
    """Ops and tasks for one interval of SRAM capacities; rows are ops that cost the same."""

    work: Floats  # row: flops as dense
    share: Floats  # row: spiking share, NaN where the input is not spikes
    vector: Floats
    moved: Floats
    dram: Floats
    works: NDArray[np.bool_]
    matrix_rate: Ints  # row: index into the model's figure names
    vector_rate: Ints
    mac_j: Ints
    ac_j: Ints
    counts: csr_array  # [distinct tasks, rows]
    task_row: Ints  # task -> distinct task
    times: Floats  # row: how often it occurs in all tasks


@dataclass(slots=True)
class RooflineColumns:
    """`device` gives every figure that the columns do not; `batch` is what computes, None for numpy."""

    graph: BlockGraph
    device: Device
    batch: TorchBatch | None = None
    _flow: Traffic = field(init=False, repr=False)
    _names: tuple[str, ...] = field(init=False, repr=False)
    _fixed: Floats = field(init=False, repr=False)
    _bounds: list[float] = field(default_factory=list, repr=False)  # where intervals of capacities begin
    _tables: dict[float, tuple[float, _Table]] = field(default_factory=dict, repr=False)  # begin -> (end, table)

    def __post_init__(self) -> None:
        graph = self.graph
        self._flow = traffic(graph)
        names = [astuple(op_parameters(self.device, t)) for t in graph.op_types]
        index = {name: k for k, name in enumerate(dict.fromkeys(n for row in names for n in row))}
        per_type = np.array([[index[n] for n in row] for row in names], np.int64).reshape(len(names), 4)
        self._names = tuple(index)
        type_of = np.fromiter((op.type for op in graph.ops), np.int64, len(graph.ops))
        amounts = np.array(
            [[t.true_flops, t.vector_flops or 0, t.read_bytes, t.write_bytes] for t in graph.op_types], np.float64
        ).reshape(len(graph.op_types), 4)
        share = spiking_share(graph) if self.device.get("zero_skipping", 0.0) == 1.0 else np.full(len(type_of), np.nan)
        self._fixed = np.column_stack((amounts[type_of], np.nan_to_num(share, nan=-1.0), per_type[type_of]))

    def __call__(self, columns: Columns, lanes: int, count: int) -> TaskColumns:
        """What every task costs under `count` configurations that may differ in SRAM."""
        sram = columns.get("sram_bytes_per_lane")
        if sram is None:
            return self._evaluate(self._table(self.device.value("sram_bytes_per_lane")), columns, lanes, count)
        tables = {id(t): t for t in (self._table(float(c)) for c in np.unique(sram))}
        if len(tables) == 1:
            return self._evaluate(next(iter(tables.values())), columns, lanes, count)
        table_id = np.array([id(self._table(float(c))) for c in sram])
        parts = []
        for key, table in tables.items():
            chosen = np.flatnonzero(table_id == key)
            picked = {name: values[chosen] for name, values in columns.items()}
            parts.append((chosen, self._evaluate(table, picked, lanes, len(chosen))))
        return TaskColumns.gathered(parts, count)

    def _evaluate(self, t: _Table, columns: Columns, lanes: int, count: int) -> TaskColumns:
        def figure(name: str, default: float | None = None) -> Floats:
            if name in columns:
                return columns[name]
            value = self.device.value(name) if default is None else self.device.get(name, default)
            return np.full(count, value)

        def of_rows(indices: Ints) -> Floats:  # [rows, configurations]; one row where all rows read the same figure
            used = np.unique(indices)
            table = np.stack([figure(self._names[k]) for k in used])
            return table if len(used) == 1 else table[np.searchsorted(used, indices)]

        spikes = t.share >= 0
        operations = (t.work * np.where(spikes, np.minimum(t.share, 1.0), 1.0))[:, None]
        bandwidth = figure("memory_bandwidth_bytes_per_s")
        work = Work(
            operations, np.where(t.work > 0, 1.0, 0.0)[:, None], t.vector[:, None], t.dram[:, None], t.moved[:, None]
        )
        rates = Rates(
            matrix=of_rows(t.matrix_rate),
            vector=of_rows(t.vector_rate),
            bandwidth=np.minimum(bandwidth, figure("lane_bandwidth_bytes_per_s", np.inf)),
            sram_bandwidth=figure("sram_bandwidth_bytes_per_s"),
            half_flops=figure("matrix_half_work_flops", 0.0),
            half_bytes=figure("bandwidth_half_work_bytes", 0.0),
        )
        overhead_s = np.where(t.works, 1.0, 0.0)[:, None] * figure("launch_overhead_s", 0.0)
        dram = t.counts @ t.dram
        if self.batch is None:
            seconds = t.counts @ (busy_seconds(work, rates) + overhead_s)
            unloaded = dram[:, None] / bandwidth
            demand = np.divide(unloaded, seconds, out=np.zeros_like(seconds), where=seconds > 0).clip(0, 1)
        else:
            seconds, demand = self.batch.roofline_tasks(work, rates, overhead_s, t.counts.toarray(), dram, bandwidth)
        macs = np.where(spikes, 0.0, t.work / 2) * t.times
        events = np.where(spikes[:, None], operations / 2, 0.0) * t.times[:, None]
        energy = {
            "mac": column_sums(macs[:, None] * of_rows(t.mac_j)),
            "ac": column_sums(events * of_rows(t.ac_j)),
            "vector": (t.vector @ t.times) * figure("energy_per_vector_flop_j"),
            "dram": (t.dram @ t.times) * figure("dram_energy_j_per_byte"),
            "sram": (t.moved @ t.times) * figure("sram_energy_j_per_byte"),
        }
        on_chip = lanes * figure("sram_bytes_per_lane", 0.0) + figure("global_buffer_bytes", 0.0)
        return TaskColumns(
            seconds=seconds,
            bandwidth_demand=demand,
            row_of_task=t.task_row,
            energy_j=energy,
            delay_s=figure("noc_latency_s", 0.0),
            delay_s_per_byte=1.0 / figure("noc_bandwidth_bytes_per_s", np.inf),
            noc_j_per_byte=figure("noc_energy_j_per_byte", 0.0),
            static_w=figure("static_power_w", 0.0) + on_chip * figure("sram_leakage_w_per_byte", 0.0),
            memory_bytes=figure("memory_bytes", np.inf),
        )

    def _table(self, capacity: float) -> _Table:
        at = bisect_right(self._bounds, capacity) - 1
        if at >= 0:
            begin = self._bounds[at]
            end, table = self._tables[begin]
            if capacity < end:
                return table
        resident = kept_on_chip(self._flow, capacity)
        begin, end = _decided_alike(self._flow, capacity)
        table = self._tabulated(resident)
        self._bounds.insert(bisect_right(self._bounds, begin), begin)
        self._tables[begin] = (end, table)
        return table

    def _tabulated(self, resident: NDArray[np.bool_]) -> _Table:
        flow = self._flow
        flops, vector, read, write, share, *_ = self._fixed.T
        kept_reads, kept_writes = (
            share_of_bytes(flow.reads, flow, resident),
            share_of_bytes(flow.writes, flow, resident),
        )
        dram = read * (1 - kept_reads) + write * (1 - kept_writes)
        moved = read + write
        works = (flops > 0) | (vector > 0) | (moved > 0)
        parameters = self._fixed[:, 5:]
        whole = np.column_stack((flops, share, vector, moved, dram, works, parameters))
        placed = np.flatnonzero(flow.task_of_op >= 0)
        rows, row_of = np.unique(whole[placed], axis=0, return_inverse=True)
        n = len(self.graph.tasks)
        from scipy.sparse import csr_array  # late: sweeps of devices with cores do not need it

        counts = csr_array((np.ones(len(placed)), (flow.task_of_op[placed], row_of.reshape(-1))), shape=(n, len(rows)))
        counts.sum_duplicates()
        distinct, task_row = _distinct_rows(counts)
        return _Table(
            work=rows[:, 0],
            share=rows[:, 1],
            vector=rows[:, 2],
            moved=rows[:, 3],
            dram=rows[:, 4],
            works=rows[:, 5] > 0,
            matrix_rate=rows[:, 6].astype(np.int64),
            vector_rate=rows[:, 7].astype(np.int64),
            mac_j=rows[:, 8].astype(np.int64),
            ac_j=rows[:, 9].astype(np.int64),
            counts=distinct,
            task_row=task_row,
            times=np.asarray(counts.sum(0), np.float64).reshape(-1),
        )


def _distinct_rows(counts: csr_array) -> tuple[csr_array, Ints]:
    """The distinct rows of a sparse matrix, in order of first occurrence, and which of them each row is."""
    index_of: dict[tuple[bytes, bytes], int] = {}
    first: list[int] = []
    row_of = np.zeros(counts.shape[0], np.int64)
    for k in range(counts.shape[0]):
        span = slice(counts.indptr[k], counts.indptr[k + 1])
        key = (counts.indices[span].tobytes(), counts.data[span].tobytes())
        if key not in index_of:
            index_of[key] = len(first)
            first.append(k)
        row_of[k] = index_of[key]
    return counts[first], row_of


def _decided_alike(t: Traffic, capacity: float) -> tuple[float, float]:
    """The capacities [from, to) for which `kept_on_chip` keeps just what it keeps for this one.

    It asks of one storage after another whether it fits beside those that are kept: the largest sum that did fit and
    the smallest that did not bound the interval.
    """
    n = len(t.storage_bytes)
    op = np.concatenate((t.reads.op, t.writes.op))
    storage = np.concatenate((t.reads.storage, t.writes.storage))
    first, last = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
    np.minimum.at(first, storage, op)
    np.maximum.at(last, storage, op)
    candidates = np.flatnonzero(t.internal & (last >= 0))
    task = t.task_of_op[last[candidates]]
    low, high = 0.0, np.inf
    now, used = -1, 0
    live: list[tuple[int, int]] = []
    order = np.lexsort((candidates, first[candidates], task))
    for s, of_task in zip(candidates[order].tolist(), task[order].tolist(), strict=True):
        if of_task != now:
            now, used, live = of_task, 0, []
        while live and live[0][0] < first[s]:
            used -= heapq.heappop(live)[1]
        need = used + int(t.storage_bytes[s])
        if need <= capacity:
            low, used = max(low, float(need)), need
            heapq.heappush(live, (int(last[s]), int(t.storage_bytes[s])))
        else:
            high = min(high, float(need))
    return low, high
