"""Run a network on real inputs and count: what each layer reads, and its exact synaptic operations.

Whether a tensor holds spikes is read from its values, per operation, whatever the class of the neuron: 0 and one
constant, of either sign (a ternary spike is added or subtracted, which is one accumulate), or small integers, which are
spikes that were summed (a value of 2 counts twice). Small multiples of another constant, or of either sign, are spikes
where data flow says that neurons sent them: an average of spikes has such values too. A layer reads spikes where all
its calls do.

A synaptic operation is one spike reaching one output. An input element of a convolution reaches as many outputs as the
kernel, stride, padding, dilation and groups allow at its place: fewer at the border. The fan-out of every place is the
input gradient of a one-channel convolution of ones, so it needs no formula of its own. Where both operands of a product
hold spikes (attention on spikes), the pairs that meet are counted. The indices of an embedding bag are the addresses of
spikes: each adds one row of the table.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pararev_hw.errors import BadInput
from pararev_hw.graph.fired_spikes import fired_comparisons
from pararev_hw.graph.sites import layer_names, layer_of_op
from pararev_hw.graph.spike_flow import makes_spikes, rounds, spike_flow
from pararev_hw.graph.spikes import spiking_layers
from pararev_hw.graph.spiking_network import spiking_network
from pararev_hw.torch_private import DispatchMode, compiler_loaded_when_used, flop_formulas, storage_key
from pararev_hw.tracing import formulas
from pararev_hw.tracing.fused_paths import spelt_out
from pararev_hw.tracing.model_state import in_mode, random_states, state_preserved
from pararev_hw.tracing.spike_levels import (
    LARGEST_SUM,
    TOLERANCE,
    active_places,
    are_spikes,
    common_unit,
    levels_of,
    true_places,
)
from pararev_hw.types import BlockGraph, LayerSpikes, NeuronSpikes, Spikes
from pararev_hw.types.op_names import EMBEDDING_BAGS, base_name, factors

_LARGEST_ROW = 2  # the mode of an embedding bag that adds nothing


def measure_spikes(
    model: nn.Module,
    inputs: Any,
    *,
    source: str,
    mode: Literal["train", "infer"] = "train",
    samples: int | None = None,
    graph: BlockGraph | None = None,
) -> Spikes | None:
    """Activity of every convolution and matrix product in one real forward pass; None where none reads spikes.

    `inputs`: a tensor, or what the network's forward takes, in a tuple or (by keyword) a mapping. `mode` "train" runs
    the normalisations on batch statistics, as a training step does; the whole state of the network is put back.
    `samples` is the number of samples in `inputs` (default: their first dimension). Layers are named as in `graph`,
    the network's traced step.
    """
    args, keywords = _arguments(inputs)
    count = _samples(args, keywords) if samples is None else samples
    if count < 1:
        raise BadInput(f"spikes are measured on {count} samples: at least one is needed")
    floats = [t for t in (*args, *keywords.values()) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    counter = _Counter(model, graph, bool(floats) and not any(bool(t.any()) for t in floats))
    enter = register_module_forward_pre_hook(counter.enter)
    leave = register_module_forward_hook(counter.leave, always_call=True)  # an exception leaves modules too
    try:
        with contextlib.ExitStack() as quiet:
            quiet.enter_context(torch.random.fork_rng(devices=[]))
            quiet.enter_context(state_preserved(model, values=True))
            quiet.enter_context(in_mode(model, mode == "train"))
            quiet.enter_context(torch.no_grad())
            quiet.enter_context(spelt_out(model))
            quiet.enter_context(compiler_loaded_when_used())
            quiet.enter_context(counter)
            before = random_states()
            model(*args, **keywords)
            counter.draws |= random_states() != before
    finally:
        enter.remove()
        leave.remove()
    return counter.spikes(source, count, graph)


def holds_spikes(inputs: Sequence[torch.Tensor]) -> bool:
    """Whether an input holds spikes: floating-point events beside silence."""
    tensors = [x for x in inputs if isinstance(x, torch.Tensor) and x.is_floating_point() and x.numel()]
    floats = [x[tuple(slice(1 if step == 0 else None) for step in x.stride())] for x in tensors]  # expanded: once
    return any(bool((x == 0).any()) and are_spikes(levels_of(x, "the network")) for x in floats)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), inputs
    return tuple(inputs), {}


def _samples(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> int:
    tensors = [t for t in (*args, *keywords.values()) if isinstance(t, torch.Tensor)]
    return int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 1


@dataclass(slots=True)
class _Values:
    """What values an operand took, over all calls of its layer."""

    spiking: bool = True
    levels: set[float] = field(default_factory=set)  # its absolute values other than 0
    signed: bool = False
    single: bool = True  # the last call had one
    active: int = 0
    elements: int = 0

    def add(self, x: torch.Tensor, active: int, level: float | None, where: str) -> float | None:
        """Take in one call's operand; the value of one of its spikes (1.0: silent), None where it is analog. `active`
        elements are not 0, and have all the value `level` unless that is None."""
        self.elements += x.numel()
        self.active += active
        if not self.spiking or not x.numel():
            return None
        levels = levels_of(x, where, active) if level is None else {level} - {0.0}
        if levels is None:
            self.spiking = False
            return None
        sizes = {abs(v) for v in levels}
        self.signed |= any(v < 0 for v in levels)
        self.single = len(sizes) <= 1
        self.levels |= sizes
        return max(sizes, default=1.0) if self.single else common_unit(sorted(sizes)) or 1.0

    def numbers(self, x: torch.Tensor, unit: float) -> torch.Tensor:
        """How many spikes each element of the last call is."""
        if self.single:
            return x != 0
        sizes = x.abs() if self.signed else x
        return sizes if unit == 1 and self._whole() else (sizes / unit).round()

    def decide(self, sent: bool) -> None:
        """Whether the operand carried spikes, all calls seen. `sent`: data flow says that neurons sent its values."""
        if self.spiking and self.signed and self.active == self.elements:
            self.spiking = False  # signs alone: binary activations
        distinct = self._distinct()
        if self.spiking and len(distinct) > 1 and (self.signed or not self._whole()):
            self.spiking = sent and common_unit(distinct) is not None

    def _whole(self) -> bool:
        return all(v == round(v) for v in self.levels)

    def _distinct(self) -> list[float]:
        distinct: list[float] = []
        for v in sorted(self.levels):
            if not distinct or v - distinct[-1] > TOLERANCE * v:
                distinct.append(v)
        return distinct

    @property
    def unit(self) -> float:
        """The value of one spike."""
        distinct = self._distinct()
        if len(distinct) <= 1:
            return max(distinct, default=1.0)
        return common_unit(distinct) or 1.0

    @property
    def largest(self) -> int:
        """The most spikes in one element."""
        return round(max(self.levels, default=self.unit) / self.unit)


_ByUnit = dict[float, float]
_ByUnits = dict[tuple[float, float], float]
_Key = TypeVar("_Key")


@dataclass(slots=True)
class _Layer:
    """Counts of one layer over its calls."""

    module: str
    key: Hashable
    position: int  # of its first call among the module's matrix operations
    operand: _Values = field(default_factory=_Values)  # the activation; of a product, its first operand
    second: _Values | None = None  # the other operand, where it is no weight
    dense_macs: float = 0.0
    events: float = 0.0  # sum over the first operand's non-zero elements of their fan-out
    summed: _ByUnit = field(default_factory=dict)  # the same, each times its number of spikes, by the value of a spike
    second_events: float = 0.0
    second_summed: _ByUnit = field(default_factory=dict)
    pairs: float = 0.0
    summed_pairs: _ByUnits = field(default_factory=dict)
    effective: float = 0.0
    zero_weights: float | None = None
    channels: torch.Tensor | None = None
    per_channel: int = 0
    of_indices: bool = False  # it reads addresses, which a network without spikes does too

    def record(self, name: str, samples: int) -> LayerSpikes:
        sops, values = self._sops()
        channels = () if self.channels is None else tuple((self.channels / max(1, self.per_channel)).tolist())
        return LayerSpikes(
            module=name,
            density=values.active / max(1, values.elements),
            sops=sops / samples,
            dense_macs=self.dense_macs / samples,
            spiking=values.spiking,
            channel_density=channels,
            effective_ops=(self.effective if self.second is None else self.pairs) / samples,
            connection_sparsity=self.zero_weights,
            largest=max(1, values.largest) if values.spiking else 1,
        )

    def decide(self, sent: bool) -> None:
        """Whether its operands carried spikes. `sent`: it reads what neurons sent, by data flow."""
        self.operand.decide(sent)
        if self.second is not None:
            self.second.decide(sent)

    def _sops(self) -> tuple[float, _Values]:
        """Synaptic operations, and the operand that carries the spikes."""
        first, second = self.operand, self.second
        if second is not None and second.spiking and first.spiking:
            plain = first.largest <= 1 and second.largest <= 1
            return (self.pairs if plain else _pairs_in_all(self.summed_pairs, first.unit, second.unit)), first
        if second is not None and second.spiking:
            return _in_all(second, self.second_events, self.second_summed), second
        return _in_all(first, self.events, self.summed), first


def _in_all(values: _Values, events: float, summed: _ByUnit) -> float:
    """Events that count a sum of spikes as often as it holds one; a call's spike may be several of the layer's."""
    if values.largest <= 1:
        return events
    return sum(number * round(of_call / values.unit) for of_call, number in summed.items())


def _pairs_in_all(summed: _ByUnits, first: float, second: float) -> float:
    return sum(number * round(a / first) * round(b / second) for (a, b), number in summed.items())


def _add(summed: dict[_Key, float], key: _Key, number: float) -> None:
    summed[key] = summed.get(key, 0.0) + number


class _Counter(DispatchMode):
    """Sees every convolution and matrix product of a real forward pass, and which module it runs in."""

    def __init__(self, model: nn.Module, graph: BlockGraph | None, silent: bool) -> None:
        super().__init__()
        self.silent = silent  # the inputs
        self.paths = {id(m): n for n, m in model.named_modules()}
        self.weights = {storage_key(p): n for n, p in model.named_parameters()}
        self.stack: list[str] = []
        self.layers: dict[tuple[str, Hashable], _Layer] = {}
        self.calls: dict[str, int] = {}  # matrix operations that each module did
        self.neurons: dict[str, _Neuron] = {}
        self.comparisons: dict[str, int] = {}  # that each module did
        self.populations: Mapping[str, Sequence[str | None]] = {} if graph is None else _populations(graph)
        self.kinds: dict[Any, str] = {}
        self.draws = False  # random numbers
        self.whole: torch.Tensor | None = None  # the last potential that was rounded to a number of thresholds
        self.fired: tuple[_Neuron, torch.Tensor] | None = None  # the last comparison
        self.several: tuple[_Neuron, torch.Tensor] | None = None  # the last spikes of which a neuron sends several
        self.sent: list[torch.Tensor] = []  # the last comparison as numbers
        self.masks: list[torch.Tensor] = []  # the last comparison that only resets, as numbers, inverted

    def enter(self, module: nn.Module, _: Any) -> None:
        path = self.paths.get(id(module))
        if path is not None:
            self.stack.append(path)

    def leave(self, module: nn.Module, _: Any, __: Any) -> None:
        if id(module) in self.paths and self.stack:
            self.stack.pop()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = self.kinds.get(func)
        if kind is None:
            kind = self.kinds[func] = _kind(func)
            self.draws |= torch.Tag.nondeterministic_seeded in func.tags
        if kind == "conv":
            self._convolution(func, args, out)
            self._check(out)
        elif kind == "gemm":
            self._product(func, args, out)
            self._check(out)
        elif kind == "bag":
            self._embedding_bag(args)
        elif kind == "threshold" and isinstance(out, torch.Tensor) and out.dim():
            neuron = self._neuron()
            if neuron is not None:
                neuron.add(out)
                self.fired, self.sent = (neuron, out), [out]
            else:
                self.masks = [out]
        elif kind == "whole":
            self.whole = out
            self._count(out)
        elif kind in ("gate", "limit"):
            self._several_spikes(args, out, kind)
            self._held_back(args, out)
        elif kind == "cast" and self.fired is not None:
            for same in (self.sent, self.masks):
                if any(a is t for a in args for t in same):
                    same.append(out)
        return out

    def _check(self, out: torch.Tensor) -> None:
        """A membrane that is not a number never fires, which is no count."""
        # the sum first: it is many times as fast
        if not math.isfinite(float(out.sum())) and not bool(torch.isfinite(out).all()):
            raise BadInput(f"the output of {self._module() or 'a layer'} is not finite: no spikes can be counted")

    def _count(self, out: torch.Tensor) -> None:
        """Spikes that are a rounded potential, where the traced step says that they are."""
        neuron = self._neuron() if self.populations and out.dim() else None
        if neuron is not None:
            neuron.add(out)
            neuron.largest = max(neuron.largest, float(out.max()) if out.numel() else 0.0)
            self.several = neuron, out

    def _held_back(self, args: tuple[Any, ...], out: torch.Tensor) -> None:
        """Spikes that a mask of the neuron's own keeps from being sent: it is refractory."""
        if self.fired is not None and self.masks and self.sent:
            spikes, masked = (any(a is t for a in args for t in group) for group in (self.sent, self.masks))
            if spikes and masked:
                self.fired[0].correct(out)
                self.sent = [out]

    def _several_spikes(self, args: tuple[Any, ...], out: torch.Tensor, kind: str) -> None:
        """A neuron that sends as many spikes as its potential holds thresholds: the comparison alone is no count."""
        if kind == "gate" and self.fired is not None:
            if any(a is self.fired[1] for a in args) and any(a is self.whole for a in args):
                self.several = self.fired[0], out
                self.several[0].correct(out)
        elif kind == "limit" and self.several is not None and args[0] is self.several[1]:
            self.several = self.several[0], out
            self.several[0].correct(out)

    def _module(self) -> str:
        return self.stack[-1] if self.stack else ""

    def _neuron(self) -> _Neuron | None:
        """The population that the module's next comparison makes spikes of: one that compares several potentials has
        several, told apart as in the traced step. None: the comparison only resets."""
        module = self._module()
        position = self.comparisons[module] = self.comparisons.get(module, -1) + 1
        names = self.populations.get(module, ())
        name = names[position] if position < len(names) else module
        if name is None:
            return None
        return self.neurons.setdefault(name, _Neuron(module, name))

    def _layer(self, key: Hashable) -> _Layer:
        module = self._module()
        position = self.calls[module] = self.calls.get(module, -1) + 1
        layer = self.layers.get((module, key))
        if layer is None:
            layer = self.layers[module, key] = _Layer(module, key, position)
        return layer

    def _weight(self, tensor: torch.Tensor) -> str | None:
        """The parameter that the tensor is, or looks at."""
        return self.weights.get(storage_key(tensor))

    def _convolution(self, func: Any, args: tuple[Any, ...], out: torch.Tensor) -> None:
        x, weight = args[0], args[1]
        layer = self._layer(self._weight(weight) or (str(func), tuple(weight.shape)))
        layer.dense_macs += flop_formulas()[func.overloadpacket](*args, out_val=out) / 2
        places, level = active_places(x)
        layer.channels = _added(layer.channels, places.sum(dim=list(range(1, places.dim()))))
        layer.per_channel += x.numel() // max(1, x.shape[1])
        unit = layer.operand.add(x, int(places.sum()), level, layer.module)
        fan_out = _fan_out(tuple(x.shape[2:]), tuple(weight.shape), *_geometry(args)).to(x.device)
        events = float((places.sum(0) * fan_out).sum())
        layer.events += events
        if unit is not None and layer.operand.single:
            _add(layer.summed, unit, events)
        elif unit is not None:
            numbers = layer.operand.numbers(x, unit).sum(dim=(0, 1), dtype=torch.float64)
            _add(layer.summed, unit, float((numbers * fan_out).sum()))
        self._zeros(layer, weight)
        layer.effective += _effective_convolution(places, weight, _geometry(args)) if layer.zero_weights else events

    def _product(self, func: Any, args: tuple[Any, ...], out: torch.Tensor) -> None:
        left, right = _operands(func, args)
        keys = [w for w in (self._weight(left), self._weight(right)) if w is not None]
        # which of two operands carries the spikes: not the weights
        if self._weight(left) is not None and self._weight(right) is None:
            left, right = right.mT, left.mT
        sizes = (str(func), tuple(right.shape[-2:]), tuple(left.shape[-1:]))
        layer = self._layer(tuple(keys) or sizes)
        layer.dense_macs += left.numel() * right.shape[-1]
        channels, level = active_places(left.flatten(0, -2))
        layer.channels = _added(layer.channels, channels)
        layer.per_channel += left.numel() // max(1, left.shape[-1])
        active = int(channels.sum())
        unit = layer.operand.add(left, active, level, layer.module)
        layer.events += active * right.shape[-1]
        if unit is not None:
            sent = active if layer.operand.single else _sum(layer.operand.numbers(left, unit))
            _add(layer.summed, unit, sent * right.shape[-1])
        if self._weight(right) is not None:
            self._zeros(layer, right)
            layer.effective += _meetings(left != 0, right != 0) if layer.zero_weights else active * right.shape[-1]
            return
        other = right != 0
        others = int(torch.count_nonzero(other))
        layer.second = layer.second or _Values()
        second_unit = layer.second.add(right, others, None, layer.module)
        layer.pairs += _meetings(left != 0, other)
        layer.second_events += float(others) * left.shape[-2]
        if base_name(str(func)) in ("mm", "addmm") and not layer.second.spiking:
            self._zeros(layer, right)  # a weight that is computed: pruned, normalised
        if second_unit is None:
            return
        numbers = layer.second.numbers(right, second_unit)
        _add(layer.second_summed, second_unit, _sum(numbers) * left.shape[-2])
        if unit is not None:
            pairs = _meetings(layer.operand.numbers(left, unit), numbers)
            _add(layer.summed_pairs, (unit, second_unit), pairs)

    def _embedding_bag(self, args: tuple[Any, ...]) -> None:
        """Arguments as `aten._embedding_bag` has them: table, indices, offsets, -, mode, -, weights, -, padding."""
        table, indices, offsets = args[:3]
        mode, per_sample = args[4] if len(args) > 4 else 0, args[6] if len(args) > 6 else None
        padding = args[8] if len(args) > 8 else -1
        layer = self._layer(self._weight(table) or ("_embedding_bag", tuple(table.shape)))
        layer.of_indices = True
        layer.operand.spiking &= mode != _LARGEST_ROW and per_sample is None
        layer.operand.levels = {1.0}
        used = indices[indices != padding]
        layer.operand.active += used.numel()
        layer.operand.elements += offsets.numel() * table.shape[0]
        events = used.numel() * table.shape[1]
        layer.dense_macs += events
        layer.events += events
        layer.effective += int(torch.count_nonzero(table[used]))
        self._zeros(layer, table)

    def _zeros(self, layer: _Layer, weight: torch.Tensor) -> None:
        if layer.zero_weights is None:
            layer.zero_weights = 1 - int(torch.count_nonzero(weight)) / max(1, weight.numel())

    def spikes(self, source: str, samples: int, graph: BlockGraph | None) -> Spikes | None:
        names = self._names(graph)
        sent = {} if graph is None else spiking_layers(graph)
        for name, layer in zip(names, self.layers.values(), strict=True):
            layer.decide(name in sent)
        layers = tuple(layer.record(name, samples) for name, layer in zip(names, self.layers.values(), strict=True))
        spiking = [layer for layer in self.layers.values() if layer._sops()[1].spiking]
        threshold = bool(self.neurons) if graph is None else bool(spike_flow(graph).sources)
        carriers = [layer._sops()[1] for layer in spiking if not layer.of_indices]
        if not spiking or (not threshold and not any(0 < v.active < v.elements for v in carriers)):
            return None
        rate = sum(v.active for v in carriers) / max(1, sum(v.elements for v in carriers))
        sources = None if graph is None else spike_flow(graph).sources
        repeats = {} if graph is None else _comparisons_per_update(graph, self.populations)
        neurons = tuple(
            n.record(samples, repeats.get(n.name, 1))
            for n in self.neurons.values()
            if (sources is None or n.module in sources) and n.largest <= LARGEST_SUM
        )
        notes = [source]
        if self.draws:
            notes.append(f"of one run: it draws random numbers, here with seed {torch.initial_seed()}")
        fires = any(v.active for v in carriers)
        if self.silent:
            notes.append("the inputs are silent (all zero)" + ("" if fires else ", so that the counts are 0"))
        elif not fires:
            notes.append("nothing fires, so that the counts are 0")
        return Spikes(measured=True, source="; ".join(notes), rate=rate, layers=layers, neurons=neurons)

    def _names(self, graph: BlockGraph | None) -> list[str]:
        """The layers' names: those of the traced step, found by the order of a module's matrix operations."""
        counted_names = layer_names([(layer.module, layer.key) for layer in self.layers.values()])
        if graph is None:
            return counted_names
        traced: dict[str, list[str]] = {}
        for op, name in zip(graph.ops, layer_of_op(graph), strict=True):
            if name is not None and op.phase == "forward":
                traced.setdefault(op.module, []).append(name)
        names = []
        for name, layer in zip(counted_names, self.layers.values(), strict=True):
            calls = traced.get(layer.module, ())
            names.append(calls[layer.position] if layer.position < len(calls) else name)
        return names if len(set(names)) == len(names) else counted_names


