"""Accelerators that describe their cores: `pararev_hw.costmodels.accelerator`, as columns of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pararev_hw.compiled import loop
from pararev_hw.costmodels import accelerator
from pararev_hw.costmodels.accelerator import LayerCosts, LayerTable
from pararev_hw.costmodels.accelerator.precision import Preparations
from pararev_hw.costmodels.once import once
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.devices import PARAMETERS
from pararev_hw.errors import BadInput
from pararev_hw.sweeps.columns import Columns, Floats, Ints, TaskColumns
from pararev_hw.types import BlockGraph, Device

if TYPE_CHECKING:
    from pararev_hw.sweeps.torch_batch import TorchBatch

# Parameters that no table of layers depends on: what they change is worked out for each configuration.
FREE = (
    "memory_bandwidth_bytes_per_s",
    "lane_bandwidth_bytes_per_s",
    "memory_bytes",
    "noc_bandwidth_bytes_per_s",
    "noc_latency_s",
    "static_power_w",
    "sram_leakage_w_per_byte",
    "pe_leakage_w",
)
MOST_CORES = 4096  # distinct cores of which tables are tables: some ten megabytes


@dataclass(frozen=True, slots=True)
class _Cores:
    """Layers on distinct cores, whatever the main memory's bandwidth: arrays [rows, cores], energy [cores]."""

    seconds: Floats  # without waiting for the main memory, overhead included
    overhead_s: Floats
    dram_bytes: Floats
    energy_j: Mapping[str, Floats]

    def joined(self, more: _Cores) -> _Cores:
        both = {name: np.concatenate((v, more.energy_j[name])) for name, v in self.energy_j.items()}
        return _Cores(
            np.concatenate((self.seconds, more.seconds), axis=1),
            np.concatenate((self.overhead_s, more.overhead_s), axis=1),
            np.concatenate((self.dram_bytes, more.dram_bytes), axis=1),
            both,
        )

    def rows(self, at: Ints) -> _Cores:
        """Some of the cores."""
        energy_j = {part: joules[at] for part, joules in self.energy_j.items()}
        return _Cores(self.seconds[:, at], self.overhead_s[:, at], self.dram_bytes[:, at], energy_j)


@dataclass(slots=True)
class CoreColumns:
    """`device` gives every figure that the columns do not; `batch` is what computes, None for numpy."""

    graph: BlockGraph
    device: Device
    batch: TorchBatch | None = None
    table: LayerTable = field(init=False, repr=False)
    _preparations: Preparations = field(init=False, repr=False)
    times: Floats = field(init=False, repr=False)  # how often a layer occurs in the step
    _tables: dict[tuple[int | str, ...], _CoreTables] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(accelerator.core_kinds(self.device)) > 1:
            raise BadInput(f"device {self.device.name!r} has two kinds of core: a sweep takes chips of one kind")
        self._preparations = accelerator.preparations_of(self.graph, once(traffic, (self.graph,)))
        self.table = self._preparations.table
        tasks = np.bincount(self.table.class_of_task, minlength=len(self.table.classes))
        self.times = np.repeat(tasks, np.diff(self.table.starts)).astype(np.float64)

    def __call__(self, columns: Columns, lanes: int, count: int) -> TaskColumns:
        """What every task costs under `count` configurations with that many cores."""
        device = replace(self.device, lanes=lanes)
        configs = accelerator.config_table(device, {**columns, "lanes": np.full(count, float(lanes))})
        cores, inverse = self._of_cores(columns, lanes, count)
        bandwidth = configs.value("memory_bandwidth_bytes_per_s")
        reach = np.minimum(bandwidth, configs.get("lane_bandwidth_bytes_per_s", np.inf))
        seconds, demand = self._tasks(cores, inverse, reach, bandwidth)
        return TaskColumns(
            seconds=seconds,
            bandwidth_demand=demand,
            row_of_task=np.asarray(self.table.class_of_task),
            energy_j={part: joules[inverse] for part, joules in cores.energy_j.items()},
            delay_s=accelerator.message_delay_s(configs),
            delay_s_per_byte=1.0 / configs.get("noc_bandwidth_bytes_per_s", np.inf),
            noc_j_per_byte=accelerator.message_j_per_byte(configs),
            static_w=accelerator.static_power_w(configs),
            memory_bytes=np.array(configs.get("memory_bytes", np.inf)),
        )

    def _tasks(self, cores: _Cores, which: Ints, reach: Floats, bandwidth: Floats) -> tuple[Floats, Floats]:
        if self.batch is None:
            return _tasks(self.table, cores, which, reach, bandwidth)
        layers = cores.seconds, cores.overhead_s, cores.dram_bytes
        class_bytes = accelerator.per_class(self.table, cores.dram_bytes)
        return self.batch.core_tasks(np.asarray(self.table.starts), layers, class_bytes, which, reach, bandwidth)

    def layer_costs(self, device: Device) -> LayerCosts:
        """What each layer costs on one device."""
        return accelerator.layer_costs(self.table, accelerator.config_table(device), self._preparations)

    def _of_cores(self, columns: Columns, lanes: int, count: int) -> tuple[_Cores, Ints]:
        """The distinct cores among the configurations, and which of them each has."""
        bound = {name: values for name, values in columns.items() if name not in FREE}
        if not bound:
            return self._cores(bound, lanes, np.zeros((1, 0))), np.zeros(count, np.int64)
        unique, first_which = _distinct(np.column_stack([np.asarray(v, np.float64) for v in bound.values()]))
        return self._cores(bound, lanes, unique), first_which

    def _cores(self, bound: Columns, lanes: int, values: Floats) -> _Cores:
        """Tables of cores whose parameters are the rows of `values`; those that occurred before are looked up."""
        names: tuple[int | str, ...] = (lanes, *bound)
        if names not in self._tables or len(self._tables[names].number) > MOST_CORES:
            self._tables[names] = _CoreTables({}, None)
        tables = self._tables[names]
        keys = [row.tobytes() for row in values]
        new = [k for k, key in enumerate(keys) if key not in tables.number]
        if new:
            added = self._computed(bound, lanes, values[new])
            tables.cores = added if tables.cores is None else tables.cores.joined(added)
            for k in new:
                tables.number[keys[k]] = len(tables.number)
        assert tables.cores is not None
        return tables.cores.rows(np.array([tables.number[key] for key in keys], np.int64))

    def _computed(self, bound: Columns, lanes: int, values: Floats) -> _Cores:
        device = replace(self.device, lanes=lanes)
        column_by_name = {name: values[:, k] for k, name in enumerate(bound)}
        # the fastest memory that a device may have: whatever else limits a layer, it is not this one
        column_by_name["memory_bandwidth_bytes_per_s"] = np.full(
            len(values), PARAMETERS["memory_bandwidth_bytes_per_s"].span[1]
        )
        column_by_name["lanes"] = np.full(len(values), float(lanes))
        costs = accelerator.layer_costs(
            self.table, accelerator.config_table(device, column_by_name), self._preparations
        )
        energy_j = {part: np.asarray(j) for part, j in costs.total_energy_j(self.times).items()}
        return _Cores(costs.seconds, np.ascontiguousarray(costs.overhead_s), costs.dram_bytes, energy_j)


