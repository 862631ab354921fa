"""Spikes are read from values, per operation, whatever makes them; every count equals a brute-force one."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import pararev_hw as ph
from pararev_hw.errors import BadInput, TraceError
from pararev_hw.execution.job import prepare, start
from pararev_hw.graph import assumed, attach, may_spike, spiking_layers, totals
from pararev_hw.torch_private import without_onednn
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import DispatchRules, StepDescription, holds_spikes, measure_spikes, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import LayerSpikes, Spikes
from tests.helpers import command_line


class Step(torch.autograd.Function):
    """A threshold with a surrogate gradient, as every framework has one."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return g / (1 + v**2)


class Cell(nn.Module):
    """One time step of a leaky neuron; its name says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + x
        s = Step.apply(self.v - 0.2)
        self.v = self.v * (1 - s.detach())
        return s  # type: ignore[no-any-return]


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.n1 = nn.Conv2d(2, 6, 3, padding=1), Cell()
        self.c2, self.n2 = nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2), Cell()
        self.fc = nn.Linear(4 * 16, 5)


class Folded(Body):
    """[T, B, ...]: layers see time and batch as one axis."""

    def neuron(self, cell: Cell, x: Tensor) -> Tensor:
        cell.v = 0.0
        return torch.stack([cell(x[t]) for t in range(x.shape[0])])

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[0]
        x = self.neuron(self.n1, self.c1(x.flatten(0, 1)).unflatten(0, (steps, -1)))
        x = self.neuron(self.n2, self.c2(x.flatten(0, 1)).unflatten(0, (steps, -1)))
        return self.fc(x.flatten(0, 1).flatten(1)).unflatten(0, (steps, -1)).mean(0)


class Looped(Body):
    """[T, B, ...], walked through step by step."""

    def frame(self, x: Tensor, t: int) -> Tensor:
        return x[t]

    def forward(self, x: Tensor) -> Tensor:
        self.n1.v = self.n2.v = 0.0
        out: Any = 0
        for t in range(4):
            out = out + self.fc(self.n2(self.c2(self.n1(self.c1(self.frame(x, t))))).flatten(1))
        return out / 4


class BatchFirst(Looped):
    """[B, T, ...]"""

    def frame(self, x: Tensor, t: int) -> Tensor:
        return x[:, t]


def events(steps: int = 4, batch: int = 3) -> Tensor:
    torch.manual_seed(1)
    return (torch.rand(steps, batch, 2, 8, 8) < 0.3).float()


def by_brute_force(net: Body, x: Tensor) -> dict[str, int]:
    """Each spike is sent through a convolution of ones, each layer on its own."""
    counts: dict[str, int] = {}
    layers = {"c1": net.c1, "c2": net.c2, "fc": net.fc}

    def count(name: str) -> Callable[..., None]:
        def hook(layer: Any, args: tuple[Tensor, ...], _: Tensor) -> None:
            on = (args[0] != 0).double()
            ones = torch.ones_like(layer.weight, dtype=torch.float64)
            if isinstance(layer, nn.Conv2d):
                reached = F.conv2d(on, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            else:
                reached = F.linear(on, ones)
            counts[name] = counts.get(name, 0) + int(reached.sum())

        return hook

    handles = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return counts


def counted(net: nn.Module, x: Any, **options: Any) -> tuple[Any, Spikes]:
    graph = trace_step(net, x, **options).graph
    samples = graph.batch
    spikes = measure_spikes(net, x, source="events", mode=graph.mode, samples=samples, graph=graph)
    assert spikes is not None
    return attach(graph, spikes), spikes


def layer_of(spikes: Spikes, module: str) -> LayerSpikes:
    return next(layer for layer in spikes.layers if layer.module == module)


def test_layout_and_loop_never_change_a_count() -> None:
    """[T, B] folded, [T, B] looped, [B, T] looped; the axes given or read from the step."""
    x = events()
    expected = by_brute_force(Folded(), x)
    assert 0 < expected["c2"] < expected["c1"]
    forms: list[tuple[Body, Tensor]] = [(Folded(), x), (Looped(), x), (BatchFirst(), x.transpose(0, 1).contiguous())]
    for net, inputs in forms:
        for description in (StepDescription(), StepDescription(batch=3, timesteps=4)):
            graph, spikes = counted(net, inputs, description=description)
            assert (graph.batch, graph.timesteps) == (3, 4)
            assert {layer.module: layer.sops * 3 for layer in spikes.layers} == pytest.approx(expected)
            assert totals(graph)["sops"] == sum(expected.values())
    graph, _ = counted(Looped(), x, granularity="op")  # shared out over time steps, still whole
    assert totals(graph)["sops"] == sum(expected.values())


@settings(max_examples=4, deadline=None, derandomize=True)
@given(steps=st.integers(2, 5), batch=st.integers(1, 4), given_axes=st.booleans(), rate=st.floats(0.05, 0.9))
def test_no_form_of_a_network_changes_its_counts(steps: int, batch: int, given_axes: bool, rate: float) -> None:
    """Folded, looped and batch first, the axes given or declared by the layout: per sample and in all."""

    class Steps(Looped):
        def forward(self, x: Tensor) -> Tensor:
            self.n1.v = self.n2.v = 0.0
            return sum(self.fc(self.n2(self.c2(self.n1(self.c1(self.frame(x, t))))).flatten(1)) for t in range(steps))

    class StepsOfSamples(Steps):
        def frame(self, x: Tensor, t: int) -> Tensor:
            return x[:, t]

    x = (torch.rand(steps, batch, 2, 8, 8, generator=torch.Generator().manual_seed(steps)) < rate).float()
    expected = by_brute_force(Folded(), x)
    forms = ((Folded(), x, "TB"), (Steps(), x, "TB"), (StepsOfSamples(), x.transpose(0, 1).contiguous(), "BT"))
    for net, inputs, layout in forms:
        axes = {"batch": batch, "timesteps": steps} if given_axes and batch != steps else {}
        graph = ph.trace(net, inputs, mode="infer", layout=layout, **axes)
        assert (graph.batch, graph.timesteps) == (batch, steps)
        assert graph.totals.sops == sum(expected.values())
        assert graph.spikes is not None
        assert {e.module: round(e.sops * batch) for e in graph.spikes.layers} == expected


def test_accumulation_multiplies_and_inference_counts_the_forward_pass_alone() -> None:
    x = events()
    expected = sum(by_brute_force(Looped(), x).values())
    net = Looped()
    spikes = measure_spikes(net, x, source="events", samples=3)
    for loop, factor in ((Loop(accumulate=2), 2), (None, 1)):
        graph = attach(trace_step(net, x, description=StepDescription(batch=3), loop=loop).graph, spikes)
        assert totals(graph)["sops"] == factor * expected


class Functional(nn.Module):
    """Two weights in one module, a recurrent one, a product of spikes with spikes and one of spikes with numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w1, self.w2 = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(8, 8))
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:  # [B, N, 6] spikes
        a = Step.apply(F.linear(x, self.w1))
        b = Step.apply(F.linear(a, self.w2) - 0.5)
        met = torch.einsum("bnd,bmd->bnm", a, b)  # numbers of spikes that meet
        mixed = torch.bmm(b.transpose(1, 2), F.softmax(met, -1))
        self.seen = {"x": x, "a": a, "b": b, "met": met}
        return mixed.mean(1)