class _Neuron:
    """Spikes that the comparisons of one population gave, call by call."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.updates = 0
        self.rates: list[float] = []
        self.counts = 0
        self.largest = 1.0  # the most spikes that one sent at once
        self.channels: torch.Tensor | None = None
        self.before: tuple[int, int, torch.Tensor | None] = (0, 0, None)  # updates, counts, channels

    def correct(self, spikes: torch.Tensor) -> None:
        """Of the last call: each neuron may have sent several."""
        self.updates, self.counts, self.channels = self.before
        self.rates.pop()
        self.add(spikes)

    def add(self, fired: torch.Tensor) -> None:
        self.before = self.updates, self.counts, self.channels
        on = fired if fired.dtype is torch.bool or fired.is_floating_point() else fired != 0
        if on.dim() < 2:
            per_place = on.double()
        else:
            per_place = true_places(on).double() if on.dtype is torch.bool else on.sum(dim=0, dtype=torch.float64)
        count = int(per_place.sum())
        self.updates += on.numel()
        self.counts += count
        self.rates.append(count / max(1, on.numel()))
        if on.dim() < 2:
            return
        channels = per_place.flatten(1).sum(1) if on.dim() > 2 else per_place
        channels = channels * on.shape[1] / max(1, on.numel())
        if self.channels is None:
            self.channels = channels
        elif self.channels.shape == channels.shape:
            self.channels = self.channels + channels

    def record(self, samples: int, per_update: int) -> NeuronSpikes:
        times = torch.tensor(self.rates, dtype=torch.float64)
        if len(self.rates) % per_update == 0:
            times = times.view(-1, per_update).sum(1)
        channels = None if self.channels is None else self.channels / len(self.rates) * per_update
        return NeuronSpikes(
            self.name,
            self.updates / per_update / samples,
            self.counts / samples,
            float(times.std(correction=0)) if len(times) > 1 else None,
            float(channels.std(correction=0)) if channels is not None and channels.numel() > 1 else None,
        )


def _populations(graph: BlockGraph) -> dict[str, list[str | None]]:
    """By module the population of each of its comparisons and roundings, in the order in which the step does them; None
    for one that only resets, or rounds something else."""
    of_op = spiking_network(graph).population_of_op
    fired = fired_comparisons(graph, of_op)
    firing = {graph.ops[k].module for k in fired}
    names: dict[str, list[str | None]] = {}
    unreached: list[tuple[str, int]] = []
    flow = spike_flow(graph)
    for k, op in enumerate(graph.ops):
        name = graph.op_types[op.type].name
        if op.phase == "forward" and (makes_spikes(name) or rounds(name)):
            of_module = names.setdefault(op.module, [])
            if k not in flow.spiking_ops and makes_spikes(name):
                unreached.append((op.module, len(of_module)))
            sends = k in flow.counts if rounds(name) else op.module not in firing or k in fired
            of_module.append(of_op.get(k, op.module) if sends else None)
    # before its input reaches the membrane (a synaptic current comes a step late), a step is as a later one
    for module, position in reversed(unreached):
        of_module = names[module]
        a_step_later = position + _period(of_module)
        if position < a_step_later < len(of_module):
            of_module[position] = of_module[a_step_later]
    return names


def _period(names: Sequence[str | None]) -> int:
    """After how many comparisons a population is compared again; 0 where none is."""
    places: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        if name is not None:
            places.setdefault(name, []).append(k)
    return max((b - a for ks in places.values() for a, b in pairwise(ks)), default=0)


def _comparisons_per_update(graph: BlockGraph, populations: Mapping[str, Sequence[str | None]]) -> Mapping[str, int]:
    """How often a population compares its potential in a time step: twice where spikes have a sign."""
    network = spiking_network(graph)
    names = {module: iter(of_module) for module, of_module in populations.items()}
    compared: dict[str | None, int] = {}
    for op in graph.ops:
        op_type = graph.op_types[op.type]
        if op.phase == "forward" and (makes_spikes(op_type.name) or rounds(op_type.name)):
            name = next(names[op.module])
            compared[name] = compared.get(name, 0) + math.prod(op_type.output_shapes[0])
    updates = {p.name: p.neurons * network.steps * max(1, graph.batch) for p in network.populations}
    return {n: compared[n] // k for n, k in updates.items() if compared.get(n, 0) % k == 0 and compared.get(n, 0) > k}


def _kind(func: Any) -> str:
    kind = formulas.matrix_kind(str(func))
    if kind in ("conv", "gemm"):
        return kind
    if base_name(str(func)) in EMBEDDING_BAGS:
        return "bag"
    if rounds(str(func)):
        return "whole"
    if base_name(str(func)) == "mul":
        return "gate"
    if base_name(str(func)) in ("_to_copy", "rsub", "logical_not", "bitwise_not"):
        return "cast"
    if base_name(str(func)) in ("clamp", "clamp_max"):
        return "limit"
    return "threshold" if makes_spikes(str(func)) else ""


def _operands(func: Any, args: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The two factors of a matrix product, a vector as a matrix of one row or column."""
    left, right = (args[k] for k in factors(str(func)))
    if left.dim() == 1:
        left = left[None]
    return left, right[:, None] if right.dim() == 1 else right


