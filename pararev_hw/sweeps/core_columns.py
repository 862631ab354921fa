"""Accelerators that describe their cores: `pararev_hw.costmodels.accelerator`, as columns of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pararev_hw.costmodels import accelerator
from pararev_hw.costmodels.accelerator import LayerTable
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.errors import BadInput
from pararev_hw.sweeps.columns import Columns, Floats, TaskColumns
from pararev_hw.types import BlockGraph, Device


@dataclass(slots=True)
class CoreColumns:
    """`device` gives every figure that the columns do not."""

    graph: BlockGraph
    device: Device
    _table: LayerTable = field(init=False, repr=False)
    _preparations: accelerator.Preparations = field(init=False, repr=False)
    _times: Floats = field(init=False, repr=False)  # how often a layer occurs in the step

    def __post_init__(self) -> None:
        if len(accelerator.core_kinds(self.device)) > 1:
            raise BadInput(f"device {self.device.name!r} has two kinds of core: a sweep takes chips of one kind")
        self._table = accelerator.layer_table(self.graph, traffic(self.graph))
        self._preparations = accelerator.Preparations(self._table)
        tasks = np.bincount(self._table.class_of_task, minlength=len(self._table.classes))
        self._times = np.repeat(tasks, np.diff(self._table.starts)).astype(np.float64)

    def __call__(self, columns: Columns, lanes: int, count: int) -> TaskColumns:
        """What every task costs under `count` configurations with that many cores."""
        device = replace(self.device, lanes=lanes)
        given = {**columns, "lanes": np.full(count, float(lanes))}
        configs = accelerator.config_table(device, given)
        costs = accelerator.layer_costs(self._table, configs, self._preparations)
        # energy is summed over layers at once: of each task alone nobody asks
        tasks = accelerator.task_costs(self._table, replace(costs, energy=()), configs)
        return TaskColumns(
            seconds=tasks.seconds,
            bandwidth_demand=tasks.bandwidth_demand,
            row_of_task=np.asarray(self._table.class_of_task),
            energy_j=costs.total_energy_j(self._times),
            delay_s=accelerator.message_delay_s(configs),
            delay_s_per_byte=1.0 / configs.get("noc_bandwidth_bytes_per_s", np.inf),
            noc_j_per_byte=accelerator.message_j_per_byte(configs),
            static_w=accelerator.static_power_w(configs),
            memory_bytes=np.array(configs.get("memory_bytes", np.inf)),
        )
