"""Cost models: a graph and a device in, a scheduling problem out. A new model is one file and one line in the table."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from pararev_hw.costmodels import roofline
from pararev_hw.costmodels.roofline import op_seconds as op_seconds
from pararev_hw.costmodels.spikes import sop_energy_popular_j as sop_energy_popular_j
from pararev_hw.types import BlockGraph, Device, SchedulingProblem


class CostModel(Protocol):
    """Costs of a graph's tasks on a device with `lanes` lanes (None: all it has)."""

    def __call__(
        self, graph: BlockGraph, device: Device, *, lanes: int | None = None, launch: str = "eager"
    ) -> SchedulingProblem: ...


COST_MODELS: Mapping[str, CostModel] = MappingProxyType({"roofline": roofline.costs})