def test_functional_calls_and_products_of_two_activations_are_layers_of_their_own() -> None:
    net, x = Functional(), (torch.rand(3, 5, 6) < 0.5).float()
    graph, spikes = counted(net, x)
    with torch.no_grad():
        net(x)
    on = {name: int((t != 0).sum()) for name, t in net.seen.items()}
    pairs = int(net.seen["met"].sum())
    assert [layer.module for layer in spikes.layers] == ["", ":2", ":3", ":4"]
    assert [layer.sops * 3 for layer in spikes.layers] == pytest.approx(
        [on["x"] * 8, on["a"] * 8, pairs, on["b"] * 5]  # spikes x weights twice, spikes x spikes, spikes x numbers
    )
    assert all(layer.spiking for layer in spikes.layers)
    assert totals(graph)["sops"] == on["x"] * 8 + on["a"] * 8 + pairs + on["b"] * 5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
        (nn.Conv3d(2, 4, (1, 3, 2), padding=(0, 1, 1), groups=2), (2, 3, 5, 4)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 4, 5)),
        (nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2), (4, 6, 6)),
        (nn.Linear(7, 3, bias=False), (5, 7)),
    ],
)
@pytest.mark.parametrize("pruned", [False, True])
def test_every_kind_of_layer_counts_spikes_and_what_meets_a_weight(
    layer: Any, shape: tuple[int, ...], pruned: bool
) -> None:
    torch.manual_seed(0)
    x = (torch.rand(2, *shape) < 0.4).float() * 0.7  # one constant, not 1
    if pruned:
        prune.random_unstructured(layer, "weight", 0.5)
    spikes = measure_spikes(layer, x, source="events")
    assert spikes is not None
    (found,) = spikes.layers
    on = (x != 0).double()

    def through(weight: Tensor) -> float:
        if isinstance(layer, nn.Linear):
            return float(F.linear(on, weight).sum())
        if isinstance(layer, nn.ConvTranspose2d):
            args = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
            return float(F.conv_transpose2d(on, weight, None, *args).sum())
        convolution = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}[type(layer)]
        return float(convolution(on, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups).sum())

    assert found.spiking
    assert found.sops * 2 == through(torch.ones_like(layer.weight, dtype=torch.float64))
    assert found.effective_ops is not None
    assert found.effective_ops * 2 == through((layer.weight != 0).double())
    assert found.connection_sparsity == pytest.approx(float((layer.weight == 0).double().mean()))
    assert (found.connection_sparsity > 0.4) == pruned


