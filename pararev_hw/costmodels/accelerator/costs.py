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
from pararev_hw.costmodels.accelerator.precision import Preparations
from pararev_hw.costmodels.accelerator.product_costs import Room, product_costs
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
    sram = configs.value("sram_bytes_per_lane")
    tile_share, weight_share = configs.get("sram_tile_share", 0.5), configs.get("sram_weight_share", 0.25)
    staying = sram * np.maximum(0.0, 1.0 - tile_share - weight_share)
    buffer = configs.get("global_buffer_bytes", 0.0)
    buffer_weights = configs.get("global_buffer_weight_share", 0.5)
    tiles = sram * tile_share
    outer = tiles + buffer * (1 - buffer_weights) / configs.lanes
    pool = np.where(buffer > 0, buffer * buffer_weights, sram * weight_share * configs.lanes)
    resident = np.minimum(1.0, pool / t.weight_bytes) if t.weight_bytes > 0 else np.ones(configs.count)

    product = product_costs(preparations, t, configs, Room(staying, tiles, outer, buffer, resident))
    fetched_read = t.outside_read + t.weight_read * (1 - resident)
    fetched_write = t.outside_write + t.weight_write * (1 - resident)
    for row, thresholds_, read, write in t.inside:
        at = np.searchsorted(thresholds_, staying, side="right")
        fetched_read[row] += read[at]
        fetched_write[row] += write[at]
    rows, n = len(t.works), configs.count

    def gathered(values: Floats) -> Floats:
        into = np.zeros((rows, n))
        for at, k in t.rows_of:
            into[at] += values[k]
        return into

    array_s = gathered(product.seconds)
    sram_read = gathered(product.sram_read) + t.sram_read + fetched_write
    sram_write = gathered(product.sram_write) + t.sram_write + fetched_read
    dram = gathered(product.dram) + fetched_read + fetched_write
    has_buffer = buffer > 0
    buffered = np.zeros((rows, 1))
    if has_buffer.any():
        buffered = np.where(has_buffer, gathered(product.buffer) + fetched_read + fetched_write, 0.0)

    clock = configs.value("clock_hz")
    dtype = t.table.dtype
    vector_s = t.vector / by_datatype(configs, "vector_flops_per_s", dtype)
    updates = t.neuron / OPERATIONS_PER_NEURON_UPDATE
    if configs.gives("neuron_updates_per_s"):
        neuron_s = updates / configs.value("neuron_updates_per_s")
    else:
        neuron_s = t.neuron / by_datatype(configs, "vector_flops_per_s", dtype)
        vector_s = vector_s + neuron_s  # one unit does both
    if configs.gives("sram_banks"):
        ports = configs.value("sram_banks") * clock
        sram_s = np.maximum(
            sram_read / (ports * configs.value("sram_bank_read_bytes")),
            sram_write / (ports * configs.value("sram_bank_write_bytes")),
        )
    else:
        sram_s = (sram_read + sram_write) / configs.value("sram_bandwidth_bytes_per_s")
    bandwidth = configs.value("memory_bandwidth_bytes_per_s")
    dram_s = dram / np.minimum(bandwidth, configs.get("lane_bandwidth_bytes_per_s", np.inf))
    buffer_s = np.where(has_buffer, buffered / configs.get("global_buffer_bandwidth_bytes_per_s", np.inf), 0.0)
    overhead = t.works * configs.get("launch_overhead_s", 0.0) + (dram > 0) * configs.get("dram_latency_s", 0.0)
    seconds = np.maximum(array_s, sram_s)
    for part_s in (vector_s, neuron_s, buffer_s, dram_s):
        np.maximum(seconds, part_s, out=seconds)
    seconds += overhead
    if product.misfit.any():
        seconds[gathered(product.misfit) > 0] = np.inf

    per_byte = configs.value("sram_energy_j_per_byte")
    reference = configs.get("sram_energy_at_bytes", 0.0)
    larger = np.sqrt(np.divide(sram, reference, out=np.ones(configs.count), where=reference > 0))
    write_j = configs.get("sram_write_energy_j_per_byte", per_byte)
    vector_j = configs.value("energy_per_vector_flop_j")
    has_neuron_j = configs.gives("neuron_update_energy_j")
    cross = np.where(has_buffer, 1.0, 1.0 - 1.0 / configs.lanes)  # of resident weights, how much is elsewhere
    mac_j = by_datatype(configs, "energy_per_mac_j", dtype)
    far_j = cross * message_j_per_byte(configs)
    amounts: dict[str, tuple[Amount, ...]] = {
        "mac": (Amount(product.macs, mac_j, True),),
        "ac": (
            Amount(product.sops, by_datatype(configs, "energy_per_ac_j", dtype, mac_j), True),
            Amount(product.events, configs.get("event_overhead_energy_j", 0.0), True),
        ),
        "vector": (Amount(t.vector + (0.0 if has_neuron_j else t.neuron), vector_j),),
        "neuron": (Amount(updates, configs.get("neuron_update_energy_j", 0.0)),),
        "register": (Amount(product.registers, configs.get("register_energy_j_per_byte", 0.0), True),),
        "sram": (Amount(sram_read, per_byte * larger), Amount(sram_write, write_j * larger)),
        "global_buffer": (Amount(buffered, configs.get("global_buffer_energy_j_per_byte", 0.0)),),
        "dram": (Amount(dram, configs.value("dram_energy_j_per_byte")),),
        "noc": (Amount(product.remote, far_j, True), Amount(t.weight_read + t.weight_write, resident * far_j)),
    }
    whole = (rows, n)
    return LayerCosts(
        seconds=seconds,
        overhead_s=np.broadcast_to(overhead, whole),
        array_s=array_s,
        vector_s=np.broadcast_to(np.maximum(vector_s, neuron_s), whole),
        sram_s=sram_s,
        dram_s=dram_s,
        sram_bytes=sram_read + sram_write,
        global_buffer_bytes=np.broadcast_to(buffered, whole),
        dram_bytes=dram,
        energy=((np.arange(n), {part: Joules(a, t.rows_of, rows, n) for part, a in amounts.items()}),),
    )


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
