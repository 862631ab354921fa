"""How active a spiking network is: events, messages and spikes of one sample, from what was measured or assumed."""

from __future__ import annotations

from dataclasses import dataclass

from pararev_hw.graph.spiking_network import SpikingNetwork
from pararev_hw.types import BlockGraph


@dataclass(frozen=True, slots=True)
class Activity:
    """Of one sample over all its time steps. `events` and `active` are by projection: synaptic events, and inputs that
    are not zero, each a message; `spikes` by population; `direct` events that reach a population without a weight."""

    events: tuple[float, ...]
    active: tuple[float, ...]
    spikes: tuple[float, ...]
    direct: tuple[float, ...]
    assumptions: tuple[str, ...]


def activity(graph: BlockGraph, network: SpikingNetwork) -> Activity:
    """The activity that the graph's spikes tell of; without them every input is an event in every time step."""
    layers = {s.module: s for s in graph.spikes.layers} if graph.spikes is not None else {}
    neurons = {s.module: s for s in graph.spikes.neurons} if graph.spikes is not None else {}
    events, active, dense, analog, several = [], [], [], [], []
    for p in network.projections:
        steps = network.steps if p.every_step else 1
        layer = layers.get(p.layer)
        events.append(float(p.outputs * p.fan_in * steps) if layer is None else layer.sops)
        active.append((1.0 if layer is None else layer.density) * p.inputs * steps)
        if layer is None:
            dense.append(p.layer)
        elif not layer.spiking:
            analog.append(p.layer)
        elif layer.largest > 1:
            several.append(p.layer)
    spikes = []
    for k, population in enumerate(network.populations):
        most = network.steps * population.neurons
        record = neurons.get(population.name)
        if not population.fires:
            spikes.append(0.0)
        elif record is not None:
            spikes.append(record.rate * most)
        elif graph.spikes is not None and not graph.spikes.measured:
            spikes.append(graph.spikes.rate * most)
        else:
            spikes.append(min(most, max((active[r] for r in network.readers(k)), default=most)))
    direct = tuple(sum(spikes[q] for q in p.direct if q >= 0) for p in network.populations)
    return Activity(tuple(events), tuple(active), tuple(spikes), direct, _assumptions(dense, analog, several, network))


def _assumptions(dense: list[str], analog: list[str], several: list[str], network: SpikingNetwork) -> tuple[str, ...]:
    lines = []
    if analog:
        lines.append(
            f"analog inputs ({_some(analog)}): each value that is not zero is one message and one event for every "
            "weight that it meets"
        )
    if several:
        lines.append(
            f"several spikes at once ({_some(several)}): one message tells how many, and each is an event; a chip of "
            "binary spikes sends a message for each"
        )
    if dense:
        lines.append(f"nothing is known of what {_some(dense)} reads: every input counts in every time step")
    constant = [p.layer for p in network.projections if not p.every_step]
    if constant:
        lines.append(f"{_some(constant)} runs once for a sample, and its result is a constant current after that")
    return tuple(lines)


def _some(names: list[str]) -> str:
    listed = ", ".join(name or "the network" for name in names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"
