"""What every layer costs on every configuration: `layer_costs(table, configs)`, arrays [rows, configurations].

    seconds = max(array, vector, neuron, own memory, global buffer, main memory) + overhead

A layer is a pipeline: its product, its elementwise work and its transfers run side by side, and the slowest sets the
pace. The overhead is that of programming a core, and of the main memory's latency before the first tile is there.
One configuration and a million take this same path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.accelerator.configs import ConfigTable, by_datatype, word_bytes
from pararev_hw.costmodels.accelerator.energy_terms import Amount, Joules
from pararev_hw.costmodels.accelerator.layers import LayerTable
from pararev_hw.costmodels.accelerator.network import message_j_per_byte
from pararev_hw.costmodels.accelerator.precision import Preparations, Prepared
from pararev_hw.costmodels.accelerator.product_costs import ProductCosts, Room, product_costs
from pararev_hw.costmodels.traffic import Floats, Ints

OPERATIONS_PER_NEURON_UPDATE = 4.0  # charge, compare, reset, write the spike


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """Costs of layers: arrays [rows, configurations].

    `seconds` is inf where not even the smallest tile of a layer fits the core's memory. `energy` holds the parts mac,
    ac, vector, neuron, register, sram, global_buffer, dram and noc for some of the configurations at a time.
    """

    seconds: Floats
    overhead_s: Floats
    array_s: Floats
    vector_s: Floats
    sram_s: Floats
    dram_s: Floats
    sram_bytes: Floats
    global_buffer_bytes: Floats
    dram_bytes: Floats
    energy: tuple[tuple[Ints, Mapping[str, Joules]], ...]

    @property
    def energy_j(self) -> Mapping[str, Floats]:
        """Part -> joule [rows, configurations]."""
        return self._energy(lambda j: j.by_row(), self.seconds.shape)

    def total_energy_j(self, times: Floats) -> Mapping[str, Floats]:
        """Part -> joule [configurations] of a step in which row r occurs `times[r]` times."""
        return self._energy(lambda j: j.total(times), self.seconds.shape[1:])

    def _energy(self, of: Callable[[Joules], Floats], shape: tuple[int, ...]) -> Mapping[str, Floats]:
        joules_of = {part: np.empty(shape) for part in self.energy[0][1]} if self.energy else {}
        for at, parts in self.energy:
            for part, joules in parts.items():
                joules_of[part][..., at] = of(joules)
        return joules_of


def layer_costs(table: LayerTable, configs: ConfigTable, at: Preparations | None = None) -> LayerCosts:
    """What each row of the table costs on each configuration.

    Configurations of one precision share tables that do not depend on anything else: a sweep is fastest where few
    precisions and few dataflows occur, and where `at` keeps those of earlier calls.
    Raises BadInput where a parameter is missing.
    """
    preparations = Preparations(table) if at is None else at
    widths = word_bytes(configs, table.word_bytes)
    unique, group = np.unique(widths, axis=1, return_inverse=True)
    group = group.reshape(-1)
    if unique.shape[1] == 1:
        return _one_precision(preparations, tuple(unique[:, 0].tolist()), configs)
    parts = [
        (rows, _one_precision(preparations, tuple(unique[:, k].tolist()), configs.take(rows)))
        for k in range(unique.shape[1])
        if len(rows := np.flatnonzero(group == k))
    ]
    return _joined(parts, configs.count)


def _one_precision(preparations: Preparations, widths: tuple[float, ...], configs: ConfigTable) -> LayerCosts:
    t = preparations.at(widths)
    room = _room(t, configs)
    product = product_costs(preparations, t, configs, room)
    moved = _traffic(t, room, product, configs.count)
    array_s = _by_row(t, product.seconds, configs.count)
    vector_s, neuron_s = _vector_and_neuron_s(t, configs)
    sram_s = _sram_s(moved, configs)
    bandwidth = configs.value("memory_bandwidth_bytes_per_s")
    dram_s = moved.dram / np.minimum(bandwidth, configs.get("lane_bandwidth_bytes_per_s", np.inf))
    through_s = moved.buffered / configs.get("global_buffer_bandwidth_bytes_per_s", np.inf)
    buffer_s = np.where(room.buffer > 0, through_s, 0.0)
    overhead = t.works * configs.get("launch_overhead_s", 0.0) + (moved.dram > 0) * configs.get("dram_latency_s", 0.0)
    seconds = np.maximum(array_s, sram_s)
    for part_s in (vector_s, neuron_s, buffer_s, dram_s):
        np.maximum(seconds, part_s, out=seconds)
    seconds += overhead
    if product.misfit.any():
        seconds[_by_row(t, product.misfit, configs.count) > 0] = np.inf
    rows, n = whole = len(t.works), configs.count
    terms = _energy_terms(t, room, product, moved, configs)
    return LayerCosts(
        seconds=seconds,
        overhead_s=np.broadcast_to(overhead, whole),
        array_s=array_s,
        vector_s=np.broadcast_to(np.maximum(vector_s, neuron_s), whole),
        sram_s=sram_s,
        dram_s=dram_s,
        sram_bytes=moved.sram_read + moved.sram_write,
        global_buffer_bytes=np.broadcast_to(moved.buffered, whole),
        dram_bytes=moved.dram,
        energy=((np.arange(n), {part: Joules(a, t.rows_of, rows, n) for part, a in terms.items()}),),
    )


def _by_row(t: Prepared, values: Floats, count: int) -> Floats:
    """Sums over the products of each row, [rows, configurations]."""
    into = np.zeros((len(t.works), count))
    for at, k in t.rows_of:
        into[at] += values[k]
    return into


def _room(t: Prepared, configs: ConfigTable) -> Room:
    """How a core's memory and the global buffer are divided, and what share of the weights stays on the chip."""
    sram = configs.value("sram_bytes_per_lane")
    tile_share, weight_share = configs.get("sram_tile_share", 0.5), configs.get("sram_weight_share", 0.25)
    staying = sram * np.maximum(0.0, 1.0 - tile_share - weight_share)
    buffer = configs.get("global_buffer_bytes", 0.0)
    buffer_weights = configs.get("global_buffer_weight_share", 0.5)
    tiles = sram * tile_share
    outer = tiles + buffer * (1 - buffer_weights) / configs.lanes
    pool = np.where(buffer > 0, buffer * buffer_weights, sram * weight_share * configs.lanes)
    resident = np.minimum(1.0, pool / t.weight_bytes) if t.weight_bytes > 0 else np.ones(configs.count)
    return Room(staying, tiles, outer, buffer, resident)


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Bytes [rows, configurations] that go into and out of each memory."""

    sram_read: Floats
    sram_write: Floats
    buffered: Floats
    dram: Floats


def _traffic(t: Prepared, room: Room, product: ProductCosts, count: int) -> _Traffic:
    fetched_read = t.outside_read + t.weight_read * (1 - room.resident)
    fetched_write = t.outside_write + t.weight_write * (1 - room.resident)
    for row, thresholds_, read, write in t.inside:
        at = np.searchsorted(thresholds_, room.staying, side="right")
        fetched_read[row] += read[at]
        fetched_write[row] += write[at]
    has_buffer = room.buffer > 0
    buffered = np.zeros((len(t.works), 1))
    if has_buffer.any():
        buffered = np.where(has_buffer, _by_row(t, product.buffer, count) + fetched_read + fetched_write, 0.0)
    return _Traffic(
        sram_read=_by_row(t, product.sram_read, count) + t.sram_read + fetched_write,
        sram_write=_by_row(t, product.sram_write, count) + t.sram_write + fetched_read,
        buffered=buffered,
        dram=_by_row(t, product.dram, count) + fetched_read + fetched_write,
    )


def _vector_and_neuron_s(t: Prepared, configs: ConfigTable) -> tuple[Floats, Floats]:
    """Time of elementwise work and of neurons: one after the other where one unit does both."""
    flops_per_s = by_datatype(configs, "vector_flops_per_s", t.table.dtype)
    vector_s = t.vector / flops_per_s
    if configs.gives("neuron_updates_per_s"):
        return vector_s, t.neuron / OPERATIONS_PER_NEURON_UPDATE / configs.value("neuron_updates_per_s")
    neuron_s = t.neuron / flops_per_s
    return vector_s + neuron_s, neuron_s


def _sram_s(moved: _Traffic, configs: ConfigTable) -> Floats:
    """Time at the core's own memory: reads and writes side by side where its banks are described."""
    if not configs.gives("sram_banks"):
        both: Floats = (moved.sram_read + moved.sram_write) / configs.value("sram_bandwidth_bytes_per_s")
        return both
    ports = configs.value("sram_banks") * configs.value("clock_hz")
    longer: Floats = np.maximum(
        moved.sram_read / (ports * configs.value("sram_bank_read_bytes")),
        moved.sram_write / (ports * configs.value("sram_bank_write_bytes")),
    )
    return longer


