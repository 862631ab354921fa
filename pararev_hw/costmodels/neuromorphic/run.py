"""The run of a network on a chip, time step by time step.

In a time step every core updates its neurons and takes the messages that arrive; layers work side by side, each on
what the layer before it sent, so that a layer is one step behind. When the last message has been worked off is seen
message by message (`contention`). The step ends at a barrier of all tiles that take part.

    step    = max(last message, busiest link x t_hop, the chip's tick) + barrier(tiles)
    latency = samples x time steps x step

Costs are means over the time steps and samples that were counted. Events of one time step as in SANA-FE (J. Boyle,
M. Plagge, S. Cardwell, F. Chance, A. Gerstlauer, IEEE TCAD 2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.neuromorphic import chip
from pararev_hw.costmodels.neuromorphic.activity import Activity, activity
from pararev_hw.costmodels.neuromorphic.contention import Mesh, last_message_s
from pararev_hw.costmodels.neuromorphic.cores import Parts, packed, parts_of
from pararev_hw.costmodels.neuromorphic.placement import ENTRANCE, link_load, placed
from pararev_hw.costmodels.neuromorphic.splitting import Split, Splitter
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.graph.spiking_network import SpikingNetwork, spiking_network
from pararev_hw.sizes import counted
from pararev_hw.types import BlockGraph, ChipRun, Device, MappedCore, MappedLayer
from pararev_hw.types.op_names import EMBEDDING_BAGS, base_name

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """A network's run on a chip; per core of one time step: `busy_s`, and `energy_j` by part."""

    summary: ChipRun
    busy_s: Floats
    energy_j: dict[str, Floats]
    populations: tuple[tuple[str, ...], ...]
    assumptions: tuple[str, ...]

    @property
    def steps(self) -> int:
        return self.summary.timesteps * self.summary.batch


