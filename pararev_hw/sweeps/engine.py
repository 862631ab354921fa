"""Evaluates configurations of one traced network: fast, many at once, and one at a time through the pipeline.

Both give the same numbers to 1e-9 relative (tests/sweeps/test_sweep_engine.py), because they decide alike:

- Who runs where, and after whom, is decided once per *class* = (network, number of lanes), by the sweep's scheduler on
  the class's representative: the base device with that many lanes.
- Every configuration plays these lane orders, and the waits that keep their memory, with its own times, delays and
  shared bandwidth.
- Where the sequential schedule is no slower (or alone fits the memory), it is what the configuration gives.

One at a time, that is `pipeline.study(graph, device, scheduler=..., orders=lane orders of the class)`, and on the
command line `pararev-hw report ... --device configuration.yaml --scheduler ... --orders-of representative.yaml`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pararev_hw import pipeline
from pararev_hw.costmodels import accelerator
from pararev_hw.costmodels.column_sums import column_sums
from pararev_hw.errors import Infeasible
from pararev_hw.sweeps.chips import configured
from pararev_hw.sweeps.columns import (
    NO_CORE,
    NO_ROOM,
    OVER_LIMIT,
    Columns,
    CostColumns,
    Floats,
    Ints,
    Outcome,
    TaskColumns,
)
from pararev_hw.sweeps.compiled_replay import ReplayArrays, compile_replay, makespans_and_peaks, pays, replay_arrays
from pararev_hw.sweeps.core_columns import CoreColumns, compile_tasks
from pararev_hw.sweeps.memory_columns import MemoryEvents, memory_events, peak_bytes
from pararev_hw.sweeps.replay import LaneOrders, orders_with_waits, replay, sequential_seconds
from pararev_hw.sweeps.roofline_columns import RooflineColumns
from pararev_hw.types import BlockGraph, Device, DeviceParameter, Prediction, Study

if TYPE_CHECKING:
    from pararev_hw.sweeps.torch_batch import TorchBatch

BATCH = 1024  # configurations at once: arrays of a 37-layer step stay in the second-level cache
COMPILED_BATCH = 8192  # where each is played by itself, and only what is done for all at once takes time


@dataclass(frozen=True, slots=True)
class Decided:
    """Tasks by lane, in order, and the waits (before, after) that keep the memory of these orders."""

    lanes: tuple[tuple[int, ...], ...]
    waits: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Class:
    decided: Decided
    orders: LaneOrders
    memory: MemoryEvents
    arrays: ReplayArrays


@dataclass(slots=True)
class Engine:
    """One network on variations of one base device. `scheduler` decides once per number of lanes.

    `memory_limit` in bytes is kept where the device has more; where the scheduler's own orders need more than that,
    those of memory-list are played. `compute` is the device on which PyTorch evaluates, "cuda" or "cpu"; None: numpy
    and compiled loops.
    """

    graph: BlockGraph
    device: Device
    scheduler: str
    memory_limit: int | None = None
    compute: str | None = None
    _torch: TorchBatch | None = field(init=False, repr=False)
    _costs: CostColumns | None = field(init=False, repr=False)
    _classes: dict[int, _Class] = field(default_factory=dict, repr=False)
    _sequential_peak: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._torch = None if self.compute is None else _batch_on(self.compute)
        self._costs = _cost_columns(self.graph, self.device, self._torch)
        if self._costs is not None:
            alone = orders_with_waits([range(len(self.graph.tasks))], _edges(self.graph))
            starts, ends = replay(alone, self._costs({}, 1, 1))
            self._sequential_peak = int(peak_bytes(_memory(self.graph, alone), starts, ends)[0])

    @property
    def vectorised(self) -> bool:
        """Whether many configurations are evaluated at once; other kinds of device go one by one."""
        return self._costs is not None

    @property
    def core_columns(self) -> CoreColumns | None:
        """The layers of the network on the device's cores, where it has any."""
        return self._costs if isinstance(self._costs, CoreColumns) else None

    def prepare(self, lanes: int) -> None:
        """Decide the lane orders of the class with that many lanes, where that is not done yet."""
        if not self.vectorised or lanes in self._classes:
            return
        decided = self.decided(lanes)
        orders = orders_with_waits(decided.lanes, _edges(self.graph), decided.waits)
        memory = _memory(self.graph, orders)
        self._classes[lanes] = _Class(decided, orders, memory, replay_arrays(orders, memory))

    def representative(self, lanes: int) -> Device:
        """The device on which the scheduler decides for all configurations with that many lanes."""
        return replace(self.device, lanes=lanes)

    def __call__(self, columns: Columns, lanes: int, count: int) -> Outcome:
        """What `count` configurations with that many lanes cost; `columns` are figures of the device."""
        if self._costs is None:
            return self._one_by_one(columns, lanes, count)
        self.prepare(lanes)
        parts = []
        size = self._batch_size(lanes, count)
        for at in range(0, count, size):
            batch = {name: values[at : at + size] for name, values in columns.items()}
            parts.append(self._batch(self._costs(batch, lanes, min(size, count - at)), self._classes[lanes]))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _batch_size(self, lanes: int, count: int) -> int:
        if self._torch is not None:
            return self._torch.size
        compile_replay()
        compile_tasks()
        return COMPILED_BATCH if pays(self._classes[lanes].arrays, count) else BATCH

    def _batch(self, costs: TaskColumns, of: _Class) -> Outcome:
        misfit = ~np.isfinite(costs.seconds).all(0)
        if misfit.any():
            costs = replace(costs, seconds=np.where(misfit, 0.0, costs.seconds))
        room = costs.memory_bytes if self.memory_limit is None else np.minimum(costs.memory_bytes, self.memory_limit)
        if self._torch is None:
            sequential_s = sequential_seconds(costs)
            played_s, played_peak = _played(of, costs)
        else:
            sequential_s = self._torch.sequential_seconds(costs)
            played_s, played_peak = self._torch.played(of.orders, of.memory, costs)
        parallel = (sequential_s > played_s * (1 + pipeline.TIE)) & (played_peak <= room)
        latency_s = np.where(parallel, played_s, sequential_s)
        energy = {**costs.energy_j}
        messages = np.where(parallel, of.orders.noc_bytes * costs.noc_j_per_byte, 0.0)
        energy["noc"] = costs.energy_j.get("noc", 0.0) + messages
        energy["static"] = costs.static_w * latency_s
        energy["total"] = column_sums(np.stack(list(energy.values())))
        peak = np.where(parallel, played_peak, self._sequential_peak).astype(np.float64)
        failure = np.where(self._sequential_peak <= room, 0, OVER_LIMIT)
        failure = np.where(self._sequential_peak <= costs.memory_bytes, failure, NO_ROOM)
        return Outcome(latency_s, sequential_s, energy, peak, np.where(misfit, NO_CORE, failure))

    def study(self, values: Mapping[str, float], lanes: int) -> Study:
        """One configuration through the pipeline, as `report` does it. Raises Infeasible."""
        device, decided = self.configured(values, lanes), self.decided(lanes)
        return pipeline.study(self.graph, device, scheduler=self.scheduler, orders=decided.lanes, waits=decided.waits)

    def chosen(self, values: Mapping[str, float], lanes: int) -> Prediction:
        """What `study` chooses, where configurations are evaluated at once. Raises Infeasible."""
        device, decided = self.configured(values, lanes), self.decided(lanes)
        return pipeline.chosen(self.graph, device, self.scheduler, decided.lanes, decided.waits)

    def configured(self, values: Mapping[str, float], lanes: int) -> Device:
        """The device of one configuration."""
        return self._limited(configured(self.device, values, lanes, "set by the sweep"))

    def decided(self, lanes: int) -> Decided:
        """The lane orders and waits of the class with that many lanes."""
        if lanes in self._classes:
            return self._classes[lanes].decided
        device = self.representative(lanes)
        plan = pipeline.plan(self.graph, device, self.scheduler)
        if self.memory_limit is not None:
            try:
                pipeline.predict(replace(plan, device=self._limited(device)))
            except Infeasible:
                with contextlib.suppress(Infeasible):  # then the sequential step is what fits, if anything does
                    plan = pipeline.plan(self.graph, device, "memory-list", memory_limit=self.memory_limit)
        return Decided(pipeline.lane_orders(self.graph, plan.schedule), pipeline.wait_pairs(self.graph, plan.schedule))

    def _limited(self, device: Device) -> Device:
        """The device with no more memory than the limit."""
        if self.memory_limit is None or device.get("memory_bytes", np.inf) <= self.memory_limit:
            return device
        memory = DeviceParameter(float(self.memory_limit), "the sweep's memory limit", "assumed")
        return replace(device, parameters={**device.parameters, "memory_bytes": memory})

    def _one_by_one(self, columns: Columns, lanes: int, count: int) -> Outcome:
        latency, sequential, peak = np.zeros(count), np.zeros(count), np.zeros(count)
        failure = np.zeros(count, np.int64)
        energy: dict[str, Floats] = {"total": np.zeros(count), "static": np.zeros(count)}
        for k in range(count):
            try:
                study = self.study({name: float(v[k]) for name, v in columns.items()}, lanes)
            except Infeasible:
                failure[k] = NO_ROOM if self.memory_limit is None else OVER_LIMIT
                continue
            latency[k], peak[k] = study.chosen.latency_s, study.chosen.peak_bytes
            sequential[k] = study.sequential.latency_s
            for part, joule in study.chosen.energy_j.items():
                energy.setdefault(part, np.zeros(count))[k] = joule
        return Outcome(latency, sequential, energy, peak, failure)