def _energy_terms(
    t: Prepared, room: Room, product: ProductCosts, moved: _Traffic, configs: ConfigTable
) -> dict[str, tuple[Amount, ...]]:
    """By part of the energy: amounts of work, and joules of each."""
    dtype = t.table.dtype
    per_byte = configs.value("sram_energy_j_per_byte")
    reference = configs.get("sram_energy_at_bytes", 0.0)
    sram = configs.value("sram_bytes_per_lane")
    larger = np.sqrt(np.divide(sram, reference, out=np.ones(configs.count), where=reference > 0))
    write_j = configs.get("sram_write_energy_j_per_byte", per_byte)
    has_neuron_j = configs.gives("neuron_update_energy_j")
    elsewhere = np.where(room.buffer > 0, 1.0, 1.0 - 1.0 / configs.lanes)  # of resident weights, as a share
    mac_j = by_datatype(configs, "energy_per_mac_j", dtype)
    far_j = elsewhere * message_j_per_byte(configs)
    return {
        "mac": (Amount(product.macs, mac_j, True),),
        "ac": (
            Amount(product.sops, by_datatype(configs, "energy_per_ac_j", dtype, mac_j), True),
            Amount(product.events, configs.get("event_overhead_energy_j", 0.0), True),
        ),
        "vector": (Amount(t.vector + (0.0 if has_neuron_j else t.neuron), configs.value("energy_per_vector_flop_j")),),
        "neuron": (Amount(t.neuron / OPERATIONS_PER_NEURON_UPDATE, configs.get("neuron_update_energy_j", 0.0)),),
        "register": (Amount(product.registers, configs.get("register_energy_j_per_byte", 0.0), True),),
        "sram": (Amount(moved.sram_read, per_byte * larger), Amount(moved.sram_write, write_j * larger)),
        "global_buffer": (Amount(moved.buffered, configs.get("global_buffer_energy_j_per_byte", 0.0)),),
        "dram": (Amount(moved.dram, configs.value("dram_energy_j_per_byte")),),
        "noc": (
            Amount(product.remote, far_j, True),
            Amount(t.weight_read + t.weight_write, room.resident * far_j),
        ),
    }


def _joined(parts: Sequence[tuple[Ints, LayerCosts]], count: int) -> LayerCosts:
    """One table from those of several precisions."""

    def join(values: Sequence[Floats]) -> Floats:
        out = np.empty((values[0].shape[0], count))
        for (at, _), v in zip(parts, values, strict=True):
            out[:, at] = v
        return out

    names = [f for f in LayerCosts.__dataclass_fields__ if f != "energy"]
    energy = tuple((at[inner], joules) for at, c in parts for inner, joules in c.energy)
    return LayerCosts(**{f: join([getattr(c, f) for _, c in parts]) for f in names}, energy=energy)