def test_summed_spikes_count_as_often_as_they_were_summed_and_averages_are_analog() -> None:
    layer = nn.Linear(4, 3)
    (summed,) = measure_spikes(layer, torch.tensor([[0.0, 1, 2, 3]]), source="sums").layers  # type: ignore[union-attr]
    assert (summed.spiking, summed.sops, summed.largest, summed.effective_ops) == (True, 6 * 3, 3, 3 * 3)
    (scaled,) = measure_spikes(layer, torch.tensor([[0.0, 2, 4, 0]]), source="sums").layers  # type: ignore[union-attr]
    assert (scaled.sops, scaled.largest) == (3 * 3, 2)  # one spike is worth 2
    assert measure_spikes(layer, torch.tensor([[0.0, 0.25, 0.5, 1]]), source="averages") is None
    nearly = torch.tensor([[0.0, 1, 1 + 1e-7, 1 - 1e-7]])  # what a straight-through estimator leaves
    assert measure_spikes(layer, nearly, source="spikes").layers[0].sops == 9  # type: ignore[union-attr]


def test_ternary_spikes_are_accumulates_and_signs_alone_are_not() -> None:
    """One is added or subtracted; binary activations, +1 or -1 everywhere, are no events."""
    layer = nn.Linear(4, 3)
    (ternary,) = measure_spikes(layer, torch.tensor([[0.0, 0.7, -0.7, 0.7]]), source="ternary").layers  # type: ignore[union-attr]
    assert (ternary.spiking, ternary.sops, ternary.largest, ternary.effective_ops) == (True, 3 * 3, 1, 3 * 3)
    assert measure_spikes(layer, torch.tensor([[1.0, 1, -1, 1]]), source="signs") is None
    assert measure_spikes(layer, torch.tensor([[0.0, 1, -2, 1]]), source="numbers") is None
    assert holds_spikes((torch.tensor([[0.0, 1, -1, 1]]),))
    assert not holds_spikes((torch.tensor([[0.0, 0.25, 0.5, 1]]),))


def test_a_layer_is_analog_where_one_of_its_calls_is() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Step.apply(self.a(self.a(x))))  # type: ignore[no-any-return]

    spikes = measure_spikes(Twice(), torch.tensor([[0.0, 1, 0, 1]]), source="spikes")
    assert spikes is not None
    assert {layer.module: layer.spiking for layer in spikes.layers} == {"a": False, "b": True}
    assert layer_of(spikes, "a").effective_ops == 2 * 4 + 4 * 4  # two spikes, then four numbers


def test_neurons_report_updates_spikes_and_their_spread() -> None:
    net, x = Looped(), events()
    graph, spikes = counted(net, x)
    neurons = {n.module: n for n in spikes.neurons}
    assert set(neurons) == {"n1", "n2"}
    assert neurons["n1"].updates == 4 * 6 * 8 * 8  # time steps x channels x places
    assert neurons["n1"].spikes == layer_of(spikes, "c2").density * 4 * 6 * 8 * 8
    assert neurons["n1"].rate == pytest.approx(layer_of(spikes, "c2").density)
    assert neurons["n1"].rate_deviation_channels == pytest.approx(
        float(torch.tensor(layer_of(spikes, "c2").channel_density, dtype=torch.float64).std(correction=0))
    )
    assert neurons["n1"].rate_deviation_time is not None
    kinds = {(graph.op_types[op.type].kind, op.module) for op in graph.ops}
    assert ("neuron", "n1") in kinds and ("elementwise", "n1") not in kinds


