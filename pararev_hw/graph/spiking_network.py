"""The spiking network inside a step: populations of neurons, and the weighted layers that join them.

Read from where data flows, not from names: a layer (a convolution or a product with weights) puts current into what its
results flow to; a comparison with a threshold (or a potential that is rounded to a number of spikes) makes a population
of the layers whose currents reach it; its spikes flow on to the layers that read them. What a layer gives without a
threshold behind it is a population that does not fire. A loop over time steps and its folded form ([T x B, ...] in one
call) are one network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pararev_hw.graph.operands import operands
from pararev_hw.graph.sites import MATRIX_KINDS, layer_of_op
from pararev_hw.graph.spike_flow import makes_spikes, spike_flow
from pararev_hw.types import BlockGraph, Op, OpType
from pararev_hw.types.op_names import base_name

INPUT = -1  # the source of what comes from outside the network


@dataclass(frozen=True, slots=True)
class Projection:
    """One layer of weights. Sizes are of one sample in one time step, `events` and `active` of one sample in all."""

    layer: str
    convolution: bool
    weights: int
    inputs: int
    outputs: int
    fan_in: int  # inputs that reach one output
    channels: int  # output channels; the outputs of a plain linear layer
    groups: int
    in_places: tuple[int, ...]
    out_places: tuple[int, ...]
    kernel: tuple[int, ...]  # its extent, dilation included
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    sources: tuple[int, ...]  # indices of populations, INPUT among them
    every_step: bool  # False: it is run once, and its result is a constant current
    product: bool  # of two activations: there is no weight to keep


@dataclass(frozen=True, slots=True)
class Population:
    """Neurons that one comparison makes spikes of, or (`fires` False) that only collect current."""

    name: str
    module: str
    neurons: int
    projections: tuple[int, ...]
    direct: tuple[int, ...]  # populations whose spikes are added to its current without a weight
    fires: bool


@dataclass(frozen=True, slots=True)
class SpikingNetwork:
    """`population_of_op` names the population of each comparison of the forward pass."""

    steps: int
    projections: tuple[Projection, ...]
    populations: tuple[Population, ...]
    population_of_op: Mapping[int, str]

    def readers(self, population: int) -> tuple[int, ...]:
        """The projections that read its spikes."""
        return tuple(k for k, p in enumerate(self.projections) if population in p.sources)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a storage holds: currents of layers, and spikes of populations (by their key, None: from outside)."""

    layers: frozenset[str] = frozenset()
    spikes: frozenset[_Key | None] = frozenset()

    def __or__(self, other: _Contents) -> _Contents:
        return _Contents(self.layers | other.layers, self.spikes | other.spikes)


_Key = tuple[str, frozenset[str]]  # the module that compares, and the layers whose current it compares
_NOTHING = _Contents()


@dataclass(slots=True)
class _Calls:
    ops: list[int] = field(default_factory=list)
    contents: _Contents = _NOTHING
    product: bool = False


class _Reader:
    """Walks the forward pass and follows what flows."""

    def __init__(self, graph: BlockGraph) -> None:
        self.graph = graph
        self.names = layer_of_op(graph)
        self.flow = spike_flow(graph)
        self.state: dict[int, _Contents] = {}
        self.layers: dict[str, _Calls] = {}
        self.thresholds: dict[_Key, _Calls] = {}
        for number, storage in enumerate(graph.storages):
            if storage.role == "input":
                self.state[number] = _Contents(spikes=frozenset({None}))

    def run(self) -> None:
        for k, op in enumerate(self.graph.ops):
            if op.phase == "forward":
                self._op(k, op)

    def _op(self, k: int, op: Op) -> None:
        op_type, name = self.graph.op_types[op.type], self.names[k]
        flowing = [c for s in op.reads if (c := self.state.get(s, _NOTHING)) != _NOTHING]
        joined = _joined(flowing)
        if name is not None and op_type.kind in MATRIX_KINDS:
            calls = self.layers.setdefault(name, _Calls())
            calls.ops.append(k)
            calls.contents |= joined
            calls.product |= len(flowing) > 1 and not operands(self.graph, op).weight_is_parameter
            result = _Contents(layers=frozenset({name}))
        elif self._fires(k, op) and op.module in self.flow.sources and joined.layers:
            key = op.module, joined.layers
            calls = self.thresholds.setdefault(key, _Calls())
            calls.ops.append(k)
            calls.contents |= joined
            result = _Contents(spikes=frozenset({key}))
        else:
            result = joined
        for s in op.writes:
            whole = op_type.write_bytes >= self.graph.storages[s].bytes or s not in self.state
            self.state[s] = result if whole else self.state[s] | result

    def _fires(self, k: int, op: Op) -> bool:
        return k in self.flow.counts or _compares(self.graph.op_types[op.type])


def _joined(contents: Iterable[_Contents]) -> _Contents:
    total = _NOTHING
    for c in contents:
        total |= c
    return total


def _compares(op_type: OpType) -> bool:
    return makes_spikes(op_type.name) or base_name(op_type.name) == "spiking_neuron"


