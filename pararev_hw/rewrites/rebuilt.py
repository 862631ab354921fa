"""A traced step from a changed tape."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pararev_hw.tracing import Traced
from pararev_hw.tracing.build import Followed, build, program_of
from pararev_hw.tracing.tape import Tape
from pararev_hw.types import BlockGraph, InMemory, Task


def rebuilt(traced: Traced, tape: Tape, followed: Followed) -> Traced:
    """The step on `tape`, a changed form of that of `traced`, made by the code that made the first one."""
    built = build(tape, followed)
    graph = replace(
        traced.graph,
        granularity=tape.granularity,
        op_types=built.op_types,
        ops=built.ops,
        storages=built.storages,
        tasks=built.tasks,
        edges=built.edges,
        memory=built.memory,
        replayable=InMemory(make=partial(program_of, tape)),
    )
    return Traced(_with_synaptic_operations(graph), tape)


def _with_synaptic_operations(graph: BlockGraph) -> BlockGraph:
    """Synaptic operations of each task, in proportion to the MACs of each layer's ops: a convolution that was stacked
    with another on the same spikes does the work of both."""
    if graph.spikes is None:
        return graph
    per_mac = {s.module: s.sops / s.dense_macs for s in graph.spikes.layers if s.spiking and s.dense_macs > 0}

    def sops(task: Task) -> int | None:
        if task.phase not in ("forward", "recompute"):
            return None
        ops = [graph.ops[k] for k in task.ops]
        layers = [(op.module, graph.op_types[op.type]) for op in ops]
        layer_sops = [t.macs * per_mac[m] for m, t in layers if m in per_mac and t.kind in ("conv", "gemm")]
        return round(sum(layer_sops)) if layer_sops else None

    return replace(graph, tasks=tuple(replace(t, sops=sops(t)) for t in graph.tasks))
