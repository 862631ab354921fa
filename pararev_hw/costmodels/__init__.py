"""Cost models: a graph and a device in, what its operations cost out. `cost.py` chooses the model."""

from pararev_hw.costmodels.cost import CostedGraph as CostedGraph
from pararev_hw.costmodels.cost import cost as cost
from pararev_hw.costmodels.cost import launches as launches
from pararev_hw.costmodels.once import working_out_once as working_out_once
from pararev_hw.costmodels.spikes import sop_energy_popular_j as sop_energy_popular_j
