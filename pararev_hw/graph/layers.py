"""A row for each module that does work: what torchinfo, FLOP counters and profilers tell, from one traced step."""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.types import BlockGraph, Layer, LayerSpikes, Op, OpType


def layers(
    graph: BlockGraph, op_seconds: Sequence[float] | None = None, op_joules: Sequence[float] | None = None
) -> tuple[Layer, ...]:
    """The modules in the order in which the step first runs them. MACs, times and energies are of the whole step: of
    forward, recomputation and backward; `forward_macs` those of the forward pass alone, `macs` as torch counts them.

    `op_seconds` and `op_joules` are of each op alone on one lane; without them times and energies are not known. What
    runs in no module (the optimizer's update among it) is a row without a name, so that the rows add up to the step.
    """
    ops_of: dict[str, list[int]] = {}
    for k, op in enumerate(graph.ops):
        ops_of.setdefault(op.module, []).append(k)
    types = {m.path: m for m in graph.modules}
    spikes = _spikes_of(graph)
    saved = _saved_bytes(graph)
    rows = []
    for module, ops in ops_of.items():
        forward = [graph.ops[k] for k in ops if graph.ops[k].phase == "forward"]
        info = types.get(module)
        rate, sops = _activity(graph, spikes.get(module, ()), ops)
        rows.append(
            Layer(
                module=module,
                type="" if info is None else info.type,
                input_shape=(info and info.input_shape) or _first(graph, forward, inputs=True),
                output_shape=(info and info.output_shape) or _first(graph, forward, inputs=False),
                parameters=0 if info is None else info.parameters,
                macs=sum(_type(graph, graph.ops[k]).macs for k in ops),
                true_macs=sum(_type(graph, graph.ops[k]).true_macs for k in ops),
                forward_macs=sum(_type(graph, op).macs for op in forward),
                sops=sops,
                rate=rate,
                saved_bytes=saved.get(module, 0),
                time_s=None if op_seconds is None else float(sum(op_seconds[k] for k in ops)),
                energy_j=None if op_joules is None else float(sum(op_joules[k] for k in ops)),
                energy_by_phase_j=None if op_joules is None else _by_phase(graph, ops, op_joules),
            )
        )
    return tuple(rows)


def _by_phase(graph: BlockGraph, ops: Sequence[int], op_joules: Sequence[float]) -> dict[str, float]:
    joules: dict[str, float] = {}
    for k in ops:
        joules[graph.ops[k].phase] = joules.get(graph.ops[k].phase, 0.0) + float(op_joules[k])
    return joules


def _type(graph: BlockGraph, op: Op) -> OpType:
    return graph.op_types[op.type]


def _first(graph: BlockGraph, forward: Sequence[Op], *, inputs: bool) -> tuple[int, ...] | None:
    """The input of the first op that moves data, or the first output of the last one."""
    moving = [t for op in forward if (t := _type(graph, op)).kind != "view" and t.output_shapes]
    if not moving:
        return None
    if not inputs:
        return moving[-1].output_shapes[0]
    # what counts batches in a BatchNorm comes first and says nothing of the layer's input
    first = next((t for t in moving if t.input_shapes and t.input_shapes[0]), moving[0])
    shapes = first.input_shapes
    at = 1 if "addmm" in first.name and len(shapes) > 1 else 0  # whose first operand is the bias
    return shapes[at] if shapes else None


def _saved_bytes(graph: BlockGraph) -> dict[str, int]:
    """Bytes that a module's forward pass makes and that gradients or recomputations read again."""
    total: dict[str, int] = {}
    for storage in graph.storages:
        if storage.role == "saved" and 0 <= storage.born < len(graph.ops):
            module = graph.ops[storage.born].module
            total[module] = total.get(module, 0) + storage.bytes
    return total


def _spikes_of(graph: BlockGraph) -> dict[str, list[LayerSpikes]]:
    """Activity by module: one with several products has an entry for each."""
    by_module: dict[str, list[LayerSpikes]] = {}
    for layer in graph.spikes.layers if graph.spikes is not None else ():
        by_module.setdefault(layer.module.partition(":")[0], []).append(layer)
    return by_module


def _activity(graph: BlockGraph, entries: Sequence[LayerSpikes], ops: Sequence[int]) -> tuple[float | None, int | None]:
    """The density of the inputs, and the synaptic operations of all passes that read spikes."""
    if not entries:
        return None, None
    work = sum(e.dense_macs for e in entries)
    rate = sum(e.density * e.dense_macs for e in entries) / work if work else entries[0].density
    phases = {graph.ops[k].phase for k in ops if _type(graph, graph.ops[k]).flops} & {"forward", "recompute"}
    spiking = [e for e in entries if e.spiking]
    sops = round(sum(e.sops for e in spiking) * graph.batch) * max(1, len(phases)) if spiking else None
    return rate, sops