class Several(nn.Module):
    """As many spikes as the potential holds thresholds, at most `most`; what is sent is taken off the potential."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.most, self.a, self.n, self.b = most, nn.Linear(6, 8), nn.Identity(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 6]
        v, out = torch.zeros(x.shape[1], 8), []
        for frame in x:
            v = v + self.a(frame)
            spikes = (v > 0) * torch.div(v, 0.2, rounding_mode="trunc")
            spikes = spikes if self.most is None else spikes.clamp(max=self.most)
            v = v - 0.2 * spikes
            out.append(self.b(self.n(spikes)))
        return torch.stack(out).mean(0)


@pytest.mark.parametrize("most", [None, 2])
def test_a_neuron_that_sends_several_spikes_at_once_reports_them_all(most: int | None) -> None:
    net, x, sent = Several(most), (torch.rand(4, 3, 6) < 0.5).float(), []
    graph, spikes = counted(net, x, description=StepDescription(batch=3, timesteps=4))
    net.n.register_forward_hook(lambda _, args, __: sent.append(args[0]))
    with torch.no_grad():
        net(x)
    real = torch.stack(sent)
    assert real.max() > 1
    (neuron,) = spikes.neurons
    assert (neuron.updates, neuron.spikes * 3) == (4 * 8, float(real.sum()))
    assert layer_of(spikes, "b").sops * 3 == float(real.sum()) * 3
    assert set(spiking_layers(graph)) == {"b"}  # by data flow too


class Graded(nn.Module):
    """A neuron that sends what `quantised` makes of its potential; what is sent is taken off the potential."""

    def __init__(self, quantised: Callable[[Tensor], Tensor], scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quantised, self.scale = quantised, scale
        self.a, self.n, self.b = nn.Conv1d(2, 4, 3, padding=1), nn.Identity(), nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 2, 6]
        v, out = torch.zeros(x.shape[1], 4, 6), []
        for frame in x:
            v = 0.75 * v + 4 * self.a(frame)
            spikes = self.quantised(v)
            v = v - spikes.detach()
            out.append(self.b(self.n(spikes * self.scale)))
        return torch.stack(out).mean((0, 3))


@pytest.mark.parametrize("scale", [1.0, 1 / 7])
@pytest.mark.parametrize(
    "quantised",
    [
        lambda v: torch.round(torch.clamp(v, 0.0, 4.0)),  # an integer leaky neuron
        lambda v: torch.floor(v + 0.5).clamp(0, 4),
        lambda v: torch.floor(F.relu(v)),
        lambda v: (v >= 1).float() - (v <= -1).float(),  # ternary
        lambda v: torch.where(v >= 1, 1.0, 0.0) + torch.where(v <= -1, -1.0, 0.0),
    ],
    ids=["clip and round", "round and clip", "floor of what is positive", "ternary", "ternary sum"],
)
def test_a_neuron_that_sends_numbers_of_spikes_counts_each(quantised: Callable[[Tensor], Tensor], scale: float) -> None:
    net, x, sent = Graded(quantised, scale), (torch.rand(4, 3, 2, 6) < 0.5).float(), []
    graph, spikes = counted(net, x, description=StepDescription(batch=3, timesteps=4))
    net.n.register_forward_hook(lambda _, args, __: sent.append((args[0] / scale).round().abs().double()))
    with torch.no_grad():
        net(x)
    real = torch.stack(sent)
    fan_out = torch.tensor([2, 3, 3, 3, 3, 2]) * 3  # places that an input reaches, in each of 3 channels
    layer = layer_of(spikes, "b")
    assert layer.spiking and set(spiking_layers(graph)) == {"b"}
    assert layer.sops * 3 == float((real * fan_out).sum())
    assert layer.largest == int(real.max())
    (neuron,) = spikes.neurons
    assert (neuron.updates, neuron.spikes * 3) == (4 * 4 * 6, float(real.sum()))
    assert neuron.rate == pytest.approx(float(real.mean()))
    assert neuron.rate_deviation_time == pytest.approx(float(real.mean((1, 2, 3)).std(correction=0)))


def test_rounding_that_sends_no_spikes_makes_no_neuron() -> None:
    """Eight bits of an activation, and an average of spikes, have no few levels that neurons sent."""

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b, self.c = nn.Linear(6, 8), Cell(), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.n.v = 0.0
            y = self.a(x)
            eight_bits = torch.round(torch.clamp(y * 255, 0, 255)) / 255
            average = torch.stack([self.n(y) for _ in range(4)]).mean(0)
            return self.b(eight_bits) + self.c(average)

    _, spikes = counted(Quantised(), (torch.rand(9, 6) < 0.5).float())
    assert [n.module for n in spikes.neurons] == ["n"]
    assert {layer.module: layer.spiking for layer in spikes.layers} == {"a": True, "b": False, "c": False}


class Reached(nn.Module):
    """Spikes through pooling, dropout, reshapes, concatenation and a residual sum; then an average ends them."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1, self.c2, self.n2 = nn.Conv2d(3, 4, 3, padding=1), Cell(), nn.Conv2d(4, 4, 1), Cell()
        self.drop, self.wide, self.last = nn.Dropout(0.5), nn.Conv2d(8, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.n1.v = self.n2.v = 0.0
        s = self.drop(F.max_pool2d(self.n1(self.c1(x)), 2))
        s = s + self.n2(self.c2(s))
        y = self.wide(torch.cat([s, s.flip(1)], 1).flatten(2).unflatten(2, s.shape[2:]))
        self.n2.v = 0.0
        return self.last(self.n2(y).mean((2, 3)))  # type: ignore[no-any-return]


def test_an_assumed_rate_follows_spikes_and_says_where_they_end() -> None:
    graph = trace_step(Reached(), torch.empty(2, 3, 8, 8)).graph
    macs = {"c2": 2 * 16 * 4 * 4, "wide": 2 * 16 * 8 * 4}
    assert spiking_layers(graph) == macs
    found = assumed(graph, 0.25)
    assert found is not None
    assert "spikes end before last (after mean in the network)" in found.source
    assert totals(attach(graph, found))["sops"] == 0.25 * sum(macs.values())


def test_a_mask_or_a_rectifier_is_no_neuron() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            h = torch.where(h > 0, h, 0.1 * h) * (h < 3)
            return self.b(h.masked_fill(torch.arange(6) > 4, 0.0))  # type: ignore[no-any-return]

    graph = trace_step(Masked(), torch.empty(3, 6)).graph
    assert not may_spike(graph)
    assert not spiking_layers(graph)
    assert assumed(graph, 0.2) is None
    assert measure_spikes(Masked(), torch.randn(3, 6), source="noise", graph=graph) is None


ODD_PLACES = """
import random
import numpy as np, torch
from torch import nn

SHARED = {}

class Slots:
    __slots__ = ("v",)

class HiddenSlots(Slots):
    __slots__ = ()
    slot = Slots.v
    v = property(lambda self: self.slot)

class Net(nn.Module):
    v = None

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.place = nn.Linear(12, 10), nn.Linear(10, 4), place
        self.slots, self.calls, self.random = Slots(), np.zeros(10), random.Random(3)
        if place == "hidden slots":
            self.slots = HiddenSlots()
        v = None
        def enclosed(x):
            nonlocal v
            v = x if v is None else 0.5 * v.detach() + x
            return (v > 0.1).float()
        def endless():
            z = None
            while True:
                x = yield z
                z = enclosed(x)
        self.enclosed = enclosed
        if place == "generator":
            self.endless = endless()
            next(self.endless)

    def decayed(self, before, x):
        return x if before is None else 0.5 * before.detach() + x

    def spikes(self, x):
        if self.place == "closure":
            return self.enclosed(x)
        if self.place == "generator":
            return self.endless.send(x)
        if self.place == "random":
            return (x > self.random.random() + random.random()).float()
        if self.place == "numpy":
            self.calls += 1
            return (x > 0.1 * torch.from_numpy(self.calls).float()).float()
        if self.place == "class":
            v = Net.v = self.decayed(Net.v, x)
        elif self.place == "global":
            v = SHARED["v"] = self.decayed(SHARED.get("v"), x)
        elif self.place == "hidden slots":
            v = self.slots.slot = self.decayed(getattr(self.slots, "v", None), x)
        else:
            v = self.slots.v = self.decayed(getattr(self.slots, "v", None), x)
        return (v > 0.1).float()

    def forward(self, x):
        return sum(self.b(self.spikes(self.a(frame))) for frame in x)

def make(place):
    return Net(place), (torch.rand(5, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()
"""


@pytest.mark.parametrize(
    "place", ["closure", "generator", "random", "numpy", "class", "global", "slots", "hidden slots"]
)
def test_state_in_odd_places_is_put_back_or_made_anew(place: str, tmp_path: Path) -> None:
    source = ODD_PLACES.replace("def make(place)", f"def make(place={place!r})")
    (tmp_path / "odd_places.py").write_text(source)
    by_hand: dict[str, Any] = {}
    exec(source, by_hand)
    net, x = by_hand["make"]()
    sent: list[float] = []
    net.b.register_forward_hook(lambda _, args, __: sent.append(float(args[0].sum())))
    random.seed(0)
    with torch.no_grad():
        net(x)
    ran = command_line.run("trace", f"{tmp_path / 'odd_places.py'}:make", "--json")
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert document["totals"]["sops"] == float(x.sum()) * 10 + sum(sent) * 4
    assert ("random numbers" in document["spikes"]["source"]) == (place == "random")
    if place == "generator":  # nobody knows how this one was made
        with pytest.raises(BadInput, match="holds a generator, whose state cannot be put back after a run"):
            ph.trace(by_hand["make"]()[0], x)


STREAMS = """
import functools, itertools
GAINS = itertools.cycle([0.05, 0.2, 0.6])
CALLS = bytearray(1)

@functools.cache
def scale(n):
    return torch.ones(n) / 2

def gain():
    CALLS[0] += 1
    return next(GAINS) * CALLS[0]
"""
STREAMED = """
import threading
import torch
from torch import nn
import streams

UNUSED = iter([1, 2])

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(12, 10), nn.Linear(10, 4)
        self.lock, self.thresholds = threading.Lock(), iter([0.05] + 50 * [0.9])

    def forward(self, x):
        with self.lock:
            own = next(self.thresholds)
            return sum(self.b((self.a(f) > own + streams.gain() * streams.scale(10)).float()) for f in x)

def make():
    return Net(), (torch.rand(5, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()
"""


def test_a_network_that_nothing_copies_is_made_anew_with_the_files_that_it_names(tmp_path: Path) -> None:
    """An iterator, one in another file, and a lock: counts are those of a network that never ran."""
    (tmp_path / "streams.py").write_text("import torch\n" + STREAMS)
    (tmp_path / "streamed.py").write_text(STREAMED)
    torch.manual_seed(0)
    a, x = nn.Linear(12, 10), (torch.rand(5, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    with torch.no_grad():
        gains = [0.05, 0.4, 1.8, 0.2, 1.0]  # the cycle times the number of the call
        fired = sum(float((a(f) > 0.05 + g / 2).sum()) for f, g in zip(x, gains, strict=True))
    for mode in ("infer", "train"):
        ran = command_line.run("trace", f"{tmp_path / 'streamed.py'}:make", "--json", "--mode", mode)
        assert ran.status == 0, ran.err
        assert json.loads(ran.out)["totals"]["sops"] == float(x.sum()) * 10 + fired * 4
    job = prepare(f"{tmp_path / 'streamed.py'}:make", TraceOptions(granularity="block"))
    (first, batch), (second, _) = start(job), start(job)
    assert first is not second
    assert torch.equal(first.a.weight, a.weight)
    assert torch.equal(first(x), second(x))  # each from the first of the stream
    assert set(batch) > {"input:0"}


def test_an_iterator_that_the_network_never_names_is_no_state_of_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(ODD_PLACES.replace("SHARED =", "BESIDE = iter([1, 2])\nSHARED ="))
    spec = importlib.util.spec_from_file_location("beside", tmp_path / "beside.py")
    assert spec is not None
    assert spec.loader is not None
    beside = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, beside=beside):
        spec.loader.exec_module(beside)
        assert ph.trace(*beside.make("class")).totals.sops
        assert next(beside.BESIDE) == 1


class Stateful(nn.Module):
    """Every place where a framework keeps a membrane."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.register_buffer("v", torch.zeros(0), persistent=False)
        self.history: list[Tensor] = []
        self.queue: deque[Tensor] = deque()
        self.table: dict[str, Any] = {"steps": 0, "inner": [torch.zeros(2)]}
        self.count = 0
        self.update = self._update  # a bound method, as snnTorch keeps one

    def _update(self, x: Tensor) -> Tensor:
        if self.v.shape != x.shape:
            self.v = torch.zeros_like(x)
        self.v = 0.5 * self.v + x
        return Step.apply(self.v - 0.1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.ones(6))
        self.count += 1
        self.table["steps"] += 1
        self.table["inner"][0].add_(1)
        s = self.update(self.norm(self.f(x)))
        self.history.append(s)
        self.queue.append(s)
        return self.f(s) * self.late


def test_the_whole_state_is_put_back_after_tracing_and_after_counting() -> None:
    net, x = Stateful(), (torch.rand(4, 6) < 0.4).float()
    net.norm.eval()
    mean = net.norm.running_mean.clone()
    for run in (
        lambda: trace_step(net, x),
        lambda: measure_spikes(net, x, source="events"),
        lambda: measure_spikes(net, x, source="events", mode="infer"),
    ):
        run()
        assert (net.v.shape, net.history, list(net.queue), net.count) == ((0,), [], [], 0)
        assert net.table["steps"] == 0
        assert torch.equal(net.table["inner"][0], torch.zeros(2))
        assert "late" not in net._buffers
        assert torch.equal(net.norm.running_mean, mean)
        assert net.training and not net.norm.training


def test_other_networks_whose_state_a_class_resets_keep_it() -> None:
    """snnTorch holds all neurons ever made in a list of their class, and resets them together."""

    class Listed(nn.Module):
        every: ClassVar[list[nn.Module]] = []

        def __init__(self) -> None:
            super().__init__()
            self.fc, self.v = nn.Linear(4, 4), torch.ones(2, 4)
            self.every.append(self)

        def forward(self, x: Tensor) -> Tensor:
            for neuron in self.every:
                neuron.v = torch.zeros_like(neuron.v)
            self.v = self.v + self.fc(x)
            return (self.v > 0).float() + self.v

    Listed.__module__ = "a_library"
    other, net = Listed(), Listed()
    before = other.v
    trace_step(net, torch.empty(2, 4))
    measure_spikes(net, torch.rand(2, 4), source="test")
    assert other.v is before and bool((other.v == 1).all())


def test_parts_that_a_factory_froze_stay_frozen() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    net[1].eval()
    graph = trace_step(net, torch.empty(8, 4)).graph
    buffers = {s for s, storage in enumerate(graph.storages) if storage.role == "buffer"}
    written = {op.module for op in graph.ops if buffers & set(op.writes)}
    assert written == {"3"}  # the frozen normalisation's statistics are only read


def test_what_is_not_finite_is_refused_and_silence_is_said() -> None:
    net = Looped()
    with pytest.raises(BadInput, match="the input of c1 is not finite"):
        measure_spikes(net, events() * float("nan"), source="events", samples=3)
    broken = Looped()
    nn.init.constant_(broken.c2.bias, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the output of c2 is not finite"):
        measure_spikes(broken, events(), source="events", samples=3)
    silent = measure_spikes(net, torch.zeros(4, 3, 2, 8, 8), source="zeros", samples=3)
    assert silent is not None
    assert layer_of(silent, "c1").sops == 0
    assert silent.source == "zeros; the inputs are silent (all zero)"  # biases fire all the same
    for layer in (net.c1, net.c2, net.fc):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    silent = measure_spikes(net, torch.zeros(4, 3, 2, 8, 8), source="zeros", samples=3)
    assert silent is not None and sum(layer.sops for layer in silent.layers) == 0
    assert silent.source == "zeros; the inputs are silent (all zero), so that the counts are 0"


def test_work_hidden_in_fused_kernels_is_counted() -> None:
    """The encoder's fast path, attention in one kernel and an LSTM's: as many flops as when each product is seen."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    graph = trace_step(encoder, torch.empty(3, 5, 16), loop=None, rules=DispatchRules(cuda=True)).graph
    linear = 3 * 5 * 16 * (3 * 16 + 16 + 32 + 32) * 2
    products = 2 * (3 * 2 * 5 * 5 * 8) * 2
    assert sum(t.flops for t in graph.tasks) == 2 * (linear + products)
    assert not graph.unknown_ops
    lstm = nn.LSTM(4, 6, batch_first=True)
    x = torch.rand(3, 5, 4)
    with without_onednn(), FlopCounterMode(display=False) as counter:
        lstm(x)[0].square().mean().backward()
    loop = Loop(loss=lambda out: out[0].square().mean())
    graph = trace_step(lstm, x, loop=loop, rules=DispatchRules(cuda=True)).graph
    # cuDNN's kernel gives the gradients of the input and of the first state as well, which nothing here asks for
    unasked = 2 * 3 * (4 * 6) * (5 * 4 + 6)
    assert sum(t.flops for t in graph.tasks) == counter.get_total_flops() + unasked
    assert not graph.unknown_ops
    forward = 2 * 3 * 5 * (24 * 4 + 24 * 6)
    unwanted = 2 * 3 * 5 * 24 * 4 + 2 * 3 * 24 * 6  # gradients of input and first state, which the kernel computes too
    on_cpu = [trace_step(lstm, x, loop=step).graph.totals.flops for step in (None, loop)]
    assert on_cpu == [forward, counter.get_total_flops() + unwanted]


@pytest.mark.parametrize("heads", [2, 4])
def test_a_cpus_fast_paths_do_as_much_as_their_operations(heads: int) -> None:
    """Beside the same modules traced operation by operation, as a GPU runs them."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, heads, 32, batch_first=True), 2).eval()

    class SelfAttention(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x)[0]  # type: ignore[no-any-return]

    for net in (encoder, SelfAttention(16, heads, batch_first=True).eval()):
        graphs = [
            trace_step(net, torch.empty(3, 5, 16), loop=None, rules=DispatchRules(cuda=cuda)).graph
            for cuda in (False, True)
        ]
        fused, spelt = (g.totals for g in graphs)
        assert fused.flops == spelt.flops > 0
        assert fused.unknown_ops == 0
        assert fused.ops < spelt.ops
        assert fused.vector_flops > 0


def test_products_with_a_vector_are_matrix_products() -> None:
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.bias = nn.Parameter(torch.rand(3, 6)), nn.Parameter(torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmv(self.bias, self.w, x) + self.w @ x

    x = torch.tensor([0.0, 1, 0, 1, 1, 0])
    graph, spikes = counted(Vectors(), x, loop=None, description=StepDescription(batch=1))
    assert graph.totals.macs == 2 * 3 * 6
    (layer,) = spikes.layers  # one weight, used twice
    assert (layer.sops, layer.density, layer.dense_macs) == (2 * 3 * 3, 0.5, 2 * 3 * 6)
    assert graph.totals.sops == 18


class Noisy(nn.Module):
    """Spikes that are drawn, by their probability and as dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(6, 8), nn.Linear(8, 4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.drawn = self.drop(torch.bernoulli(torch.sigmoid(self.a(x))))
        return self.b(self.drawn)  # type: ignore[no-any-return]


def test_counts_of_a_network_that_draws_are_of_the_seed_and_say_so() -> None:
    torch.manual_seed(7)
    net, x = Noisy(), torch.rand(5, 6)
    state = torch.get_rng_state()
    graph, spikes = counted(net, x)
    assert torch.equal(torch.get_rng_state(), state)  # the user's generator goes on where it was
    net(x)
    assert layer_of(spikes, "b").sops * 5 == int((net.drawn != 0).sum()) * 4 > 0
    assert "seed 7" in spikes.source
    assert spiking_layers(graph) == {"b": 5 * 8 * 4}  # also where a rate is assumed
    assert "seed" not in counted(Looped(), events())[1].source


def test_a_state_that_forward_asks_for_is_named_with_what_to_do() -> None:
    class Cells(nn.Module):
        def forward(self, x: Tensor, mem: Tensor, *, gain: float) -> tuple[Tensor, Tensor]:
            return x, gain * mem

    with pytest.raises(
        BadInput, match=r"forward needs mem, gain, which cannot be guessed from x: .*mem=None"
    ) as refused:
        trace_step(Cells(), torch.empty(2, 3))
    assert "wrap the network in a module whose forward(x) makes it" in str(refused.value)

    class LeftAtNone(nn.Module):
        def forward(self, x: Tensor, mem: Any = None) -> Tensor:
            return x + 0.5 * mem

    with pytest.raises(TraceError, match="forward's mem is None: return it with the inputs"):
        trace_step(LeftAtNone(), torch.empty(2, 3), loop=None)


class TwiceCompared(Cell):
    """Its membrane is compared for the reset, as it was left by the step before, and for the spikes."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.v, Tensor):
            self.v = torch.zeros_like(x)
        reset = Step.apply(self.v - 0.2).detach()
        self.v = 0.5 * self.v + x - 0.2 * reset
        return Step.apply(self.v - 0.2)  # type: ignore[no-any-return]


def test_a_neuron_that_compares_twice_is_updated_once() -> None:
    net, x = Looped(), events()
    net.n1, net.n2 = TwiceCompared(), TwiceCompared()
    fired: list[Tensor] = []
    net.n1.register_forward_hook(lambda _, __, out: fired.append(out))
    _, spikes = counted(net, x)
    neurons = {n.module: n for n in spikes.neurons}
    assert (neurons["n1"].updates, neurons["n2"].updates) == (4 * 6 * 8 * 8, 4 * 4 * 4 * 4)
    with torch.no_grad():
        fired.clear()
        net(x)
    assert neurons["n1"].spikes * 3 == sum(int((out != 0).sum()) for out in fired) > 0


class LateAndRefractory(Cell):
    """Its synaptic current reaches the membrane a step late; after a spike it cannot send for two steps."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.v, Tensor):
            self.v, self.current, self.rest = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
        self.v = 0.5 * self.v + self.current
        s = Step.apply(self.v - 0.1)
        resting = Step.apply(self.rest - 0.5)
        s = (1 - resting) * s
        self.rest = torch.relu(self.rest - 1) + 3 * s.detach()
        self.v, self.current = self.v * (1 - s.detach()), 0.5 * self.current + x
        return s


class Signed(Cell):
    """Spikes of either sign."""

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + x
        s = Step.apply(self.v - 0.1) - Step.apply(-self.v - 0.1)
        self.v = self.v - 0.1 * s.detach()
        return s


@pytest.mark.parametrize("neuron", [LateAndRefractory, Signed])
def test_updates_and_spikes_are_of_the_potential_however_often_it_is_compared(neuron: type[Cell]) -> None:
    net, x = Looped(), events()
    net.n1, net.n2 = neuron(), neuron()
    sent: list[Tensor] = []
    net.n1.register_forward_hook(lambda _, __, out: sent.append(out))
    _, spikes = counted(net, x)
    neurons = {n.module: n for n in spikes.neurons}
    assert (neurons["n1"].updates, neurons["n2"].updates) == (4 * 6 * 8 * 8, 4 * 4 * 4 * 4)
    with torch.no_grad():
        sent.clear()
        net(x)
    assert neurons["n1"].spikes * 3 == sum(int((out != 0).sum()) for out in sent) > 0


def test_an_expanded_input_is_looked_at_once() -> None:
    events = torch.tensor([[0.0, 1.0, 0.0]])
    assert holds_spikes((events.expand(1 << 38, 3),))  # a TiB, written out
    assert not holds_spikes(((events - 0.5).expand(1 << 38, 3),))