@dataclass(slots=True)
class _CoreTables:
    """Cores that have occurred: the number of each by the bytes of its parameters."""

    number: dict[bytes, int]
    cores: _Cores | None


def _distinct(rows: Floats) -> tuple[Floats, Ints]:
    """The distinct rows, and which of them each row is."""
    code, size = np.zeros(len(rows), np.int64), 1
    for column in rows.T:
        values = np.unique(column)  # few: finding each place among them is quicker than an inverse by sorting
        code, size = code * len(values) + np.searchsorted(values, column), size * len(values)
        if size > 8 * len(rows):
            present, code = np.unique(code, return_inverse=True)
            size = len(present)
    occurs = np.zeros(size, np.bool_)
    occurs[code] = True
    inverse = (np.cumsum(occurs) - 1)[code]
    first = np.zeros(int(occurs.sum()), np.int64)
    first[inverse[::-1]] = np.arange(len(rows))[::-1]
    return rows[first], inverse


def compile_tasks() -> None:
    """As `compile_replay`."""
    _tasks_loop.compile()


def _tasks(table: LayerTable, cores: _Cores, inverse: Ints, reach: Floats, bandwidth: Floats) -> tuple[Floats, Floats]:
    """Seconds of each class of tasks, and the share of the bandwidth that it asks for: [classes, configurations].

    The slowest part sets the pace of a layer: here the main memory joins the others.
    """
    class_bytes = accelerator.per_class(table, cores.dram_bytes)
    compiled = _tasks_loop.compiled_for(len(inverse) * table.rows)
    if compiled is not None:
        seconds, demand = (np.empty((len(inverse), len(table.classes))) for _ in range(2))
        by_core = (np.ascontiguousarray(v.T) for v in (cores.seconds, cores.overhead_s, cores.dram_bytes, class_bytes))
        compiled(table.starts, *by_core, inverse, reach, bandwidth, seconds, demand)
        return seconds.T, demand.T
    waiting = cores.dram_bytes[:, inverse] / reach + cores.overhead_s[:, inverse]
    seconds = accelerator.per_class(table, np.maximum(cores.seconds[:, inverse], waiting))
    timed = (seconds > 0) & np.isfinite(seconds)
    demand = np.divide(class_bytes[:, inverse] / bandwidth, seconds, out=np.zeros_like(seconds), where=timed)
    return seconds, demand.clip(0, 1)


@loop
def _tasks_loop(
    starts: Ints,
    layer_s: Floats,  # [cores, rows], as the next two
    overhead_s: Floats,
    dram_bytes: Floats,
    class_bytes: Floats,  # [cores, classes]
    inverse: Ints,
    reach: Floats,
    bandwidth: Floats,
    seconds: Floats,  # [configurations, classes]
    demand: Floats,
) -> None:
    for c in range(len(inverse)):
        k = inverse[c]
        for g in range(len(starts) - 1):
            total = 0.0
            for r in range(starts[g], starts[g + 1]):
                total += max(layer_s[k, r], dram_bytes[k, r] / reach[c] + overhead_s[k, r])
            seconds[c, g] = total
            demand[c, g] = 0.0
            if 0.0 < total < np.inf:
                demand[c, g] = min(class_bytes[k, g] / bandwidth[c] / total, 1.0)
