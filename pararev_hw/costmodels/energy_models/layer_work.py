"""What an energy model is given of a layer: its counts in one pass over all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.graph import layer_of_op
from pararev_hw.types import BlockGraph, OpType, Phase


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer in one phase. `sops` None: its input is analog, and its work are the MACs."""

    module: str
    phase: Phase
    convolution: bool
    macs: float
    sops: float | None
    spikes: float  # input spikes, summed ones as often as they were summed
    inputs: int  # elements, of all samples and time steps
    outputs: int
    weights: int
    fan_in: int  # inputs that reach one output
    columns: int  # output channels: outputs that share their inputs
    neurons: int  # outputs of one sample in one time step

    @property
    def spiking(self) -> bool:
        return self.sops is not None


def layer_works(graph: BlockGraph) -> tuple[LayerWork, ...]:
    """The forward and recomputed layers of a step, in the order in which the step reaches them."""
    spikes = {s.module: s for s in graph.spikes.layers} if graph.spikes is not None else {}
    calls: dict[tuple[str, Phase], list[OpType]] = {}
    for name, op in zip(layer_of_op(graph), graph.ops, strict=True):
        op_type = graph.op_types[op.type]
        if name is not None and len(op_type.input_shapes) > 1 and op_type.output_shapes:
            calls.setdefault((name, op.phase), []).append(op_type)
    works = []
    for (name, phase), types in calls.items():
        layer = spikes.get(name)
        spiking = layer is not None and layer.spiking
        sops = layer.sops * graph.batch if layer is not None and spiking else None
        inputs = sum(math.prod(_activation(t)) for t in types)
        outputs = sum(math.prod(t.output_shapes[0]) for t in types)
        weight = _weight(types[0])
        samples = graph.batch * (graph.timesteps or 1)
        works.append(
            LayerWork(
                module=name,
                phase=phase,
                convolution=types[0].kind == "conv",
                macs=float(sum(t.macs for t in types)),
                sops=sops,
                spikes=layer.density * inputs if layer is not None and spiking else 0.0,
                inputs=inputs,
                outputs=outputs,
                weights=math.prod(weight),
                fan_in=round(sum(t.macs for t in types) / max(1, outputs)),
                columns=types[0].output_shapes[0][1] if types[0].kind == "conv" else types[0].output_shapes[0][-1],
                neurons=max(1, outputs // max(1, samples)),
            )
        )
    return tuple(works)


def _activation(op_type: OpType) -> tuple[int, ...]:
    """The shape of the operand that is no weight: the first, behind an addend."""
    behind_addend = op_type.name.split(".")[1] in ("addmm", "baddbmm") and len(op_type.input_shapes) > 2
    return op_type.input_shapes[1 if behind_addend else 0]


def _weight(op_type: OpType) -> tuple[int, ...]:
    if op_type.kind == "conv":
        return op_type.input_shapes[1]
    return op_type.input_shapes[-1]
