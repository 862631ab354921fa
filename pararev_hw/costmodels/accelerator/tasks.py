"""From layers to tasks: `task_costs(table, costs, configs)`, what a scheduler and a sweep need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.accelerator.configs import ConfigTable
from pararev_hw.costmodels.accelerator.costs import LayerCosts
from pararev_hw.costmodels.accelerator.layers import LayerTable
from pararev_hw.costmodels.traffic import Floats


@dataclass(frozen=True, slots=True)
class TaskCosts:
    """Arrays [classes, configurations]; task t is found in row `table.class_of_task[t]`.

    `bandwidth_demand` is the share of the main memory's bandwidth that a task asks for while it runs, 0..1.
    """

    seconds: Floats
    bandwidth_demand: Floats
    energy_j: Mapping[str, Floats]


def task_costs(table: LayerTable, costs: LayerCosts, configs: ConfigTable) -> TaskCosts:
    """Sums over the layers of each class of tasks."""
    seconds = per_class(table, costs.seconds)
    unloaded = per_class(table, costs.dram_bytes) / configs.value("memory_bandwidth_bytes_per_s")
    demand = np.divide(unloaded, seconds, out=np.zeros_like(seconds), where=(seconds > 0) & np.isfinite(seconds))
    energy = {part: per_class(table, joules) for part, joules in costs.energy_j.items()}
    return TaskCosts(seconds, demand.clip(0, 1), energy)


def per_class(table: LayerTable, values: Floats) -> Floats:
    """Sums of rows [rows, configurations] over each class: [classes, configurations]."""
    if not table.rows:
        return np.zeros((len(table.classes), values.shape[1]))
    sizes = np.diff(table.starts)
    sums = np.zeros((len(sizes), values.shape[1]))
    sums[sizes > 0] = np.add.reduceat(values, table.starts[:-1][sizes > 0], axis=0)
    return sums
