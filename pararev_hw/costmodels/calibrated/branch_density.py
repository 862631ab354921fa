"""How often the mask of an op is set: the firing rate of the neuron whose spikes it holds."""

from __future__ import annotations

import numpy as np

from pararev_hw.costmodels.calibrated.features import branches
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.graph import layer_of_op
from pararev_hw.types import BlockGraph

ASSUMED_DENSITY = 0.2  # where the graph knows no spikes, as everywhere else in the toolkit

_CARRIES = ("_to_copy", "stack", "cat", "clone", "copy_")  # hand spikes on as they are


def mask_densities(graph: BlockGraph) -> Floats:
    """For each op that branches on a mask, the share of the mask that is set: that of the layer which reads the same
    spikes, else the mean over spiking layers, else assumed. Zero for all other ops."""
    densities = np.zeros(len(graph.ops))
    branching = [k for k, op in enumerate(graph.ops) if branches(graph.op_types[op.type])]
    if not branching:
        return densities
    mean = graph.spikes.rate if graph.spikes is not None else ASSUMED_DENSITY
    density_of_storage = _spike_storages(graph)
    for k in branching:
        here = [density_of_storage[s] for s in graph.ops[k].reads if s in density_of_storage]
        densities[k] = here[0] if here else mean
    return densities


def _spike_storages(graph: BlockGraph) -> dict[int, float]:
    """Density of the storages that hold spikes: what a layer of known input density reads, and what that came from."""
    if graph.spikes is None:
        return {}
    layers = {layer.module: layer.density for layer in graph.spikes.layers if layer.spiking}
    density_of_storage: dict[int, float] = {}
    for op, name in zip(graph.ops, layer_of_op(graph), strict=True):
        if name in layers and op.reads:
            density_of_storage.setdefault(op.reads[0], layers[name])
    for op in reversed(graph.ops):
        density = next((density_of_storage[s] for s in op.writes if s in density_of_storage), None)
        if density is not None and graph.op_types[op.type].name.split(".")[1] in _CARRIES:
            for s in op.reads:
                density_of_storage.setdefault(s, density)
    return density_of_storage