def _sum(numbers: torch.Tensor) -> float:
    return float(numbers.sum(dtype=torch.float64))


def _meetings(left: torch.Tensor, right: torch.Tensor) -> float:
    """The sum of all products: pairs of non-zero elements, where both are masks."""
    return float((left.sum(-2, dtype=torch.float64) * right.sum(-1, dtype=torch.float64)).sum())


def _added(total: torch.Tensor | None, channels: torch.Tensor) -> torch.Tensor:
    return channels if total is None or total.shape != channels.shape else total + channels


# stride, padding, dilation, transposed, output padding, groups
Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, tuple[int, ...], int]


def _geometry(args: Sequence[Any]) -> Geometry:
    """Of the arguments of a convolution."""
    stride, padding, dilation, transposed, output_padding, groups = args[3:9]
    return tuple(stride), tuple(padding), tuple(dilation), bool(transposed), tuple(output_padding), int(groups)


@lru_cache(maxsize=256)
def _fan_out(
    places: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    transposed: bool,
    output_padding: tuple[int, ...],
    groups: int,
) -> torch.Tensor:
    """How many outputs each of the `places` of the input reaches, in all output channels of its group. `weight` is the
    weight's shape."""
    out_per_input = weight[1] if transposed else weight[0] // groups
    one = torch.zeros((1, 1, *places), dtype=torch.float64)
    kernel = torch.ones((1, 1, *weight[2:]), dtype=torch.float64)
    geometry = (list(stride), list(padding), list(dilation), transposed, list(output_padding), 1)
    out = torch.ops.aten.convolution(one, kernel, None, *geometry)
    reached, _, _ = torch.ops.aten.convolution_backward(
        torch.ones_like(out), one, kernel, None, *geometry, [True, False, False]
    )
    counts: torch.Tensor = reached[0, 0] * out_per_input
    return counts


def _effective_convolution(counts: torch.Tensor, weight: torch.Tensor, geometry: Geometry) -> float:
    """Pairs of a non-zero input and a non-zero weight: the inputs summed over the batch, `counts` `[C, *places]`, meet
    the weights summed over the output channels of a group."""
    *_, transposed, _, groups = geometry
    present = (weight != 0).double()
    # [in, out / groups, ...] where it is transposed, else [out, in / groups, ...]
    present = present.sum(1, keepdim=True) if transposed else present.unflatten(0, (groups, -1)).sum(1)
    stride, padding, dilation, _, output_padding, _ = geometry
    out = torch.ops.aten.convolution(
        counts[None], present, None, stride, padding, dilation, transposed, output_padding, groups
    )
    return float(out.sum())


def conv_sops(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> float:
    """Synaptic operations of a convolution: the sum over non-zero inputs `[N, C, *places]` of their fan-out."""
    geometry = _geometry((x, weight, bias, stride, padding, dilation, transposed, output_padding, groups))
    fan_out = _fan_out(tuple(x.shape[2:]), tuple(weight.shape), *geometry)
    return float(((x != 0).sum(dim=(0, 1)).double() * fan_out).sum())
