"""Parts of populations on cores, and what each core does in one time step.

A core updates its neurons one after another and sends a message for each spike to every core that reads it; beside
that, it takes messages one after another and works off their synaptic events:

    sending    updates x t_update + spikes x t_spike + messages sent x t_message
    receiving  messages received x t_message_in + events x t_event
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.neuromorphic.activity import Activity
from pararev_hw.costmodels.neuromorphic.chip import Room, event_j, event_s
from pararev_hw.costmodels.neuromorphic.splitting import Split, Splitter, reach
from pararev_hw.errors import Infeasible
from pararev_hw.graph.spiking_network import INPUT, SpikingNetwork
from pararev_hw.types import Device

Floats = NDArray[np.float64]
PARTS = ("synapse", "soma", "network", "learning")


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of populations and what each does in one time step (means over time steps and samples).

    `traffic[a, b]` are messages from part a to part b; the last row is what comes from outside the chip.
    """

    population: NDArray[np.int64]
    need: tuple[Room, ...]
    traffic: Floats
    updates: Floats
    spikes: Floats
    events: Floats
    received: Floats
    receive_s: Floats
    send_s: Floats
    energy_j: Mapping[str, Floats]  # per time step, hops left out

    @property
    def count(self) -> int:
        return len(self.need)


def parts_of(network: SpikingNetwork, splits: Sequence[Split], splitter: Splitter, active: Activity,
             device: Device) -> Parts:  # fmt: skip
    """The parts of a split network."""
    first = np.concatenate(([0], np.cumsum([s.parts for s in splits]))).astype(np.int64)
    count, steps = int(first[-1]), network.steps
    traffic = np.zeros((count + 1, count))
    events, event_time, event_energy = np.zeros(count), np.zeros(count), np.zeros(count)
    updates, spikes = np.zeros(count), np.zeros(count)
    shares = [splitter.shares(k, split) for k, split in enumerate(splits)]
    for k, (population, split) in enumerate(zip(network.populations, splits, strict=True)):
        span, share = slice(int(first[k]), int(first[k + 1])), shares[k]
        updates[span] = population.neurons * share
        spikes[span] = active.spikes[k] / steps * share
        for j in splitter.owned[k]:
            p = network.projections[j]
            each = active.events[j] / steps * share
            events[span] += each
            event_time[span] += each * event_s(device, p.convolution)
            event_energy[span] += each * event_j(device, p.convolution)
            messages = active.active[j] / steps * reach(p, split.groups, split.tiles)
            for q, part in _shares(network, active, p.sources, p.inputs).items():
                if q == INPUT:
                    traffic[count, span] += messages * part
                else:
                    traffic[int(first[q]) : int(first[q + 1]), span] += np.outer(shares[q], messages * part)
        for q in (q for q in population.direct if q != INPUT):
            each = active.spikes[q] / steps * share
            traffic[int(first[q]) : int(first[q + 1]), span] += np.outer(shares[q], each)
            events[span] += each
            event_time[span] += each * event_s(device, False)
            event_energy[span] += each * event_j(device, False)
    received = traffic.sum(axis=0)
    sent = traffic.sum(axis=1)[:count]
    learns = device.get("learning_rule", 0.0) > 0
    changed = events if learns else np.zeros(count)
    network_j = received * device.value("message_energy_j")  # paid by the sender, counted where it arrives
    return Parts(
        population=np.repeat(np.arange(len(splits)), [s.parts for s in splits]),
        need=tuple(s.need for s in splits for _ in range(s.parts)),
        traffic=traffic,
        updates=updates,
        spikes=spikes,
        events=events,
        received=received,
        receive_s=received * device.get("message_in_s", 0.0)
        + event_time
        + changed * device.get("synaptic_update_s", 0.0),
        send_s=updates * device.value("neuron_update_s")
        + spikes * device.value("spike_s")
        + sent * device.get("message_s", 0.0),
        energy_j={
            "synapse": event_energy,
            "soma": updates * device.value("neuron_update_energy_j") + spikes * device.value("spike_energy_j"),
            "network": network_j,
            **({"learning": changed * device.value("synaptic_update_energy_j")} if learns else {}),
        },
    )


def _shares(network: SpikingNetwork, active: Activity, sources: Sequence[int], inputs: int) -> dict[int, float]:
    """Which part of a projection's messages comes from which of its sources: in proportion to their spikes."""
    weights = {q: active.spikes[q] or float(network.populations[q].neurons) for q in sources if q != INPUT}
    if not weights or INPUT in sources:
        inside = sum(network.populations[q].neurons for q in weights)
        weights[INPUT] = float(max(1, inputs - inside)) if weights else 1.0
    total = sum(weights.values())
    return {q: w / total for q, w in weights.items()}


def packed(parts: Parts, cores: int, limit: Room, chip_name: str, available: int) -> NDArray[np.int64]:
    """The core of each part: one each where there are enough, else shared, first fit in the order of the network.

    Raises Infeasible where they do not fit.
    """
    if parts.count <= cores:
        return np.arange(parts.count)
    filled: list[Room] = []
    place = np.zeros(parts.count, np.int64)
    open_from = 0
    for k, need in enumerate(parts.need):
        for c in range(open_from, len(filled)):
            if (filled[c] + need).lacking(limit) is None:
                filled[c] += need
                place[k] = c
                break
        else:
            filled.append(need)
            place[k] = len(filled) - 1
            open_from = max(0, len(filled) - 64)  # older cores are nearly full
    if len(filled) > cores:
        raise Infeasible(_too_many(parts, len(filled), cores, limit, chip_name, available))
    return place


def _too_many(parts: Parts, need: int, cores: int, limit: Room, chip_name: str, available: int) -> str:
    neurons = sum(n.neurons for n in parts.need)
    weights = sum(n.synapse_bytes for n in parts.need)
    has = f"each with room for {limit.neurons:,.0f} neurons and {limit.synapse_bytes / 1024:,.0f} KiB of weights"
    more = f"; --chips {math.ceil(need / available)} would do" if cores == available else "; raise --lanes"
    return (
        f"the network does not fit {chip_name}: it needs {need:,} cores ({neurons:,.0f} neurons, "
        f"{weights / 2**20:,.1f} MiB of weights), and there are {cores:,}, {has}{more}"
    )