def _batch_on(compute: str) -> TorchBatch:
    from pararev_hw.sweeps.torch_batch import TorchBatch  # without torch where nobody asks for it

    return TorchBatch(compute)


def _cost_columns(graph: BlockGraph, device: Device, batch: TorchBatch | None) -> CostColumns | None:
    if accelerator.has_cores(device):
        return CoreColumns(graph, device, batch)
    return RooflineColumns(graph, device, batch) if device.kind == "accelerator" else None


def _played(of: _Class, costs: TaskColumns) -> tuple[Floats, Ints]:
    """Makespans and peak bytes of a class's lane orders."""
    played = makespans_and_peaks(of.arrays, costs)
    if played is not None:
        return played
    starts, ends = replay(of.orders, costs)
    return ends.max(0, initial=0.0), peak_bytes(of.memory, starts, ends)


def _edges(graph: BlockGraph) -> list[tuple[int, int, int]]:
    return [(e.src, e.dst, e.bytes) for e in graph.edges]


def _memory(graph: BlockGraph, orders: LaneOrders) -> MemoryEvents:
    into: list[list[int]] = [[] for _ in graph.tasks]
    for e in graph.edges:
        into[e.dst].append(e.src)
    for order in orders.lanes:
        for a, b in pairwise(order):
            into[b].append(a)
    ancestors = [0] * len(graph.tasks)
    for i in orders.topological:
        for j in into[i]:
            ancestors[i] |= ancestors[j] | 1 << j
    return memory_events(graph, ancestors)


def _joined(parts: list[Outcome]) -> Outcome:
    return Outcome(
        latency_s=np.concatenate([p.latency_s for p in parts]),
        sequential_s=np.concatenate([p.sequential_s for p in parts]),
        energy_j={name: np.concatenate([p.energy_j[name] for p in parts]) for name in parts[0].energy_j},
        peak_bytes=np.concatenate([p.peak_bytes for p in parts]),
        failure=np.concatenate([p.failure for p in parts]),
    )
