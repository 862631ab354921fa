"""Spike activity on a graph: measured layers or an assumed rate become synaptic operations of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pararev_hw.errors import BadInput
from pararev_hw.graph.sites import layer_of_op
from pararev_hw.graph.spike_flow import SpikeFlow, spike_flow
from pararev_hw.types import BlockGraph, LayerSpikes, Spikes


def spiking_layers(graph: BlockGraph) -> Mapping[str, int]:
    """Layers whose convolution or matrix product reads spikes by data flow, with their forward MACs."""
    return _spiking_macs(graph, spike_flow(graph), layer_of_op(graph))


def _spiking_macs(graph: BlockGraph, flow: SpikeFlow, names: tuple[str | None, ...]) -> Mapping[str, int]:
    macs: dict[str, int] = {}
    spiking = {names[k] for k in flow.reads_spikes}
    for k, op in enumerate(graph.ops):
        name = names[k]
        if name is not None and name in spiking and op.phase == "forward":
            macs[name] = macs.get(name, 0) + graph.op_types[op.type].macs
    return macs


def may_spike(graph: BlockGraph) -> bool:
    """Whether something in the forward pass makes spikes: a comparison whose result is used as numbers."""
    return bool(spike_flow(graph).sources)


def assumed(graph: BlockGraph, rate: float) -> Spikes | None:
    """A stated firing rate for every layer that spikes reach; None where the network has no spiking neuron."""
    if not 0.0 <= rate <= 1.0:
        raise BadInput(f"a firing rate is {rate}: it must be between 0 and 1")
    flow, names = spike_flow(graph), layer_of_op(graph)
    layers = tuple(
        LayerSpikes(module, rate, rate * macs / graph.batch, macs / graph.batch, spiking=True)
        for module, macs in _spiking_macs(graph, flow, names).items()
    )
    if not layers:
        return None
    covered = {layer.module for layer in layers}
    source = f"assumed rate {rate:g} for every layer that reads spikes{_stopped(graph, flow, names, covered)}"
    return Spikes(measured=False, source=source, rate=rate, layers=layers)


def _stopped(graph: BlockGraph, flow: SpikeFlow, names: tuple[str | None, ...], covered: set[str]) -> str:
    """Which layers spikes do not reach, and what ends them: the first three."""
    ends: dict[str, str] = {}
    for matrix, end in flow.stopped:
        layer = names[matrix]
        if layer is not None and layer not in covered:
            name = graph.op_types[graph.ops[end].type].name.removeprefix("aten.").partition(".")[0]
            module = graph.ops[end].module or "the network"
            ends.setdefault(layer, f"{layer or 'the network'} (after {name} in {module})")
    if not ends:
        return ""
    more = f" and {len(ends) - 3} more" if len(ends) > 3 else ""
    return f"; spikes end before {', '.join(list(ends.values())[:3])}{more}"


def attach(graph: BlockGraph, spikes: Spikes | None) -> BlockGraph:
    """The graph with `spikes`, and with the synaptic operations of each task that does forward work.

    A layer that runs several times has its operations shared out evenly, whole numbers that add up to the layer's.
    Gradients are not spikes: backward tasks have none.
    """
    if spikes is None:
        return replace(graph, spikes=None, tasks=tuple(replace(t, sops=None) for t in graph.tasks))
    of_layer = {layer.module: layer.sops * graph.batch for layer in spikes.layers if layer.spiking}
    names = layer_of_op(graph)
    calls: dict[tuple[str, str], int] = {}
    for name, op in zip(names, graph.ops, strict=True):
        if name is not None:
            calls[name, op.phase] = calls.get((name, op.phase), 0) + 1
    done: dict[tuple[str, str], int] = {}

    def share(name: str, phase: str) -> int:
        """Of the layer's operations those of its next call."""
        number = done.get((name, phase), 0)
        done[name, phase] = number + 1
        total, parts = of_layer[name], calls[name, phase]
        return round(total * (number + 1) / parts) - round(total * number / parts)

    sops: list[int | None] = []
    for task in graph.tasks:
        layers = [n for k in task.ops if (n := names[k]) is not None and n in of_layer]
        counts = task.phase in ("forward", "recompute") and layers
        sops.append(sum(share(n, task.phase) for n in layers) if counts else None)
    tasks = tuple(replace(t, sops=s) for t, s in zip(graph.tasks, sops, strict=True))
    return replace(graph, spikes=spikes, tasks=tasks)