def spiking_network(graph: BlockGraph) -> SpikingNetwork:
    """Populations and projections of the graph's forward pass."""
    reader = _Reader(graph)
    reader.run()
    steps = graph.timesteps or max((len(c.ops) for c in reader.thresholds.values()), default=1)
    aliases = _first_steps(reader.thresholds, steps)
    for alias, key in aliases.items():
        first, rest = reader.thresholds.pop(alias), reader.thresholds[key]
        reader.thresholds[key] = _Calls(first.ops + rest.ops, first.contents | rest.contents)
    layers = list(reader.layers)
    fed: dict[str, list[_Key]] = {name: [] for name in layers}
    for threshold in reader.thresholds:
        for name in threshold[1]:
            fed[name].append(threshold)
    keys: list[_Key | str] = [*reader.thresholds, *(name for name in layers if not fed[name])]
    keys.sort(key=lambda k: min(layers.index(n) for n in (k[1] if isinstance(k, tuple) else (k,))))
    index: dict[_Key | str | None, int] = {key: k for k, key in enumerate(keys)} | {None: INPUT}
    index |= {alias: index[key] for alias, key in aliases.items()}

    def sources(contents: _Contents) -> tuple[int, ...]:
        behind = {index[s] for s in contents.spikes}
        # an analog current that a layer reads: of the population that holds it, or of the layer itself
        for name in contents.layers:
            behind |= {index[t] for t in fed[name]} or {index[name]}
        return tuple(sorted(behind))

    projections = tuple(
        _projection(graph, name, calls, steps, sources(calls.contents)) for name, calls in reader.layers.items()
    )
    names = _names([place[0] if isinstance(place, tuple) else place for place in keys])
    populations = []
    for k, place in enumerate(keys):
        if isinstance(place, str):
            places: tuple[int, ...] = (layers.index(place),)
            populations.append(Population(names[k], place, projections[places[0]].outputs, places, (), fires=False))
            continue
        key = place
        calls = reader.thresholds[key]
        places = tuple(sorted(layers.index(name) for name in key[1]))
        direct = tuple(sorted({index[s] for s in calls.contents.spikes} - {k}))
        populations.append(Population(names[k], key[0], _neurons(graph, calls, steps), places, direct, fires=True))
    of_op = {op: names[index[threshold]] for threshold, calls in reader.thresholds.items() for op in calls.ops}
    return SpikingNetwork(steps, projections, tuple(populations), of_op)


def _first_steps(thresholds: Mapping[_Key, _Calls], steps: int) -> Mapping[_Key, _Key]:
    """Comparisons that are one population with others of their module: in the first time steps of a recurrent one,
    currents that come back from it are not there yet."""
    aliases: dict[_Key, _Key] = {}
    for key, calls in thresholds.items():
        later = [other for other in thresholds if other[0] == key[0] and other[1] > key[1]]
        if steps > 2 and len(later) == 1 and len(calls.ops) < steps:
            rest = thresholds[later[0]]
            if len(calls.ops) + len(rest.ops) >= steps and min(calls.ops) < min(rest.ops):
                aliases[key] = later[0]
    return aliases


def _names(modules: list[str]) -> list[str]:
    """The module of each, with a number where it occurs again."""
    uses: dict[str, int] = {}
    names = []
    for module in modules:
        uses[module] = uses.get(module, 0) + 1
        names.append(module if uses[module] == 1 else f"{module}:{uses[module]}")
    return names


def _neurons(graph: BlockGraph, calls: _Calls, steps: int) -> int:
    """Of one sample: a comparison that is called in each step (or all but the first ones, whose state is empty) sees
    one step, another sees all of them at once."""
    shape = graph.op_types[graph.ops[calls.ops[0]].type].output_shapes[0]
    at_once = 1 if 2 * len(calls.ops) >= steps else steps
    return max(1, math.prod(shape) // max(1, graph.batch * at_once))


def _projection(graph: BlockGraph, name: str, calls: _Calls, steps: int, sources: tuple[int, ...]) -> Projection:
    types = [graph.op_types[graph.ops[k].type] for k in calls.ops]
    first = types[0]
    convolution = first.kind == "conv"
    of_first = operands(graph, graph.ops[calls.ops[0]])
    activation, weight = of_first.activation, of_first.weight
    inputs = sum(math.prod(operands(graph, graph.ops[k]).activation) for k in calls.ops)
    outputs = sum(math.prod(t.output_shapes[0]) for t in types)
    every_step = steps == 1 or len(calls.ops) >= steps or of_first.rows % (graph.batch * steps) == 0
    runs = graph.batch * (steps if every_step else 1)
    attributes = dict(first.attributes)
    flat = not convolution
    dilation = attributes.get("dilation", (1,) * (len(weight) - 2))
    channels = of_first.channels
    places = max(1, outputs // runs // channels)  # of a product: tokens that share its weights
    return Projection(
        layer=name,
        convolution=convolution,
        weights=math.prod(weight),
        inputs=max(1, inputs // runs),
        outputs=max(1, outputs // runs),
        fan_in=max(1, round(sum(t.macs for t in types) / max(1, outputs))),
        channels=channels,
        groups=1 if flat else attributes.get("groups", (1,))[0],
        in_places=(places,) if flat else activation[2:],
        out_places=(places,) if flat else first.output_shapes[0][2:],
        kernel=(1,) if flat else tuple((k - 1) * d + 1 for k, d in zip(weight[2:], dilation, strict=True)),
        stride=(1,) if flat or attributes.get("transposed", (0,))[0] else attributes.get("stride", (1,)),
        padding=(0,) if flat or attributes.get("transposed", (0,))[0] else attributes.get("padding", (0,)),
        sources=sources,
        every_step=every_step,
        product=calls.product,
    )
