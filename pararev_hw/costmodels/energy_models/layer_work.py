"""What an energy model is given of a layer: its counts in one pass over all samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pararev_hw.graph import layer_of_op
from pararev_hw.graph.operands import operands
from pararev_hw.types import BlockGraph, LayerSpikes, Op, Phase


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer in one phase. `sops` None: its input is analog, and its work are the MACs."""

    module: str
    phase: Phase
    convolution: bool
    macs: float
    sops: float | None
    spikes: float  # inputs that are not 0: one message each, summed spikes too
    inputs: int  # elements, of all samples and time steps
    outputs: int
    weights: int
    fan_in: int  # inputs that reach one output
    columns: int  # output channels: outputs that share their inputs
    neurons: int  # outputs of one sample in one time step
    held: int  # inputs of one sample in one time step

    @property
    def spiking(self) -> bool:
        return self.sops is not None


def layer_works(graph: BlockGraph) -> tuple[LayerWork, ...]:
    """The forward and recomputed layers of a step, in the order in which the step reaches them."""
    calls: dict[tuple[str, Phase], list[Op]] = {}
    for name, op in zip(layer_of_op(graph), graph.ops, strict=True):
        op_type = graph.op_types[op.type]
        if name is not None and len(op_type.input_shapes) > 1 and op_type.output_shapes:
            calls.setdefault((name, op.phase), []).append(op)
    spikes = {s.module: s for s in graph.spikes.layers} if graph.spikes is not None else {}
    return tuple(_work(graph, name, phase, ops, spikes.get(name)) for (name, phase), ops in calls.items())


def _work(graph: BlockGraph, name: str, phase: Phase, ops: Sequence[Op], layer: LayerSpikes | None) -> LayerWork:
    types = [graph.op_types[op.type] for op in ops]
    first = operands(graph, ops[0])
    spiking = layer is not None and layer.spiking
    inputs = sum(math.prod(operands(graph, op).activation) for op in ops)
    outputs = sum(math.prod(t.output_shapes[0]) for t in types)
    macs = sum(t.macs for t in types)
    # where the step tells no T (a loop that repeats an image), a call on the whole batch is a time step
    rows = first.activation[0] if len(first.activation) > 1 else 1
    samples = graph.batch * graph.timesteps if graph.timesteps else max(graph.batch, len(ops) * min(graph.batch, rows))
    return LayerWork(
        module=name,
        phase=phase,
        convolution=types[0].kind == "conv",
        macs=float(macs),
        sops=layer.sops * graph.batch if layer is not None and spiking else None,
        spikes=layer.density * inputs if layer is not None and spiking else 0.0,
        inputs=inputs,
        outputs=outputs,
        weights=math.prod(first.weight),
        fan_in=round(macs / max(1, outputs)) or math.prod(first.weight) // max(1, first.channels),
        columns=first.channels,
        neurons=max(1, outputs // max(1, samples)),
        held=max(1, inputs // max(1, samples)),
    )
