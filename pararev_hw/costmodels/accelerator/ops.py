"""One configuration of an accelerator as what each op of a graph costs, the form that reports and schedulers take."""

from __future__ import annotations

import numpy as np

from pararev_hw.costmodels.accelerator.configs import ConfigTable, config_table
from pararev_hw.costmodels.accelerator.costs import LayerCosts, layer_costs
from pararev_hw.costmodels.accelerator.layers import LayerTable, layer_table
from pararev_hw.costmodels.accelerator.notes import notes
from pararev_hw.costmodels.accelerator.precision import Preparations
from pararev_hw.costmodels.datatypes import need_rate
from pararev_hw.costmodels.once import once
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Floats, Traffic
from pararev_hw.errors import Infeasible
from pararev_hw.types import BlockGraph, Device


def has_cores(device: Device) -> bool:
    """Whether a device describes its cores: an accelerator that gives `pe_rows`. Others follow the plain roofline."""
    return device.kind == "accelerator" and "pe_rows" in device.parameters


def accelerator_op_costs(graph: BlockGraph, device: Device, flow: Traffic) -> OpCosts:
    """What each op costs: its layer's costs, shared out by the ops' own work. Raises Infeasible where a layer fits no
    core, BadInput where a figure is missing."""
    if graph.dtype == "float64" and "activation_bits" not in device.parameters:
        need_rate(device, "float64")  # float32's rate would flatter it
    preparations = preparations_of(graph, flow)
    table, configs = preparations.table, config_table(device)
    costs = layer_costs(table, configs, preparations)
    _check_fits(table, costs, configs)
    share, row = _shares(graph, table, configs), np.maximum(table.row_of_op, 0)

    def per_op(values: Floats) -> Floats:
        return values[row, 0] * share if table.rows else np.zeros(len(graph.ops))

    nothing = np.zeros(len(graph.ops))
    return OpCosts(
        seconds=per_op(costs.seconds),
        overhead_s=per_op(costs.overhead_s),
        host_s=nothing,
        occupancy=nothing,
        dram_bytes=per_op(costs.dram_bytes),
        energy_j={part: per_op(joules) for part, joules in costs.energy_j.items()},
        notes=notes(preparations, configs),
    )


def preparations_of(graph: BlockGraph, flow: Traffic) -> Preparations:
    """What a graph's layers need at each precision, the same for all devices that it is costed on at one time."""
    return once(_preparations, (graph, flow))


def _preparations(graph: BlockGraph, flow: Traffic) -> Preparations:
    return Preparations(layer_table(graph, flow))


def _check_fits(table: LayerTable, costs: LayerCosts, configs: ConfigTable) -> None:
    misfits = np.flatnonzero(np.isinf(costs.seconds[:, 0])) if table.rows else np.array([], np.int64)
    if not len(misfits):
        return
    layer = table.all_layers[int(misfits[0])]
    p = layer.matrices[0].product
    have = configs.value("sram_bytes_per_lane")[0] * configs.get("sram_tile_share", 0.5)[0]
    raise Infeasible(
        f"{len(misfits)} layers do not fit a core of {configs.device.name}: {have:.0f} bytes of its memory hold tiles, "
        f"less than one row of one channel of a {p.kind.replace('_', ' ')} with {p.inputs} x {p.outputs} channels and "
        f"{p.rows} x {p.columns} places: give it a larger sram_bytes_per_lane"
    )


def _shares(graph: BlockGraph, table: LayerTable, configs: ConfigTable) -> Floats:
    """What part of its layer's costs each op takes, by MACs, elementary operations and bytes at the core's rates."""
    types = graph.op_types
    macs_per_s = configs.value("pe_rows")[0] * configs.value("pe_columns")[0] * configs.value("clock_hz")[0]
    vector = configs.value("vector_flops_per_s.float32")[0]
    type_work = np.array(
        [
            t.true_macs / macs_per_s + (t.vector_flops or 0) / vector + (t.read_bytes + t.write_bytes) * 1e-15
            for t in types
        ]
    )
    n = len(graph.ops)
    placed = table.row_of_op >= 0
    weight = type_work[np.fromiter((op.type for op in graph.ops), np.int64, n)] if n else np.zeros(0)
    weight[~placed] = 0.0
    # ops of one layer of one task: tasks that are made alike share rows, so sums are taken per task
    key = np.full(n, -1)
    for number, task in enumerate(graph.tasks):
        ops = list(task.ops)
        key[ops] = number * (table.rows + 1) + table.row_of_op[ops]
    _, group = np.unique(key, return_inverse=True)
    total, members = np.bincount(group, weight), np.bincount(group, placed.astype(np.float64))
    even = np.divide(1.0, members[group], out=np.zeros(n), where=members[group] > 0)
    return np.where(placed, np.divide(weight, total[group], out=even, where=total[group] > 0), 0.0)