def run(graph: BlockGraph, device: Device, lanes: int | None = None) -> Run:
    """The network of a traced step on a chip, on at most `lanes` cores (None: as few as its layers need, each with
    cores of its own where there are enough). More cores than needed split the slowest layers further.

    Raises Infeasible where the network does not fit, BadInput for what the chip cannot run.
    """
    _check(graph, device, lanes)
    network = spiking_network(graph)
    if not network.populations:
        raise BadInput(f"{graph.model} has no convolution or linear layer: there is nothing to map to {device.name}")
    products = [p.layer for p in network.projections if p.product]
    if products:
        raise BadInput(
            f"{graph.model}: {products[0]} multiplies two activations, and {device.name} has weights that stay in its "
            "cores: a network without products of activations runs there"
        )
    active = activity(graph, network)
    splitter = Splitter(network, chip.core_room(device), chip.weight_bytes(device), device.name)
    cores = device.lanes if lanes is None else lanes
    splits, parts = _spread(network, splitter, active, device, lanes)
    place = packed(parts, cores, chip.core_room(device), device.name, device.lanes // int(device.get("chips", 1)))
    return _run(graph, device, network, active, splits, parts, place)


def _check(graph: BlockGraph, device: Device, lanes: int | None) -> None:
    bag = next((op.module for op in graph.ops if base_name(graph.op_types[op.type].name) in EMBEDDING_BAGS), None)
    if bag is not None:
        raise BadInput(
            f"{graph.model}: {bag or 'the network'} is an embedding bag, which reads indices, and {device.name} takes "
            "spikes: write it as a linear layer on 0 and 1"
        )
    if lanes is not None and not 1 <= lanes <= device.lanes:
        raise BadInput(f"device {device.name!r} has {counted(device.lanes, 'lane')}, not {lanes}: --chips N gives more")
    if graph.mode == "train" and device.get("learning_rule", 0.0) == 0.0:
        rule = (
            ", or name what changes its weights there: --learning-rule stdp"
            if "synaptic_update_energy_j" in device.parameters
            else ""
        )
        raise BadInput(f"{device.name} has no gradients and runs no training step: give --mode infer{rule}")


def _spread(
    network: SpikingNetwork, splitter: Splitter, active: Activity, device: Device, lanes: int | None
) -> tuple[tuple[Split, ...], Parts]:
    """The fewest parts, or as many as there are lanes: the population whose parts take longest is split first."""
    splits = splitter.split()
    parts = parts_of(network, splits, splitter, active, device)
    least: dict[int, int] = {}
    while lanes is not None and parts.count < lanes:
        slowest = int(parts.population[int(np.argmax(np.maximum(parts.receive_s, parts.send_s)))])
        more = splits[slowest].parts + 1
        if more > splitter.most_parts(slowest):
            break
        try:
            finer = splitter.split({**least, slowest: more})
        except Infeasible:  # the senders have too few axons for more cores
            break
        if sum(s.parts for s in finer) > lanes:
            break
        least[slowest] = more
        splits, parts = finer, parts_of(network, finer, splitter, active, device)
    return splits, parts


def _run(
    graph: BlockGraph,
    device: Device,
    network: SpikingNetwork,
    active: Activity,
    splits: tuple[Split, ...],
    parts: Parts,
    place: NDArray[np.int64],
) -> Run:
    count = int(place.max()) + 1
    member = np.zeros((count, parts.count))  # [core, part]
    member[place, np.arange(parts.count)] = 1.0
    rows = np.vstack([member @ parts.traffic[:-1], parts.traffic[-1:]])
    traffic = rows @ member.T
    tiles = [chip.tile_at(device, slot) for slot in range(count)]
    slots = placed(traffic, tiles)
    places = [tiles[s] for s in slots]
    if "mesh_rows" in device.parameters or "hops_per_message" not in device.parameters:
        across, along, loads = link_load(traffic, places)
    else:
        across, along, loads = device.value("hops_per_message") * float(traffic.sum()), 0.0, np.zeros(1)

    send_s, receive_s = member @ parts.send_s, member @ parts.receive_s
    latest_s, bound_by = _latest(traffic, send_s, receive_s, places, device)
    link_s = float(loads.max()) * device.get("hop_s", 0.0)
    if link_s > latest_s:
        latest_s, bound_by = link_s, "the busiest link"
    if device.get("time_step_s", 0.0) > latest_s:
        latest_s, bound_by = device.value("time_step_s"), "the chip's tick"
    used = len(set(places))
    barrier = chip.barrier_s(device, used)
    if barrier > latest_s:
        bound_by = "the barrier"
    hop_j = across * device.value("hop_energy_j") + along * device.get(
        "hop_energy_j.vertical", device.value("hop_energy_j")
    )
    messages = float(parts.received.sum())
    energy = {part: np.asarray(values) for part, values in parts.energy_j.items()}
    if messages > 0:
        energy["network"] = energy["network"] + parts.received * (hop_j / messages)
    by_core = {part: member @ values for part, values in energy.items()}
    populations = tuple(
        tuple(dict.fromkeys(_name(network, int(k)) for k in parts.population[place == c])) for c in range(count)
    )
    summary = ChipRun(
        device=device.name,
        chips=int(device.get("chips", 1)),
        cores_available=device.lanes,
        cores_used=count,
        tiles_used=used,
        timesteps=network.steps,
        batch=graph.batch,
        time_step_s=latest_s + barrier,
        barrier_s=barrier,
        bound_by=bound_by,
        fill_s=(_depth(network) - 1) * (latest_s + barrier),
        packets=messages * network.steps,
        hops=(across + along) * network.steps,
        busiest_link=float(loads.max()),
        limits=_finite(chip.core_room(device)),
        layers=_layers(network, splits, parts, place, energy),
        cores=_cores(parts, place, places, populations, np.maximum(send_s, receive_s), device),
    )
    return Run(
        summary,
        np.maximum(send_s, receive_s),
        by_core,
        populations,
        (*_learning(device), *active.assumptions, *_assumptions(summary)),
    )


def _latest(
    traffic: Floats,
    send_s: Floats,
    receive_s: Floats,
    places: list[tuple[int, int]],
    device: Device,
) -> tuple[float, str]:
    """When the last core has done its work, and what it is."""
    hop_s = device.get("hop_s", 0.0)
    mesh = Mesh(
        (*places, ENTRANCE),
        (hop_s, device.get("hop_s.vertical", hop_s)),
        device.get("link_buffer_messages", math.inf),
    )
    latest = last_message_s(traffic, send_s, receive_s, device.get("message_s", 0.0), mesh)
    busiest = float(max(send_s.max(), receive_s.max()))
    if latest > 1.1 * busiest:
        return latest, "messages that wait for one another"
    if float(send_s.max()) > float(receive_s.max()):
        return latest, "updating neurons and sending their spikes"
    return latest, "taking messages and their synaptic events"


def _depth(network: SpikingNetwork) -> int:
    """Populations on the longest way from the input, loops left out."""
    depth: list[int] = []
    for k, population in enumerate(network.populations):
        before = {q for j in population.projections for q in network.projections[j].sources} | {*population.direct}
        depth.append(1 + max((depth[q] for q in before if 0 <= q < k), default=0))
    return max(depth)


def _name(network: SpikingNetwork, k: int) -> str:
    """What a population is called: its own module, or where that is the whole network, the layer before it."""
    population = network.populations[k]
    if not population.name or population.name.startswith(":"):
        return network.projections[population.projections[-1]].layer if population.projections else "neurons"
    return population.name


def _layers(
    network: SpikingNetwork,
    splits: tuple[Split, ...],
    parts: Parts,
    place: NDArray[np.int64],
    energy: dict[str, Floats],
) -> tuple[MappedLayer, ...]:
    rows = []
    for k, (population, split) in enumerate(zip(network.populations, splits, strict=True)):
        of_population = parts.population == k
        rows.append(
            MappedLayer(
                name=_name(network, k),
                layers=tuple(network.projections[j].layer for j in population.projections),
                neurons=population.neurons,
                channel_groups=split.groups,
                tiles=split.tiles,
                cores=tuple(sorted(set(place[of_population].tolist()))),
                spikes=float(parts.spikes[of_population].sum()) * network.steps,
                messages=float(parts.received[of_population].sum()) * network.steps,
                events=float(parts.events[of_population].sum()) * network.steps,
                energy_j={part: float(values[of_population].sum()) * network.steps for part, values in energy.items()},
            )
        )
    return tuple(rows)


def _cores(
    parts: Parts,
    place: NDArray[np.int64],
    places: list[tuple[int, int]],
    populations: tuple[tuple[str, ...], ...],
    busy_s: Floats,
    device: Device,
) -> tuple[MappedCore, ...]:
    limit, rows = chip.core_room(device), []
    for c, (column, row) in enumerate(places):
        room = chip.Room()
        for k in np.flatnonzero(place == c):
            room += parts.need[int(k)]
        sizes = {name: float(getattr(room, name)) for name in chip.Room.__dataclass_fields__}
        use = {n: None if (most := getattr(limit, n)) == np.inf else size / most for n, size in sizes.items()}
        whole = {name: round(size) for name, size in sizes.items()}
        rows.append(MappedCore(c, column, row, populations[c], use=use, busy_s=float(busy_s[c]), **whole))
    return tuple(rows)


def _finite(room: chip.Room) -> dict[str, float | None]:
    return {n: None if (v := float(getattr(room, n))) == np.inf else v for n in chip.Room.__dataclass_fields__}


def _learning(device: Device) -> tuple[str, ...]:
    if device.get("learning_rule", 0.0) == 0.0:
        return ()
    return (
        "learning by pairwise STDP, not the network's own gradients: each synaptic event changes its weight once "
        f"({device.value('synaptic_update_energy_j') * 1e12:g} pJ and {device.get('synaptic_update_s', 0.0) * 1e9:g} "
        "ns); backward, recomputation and optimizer of the traced step do not run",
    )


def _assumptions(summary: ChipRun) -> tuple[str, ...]:
    return (
        "every time step has the mean activity of all; every neuron is updated in every time step",
        "samples follow one another without a pause: the first one's answer comes "
        f"{summary.fill_s * 1e6:.3g} us later, after a step for each layer",
        "pooling and normalisation are folded into weights and thresholds",
    )
