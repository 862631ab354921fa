"""How spikes thin out the work of convolutions and linear layers."""

from __future__ import annotations

import numpy as np

from pararev_hw.costmodels.traffic import Floats
from pararev_hw.graph import layer_of_op
from pararev_hw.types import BlockGraph
from pararev_hw.types.energy import ACCUMULATE_J


def sop_energy_popular_j(sops: float) -> float:
    """The SNN papers' energy figure, 0.9 pJ x SOPs: accumulates alone, no memory, no leakage, no other layer."""
    return ACCUMULATE_J * sops


def spiking_share(graph: BlockGraph) -> Floats:
    """Per op: synaptic operations over dense MACs where the op's input is spikes, NaN where it is not known to be.

    Only forward and recomputed convolutions and matrix products have spiking inputs; a gradient is dense. The share is
    the layer's own, by module path; where the graph knows only a task's SOPs, all matrix work of the task shares them.
    """
    share = np.full(len(graph.ops), np.nan)
    spiking = [layer for layer in graph.spikes.layers if layer.spiking] if graph.spikes else []
    by_layer = {s.module: min(1.0, s.sops / s.dense_macs) for s in spiking if s.dense_macs > 0}
    names = layer_of_op(graph)
    for task in graph.tasks:
        if task.phase not in ("forward", "recompute"):
            continue
        matrix = [i for i in task.ops if names[i] is not None]
        if graph.spikes is not None:
            for i in matrix:
                share[i] = by_layer.get(names[i] or "", np.nan)
        elif task.sops is not None and matrix:
            share[matrix] = min(1.0, task.sops / sum(graph.op_types[graph.ops[i].type].macs for i in matrix))
    return share
