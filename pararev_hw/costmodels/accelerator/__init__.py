"""An accelerator of cores with arrays of processing elements, memories and a network on chip.

One path serves a single report and a sweep over millions of configurations:

    table   = layer_table(graph)              # once per network: rows are layers that cost differently
    configs = config_table(device, columns)   # columns: figure name (or "lanes") -> array [configurations]
    costs   = layer_costs(table, configs)     # arrays [rows, configurations]: seconds, bytes per level, joule per part
    tasks   = task_costs(table, costs, configs)    # arrays [classes, configurations], seconds and joule of tasks
    tasks.seconds[table.class_of_task]        # [tasks, configurations]

`message_delay_s`, `message_j_per_byte` and `static_power_w` [configurations] say what the chip adds to a schedule: an
edge between two cores waits `message_delay_s + bytes / noc_bandwidth_bytes_per_s`. Seconds are inf where not even the
smallest tile of a layer fits the core's memory. Work in batches of about 1000 configurations: the arrays of a training
step with some hundred rows then stay in the processor's cache.

Any figure of `pararev_hw.devices.FIGURES` may be a column. Products tile and stay on chip by `activation_bits`,
`weight_bits`, `spike_bits`, `gradient_bits` and `accumulator_bits`: each combination that occurs costs a tiling search
per distinct product, everything else is arithmetic on arrays.
"""

from pararev_hw.costmodels.accelerator.arrays import DATAFLOWS as DATAFLOWS
from pararev_hw.costmodels.accelerator.configs import ConfigTable as ConfigTable
from pararev_hw.costmodels.accelerator.configs import config_table as config_table
from pararev_hw.costmodels.accelerator.costs import LayerCosts as LayerCosts
from pararev_hw.costmodels.accelerator.costs import layer_costs as layer_costs
from pararev_hw.costmodels.accelerator.heterogeneous import core_kinds as core_kinds
from pararev_hw.costmodels.accelerator.layers import LayerTable as LayerTable
from pararev_hw.costmodels.accelerator.layers import layer_table as layer_table
from pararev_hw.costmodels.accelerator.network import TOPOLOGIES as TOPOLOGIES
from pararev_hw.costmodels.accelerator.network import message_delay_s as message_delay_s
from pararev_hw.costmodels.accelerator.network import message_j_per_byte as message_j_per_byte
from pararev_hw.costmodels.accelerator.network import static_power_w as static_power_w
from pararev_hw.costmodels.accelerator.ops import accelerator_op_costs as accelerator_op_costs
from pararev_hw.costmodels.accelerator.ops import has_cores as has_cores
from pararev_hw.costmodels.accelerator.ops import preparations_of as preparations_of
from pararev_hw.costmodels.accelerator.tasks import TaskCosts as TaskCosts
from pararev_hw.costmodels.accelerator.tasks import per_class as per_class
from pararev_hw.costmodels.accelerator.tasks import task_costs as task_costs
