"""What PyTorch's own loop spends beside the ops that it runs: Python, modules, autograd, the optimizer's loop.

Small networks are run both ways, as PyTorch runs them and replayed op by op; the difference is what stands beside the
ops. Each network has much of one thing, so that together they tell what each takes:

    a loop of functions   an op whose gradient is an op or two
    recurrent layers      an op whose gradient is many
    plain layers          the call of a module, an update
    spiking layers        a custom autograd function, and its gradient
    checkpointed layers   a hook that packs a saved tensor
    reversible layers     an op that is computed again
    a single layer        a step

Spiking layers come with next to no data and in networks of a usual size, and a single layer once after itself and once
after another network's step: then Python finds little of what it needs in the caches.

Both ways run in alternation, each twice, since a loop's step follows its like. Of the second runs the better half
counts, by how fast a fixed piece of Python ran just before and after: that is the machine at its own speed, undisturbed
by who shares the core. The speed is kept as well.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn
from torch.utils.checkpoint import checkpoint

from pararev_hw import models
from pararev_hw.costmodels.measured_ops import moved_bytes, python_events
from pararev_hw.execution.replay_timing import in_program_order
from pararev_hw.execution.single_layer import SingleLayer, single_input
from pararev_hw.measurement import collector_at_rest, computing_threads
from pararev_hw.measurement.pace import PACE, pace_s
from pararev_hw.tracing import StepDescription, optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step
from pararev_hw.types import BlockGraph, Estimate

_ZOO = ("msresnet18", "revsresnet21")
_LITTLE_S = 100e-6  # of a phase: what it tells is lost in the clock's noise
_WIDTH, _TIMESTEPS, _CLASSES = 0.25, 1, 10
_LAYERS, _ROUNDS = 12, 80
_CHANNELS, _SEQUENCE = 3, 20
RUNS, FEW_RUNS = 12, 5


class _Functions(nn.Module):
    """Many ops and hardly a module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3)) @ self.weight
        for _ in range(_ROUNDS):
            x = torch.sigmoid(0.5 * x + 0.1)
        return x @ self.weight.t()


class _Layers(nn.Module):
    """Many modules, each with few ops; `recomputed`: without what they save."""

    def __init__(self, recomputed: bool) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(_LAYERS)]
        self.layers, self.head, self.recomputed = nn.ModuleList(layers), nn.Linear(3, 3), recomputed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recomputed else layer(x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class Spike(torch.autograd.Function):
    """1 where the membrane is above its threshold; the gradient of a step is that of a slope near it."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (v,) = ctx.saved_tensors
        slope: torch.Tensor = grad * (1.0 - v.abs()).clamp(min=0.0)
        return slope


class _Spiking(nn.Module):
    """Many custom functions, with next to no data between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(_CHANNELS, _CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3))
        for _ in range(_LAYERS):
            x = Spike.apply(self.layer(x))  # type: ignore[no-untyped-call]
        return x


class _Recurrent(nn.Module):
    """Many small ops in the gradient of each call, by a layer or by a cell called step by step."""

    def __init__(self, layer: nn.GRU | nn.LSTMCell) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(_CHANNELS, _CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, nn.GRU):
            h = self.layer(x)[0][:, -1]
        else:
            h, c = self.layer(x[:, 0])
            for t in range(1, _SEQUENCE):
                h, c = self.layer(x[:, t], (h, c))
        logits: torch.Tensor = self.head(h)
        return logits


def loop_overheads(runs: int = RUNS) -> Mapping[str, Estimate]:
    """Seconds per op by phase, per call into Python and per step, as `MeasuredDevice.host` names them, and the pace.

    Each network is run so many times in both ways.
    """
    with computing_threads(1), collector_at_rest():
        image, larger = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
        sequence = torch.rand(2, _SEQUENCE, _CHANNELS)
        networks = (_Functions(), _Layers(False), _Layers(True), _Spiking())
        comparisons = [_beside(_Network(net, image), runs) for net in networks]
        recurrent = (nn.GRU(_CHANNELS, _CHANNELS, batch_first=True), nn.LSTMCell(_CHANNELS, _CHANNELS))
        comparisons += [_beside(_Network(_Recurrent(layer), sequence), runs) for layer in recurrent]
        usual = [_Network(_zoo(name), larger) for name in _ZOO]
        comparisons += [_beside(network, runs) for network in usual]
        single = _Network(SingleLayer(), single_input())
        comparisons += [_beside(single, runs), _beside(single, runs, after=usual[0])]
    pace = min(b.pace_s for b in comparisons)
    seconds = _explained([b.at(pace) for b in comparisons])
    return {name: Estimate(value) for name, value in {**seconds, PACE: pace}.items()}


@dataclass(frozen=True, slots=True)
class _Beside:
    """What PyTorch's loop took beyond a replay by phase, and how often it did what took it, by name."""

    seconds: Mapping[str, float]  # "backward" holds recomputation too
    counts: Mapping[str, Mapping[str, float]]
    pace_s: float

    def at(self, pace_s: float) -> _Beside:
        """What it would have taken where Python is that fast."""
        return replace(self, seconds={p: s * pace_s / self.pace_s for p, s in self.seconds.items()}, pace_s=pace_s)


def _explained(comparisons: Sequence[_Beside]) -> Mapping[str, float]:
    """Seconds of each thing, none below 0, that together come nearest to what was seen."""
    rows = [(b.counts[phase], b.seconds[phase]) for b in comparisons for phase in b.seconds]
    names = sorted({name for counts, _ in rows for name in counts})
    measured_s = np.array([seconds for _, seconds in rows])
    weight = 1.0 / (np.abs(measured_s) + _LITTLE_S)
    table = np.array([[counts.get(name, 0) for name in names] for counts, _ in rows], np.float64)
    solution, _ = nnls(table * weight[:, None], measured_s * weight)
    return dict(zip(names, solution.tolist(), strict=True))


def _counts(graph: BlockGraph, other_bytes: float) -> dict[str, dict[str, float]]:
    """How often each part of a step does what takes time, by the name of what it takes."""
    ops = Counter(str(op.phase) for op in graph.ops)
    counts = {part: dict(events) for part, events in python_events(graph, other_bytes).items()}
    for part, events in counts.items():
        events[f"{part}_s"] = len(graph.ops) if part == "infer" else ops[part]
    if "backward" in counts:
        counts["backward"]["recompute_s"] = ops["recompute"]
    return counts


def _zoo(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.create(name, width=_WIDTH, timesteps=_TIMESTEPS, num_classes=_CLASSES)


class _Network:
    """A network's steps of training and of inference, as PyTorch's loop runs them and replayed: seconds by phase."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        make, described = optimizer_named("sgd"), StepDescription(timesteps=_TIMESTEPS)
        self._model, self._x = model, x
        self._y = torch.zeros(x.shape[0], dtype=torch.int64)
        model.eval()
        self.inference = trace_step(model, x, loop=None, description=described).graph
        model.train()
        self.training = trace_step(model, x, loop=Loop(optimizer=make), description=described).graph
        self.replay_inference, self.replay_training = map(in_program_order, (self.inference, self.training))
        optimizer = eager_step(model, Loop(make), "float32", "cpu").optimizer
        assert optimizer is not None
        self._optimizer = optimizer

    def infer(self) -> dict[str, float]:
        begun = time.thread_time()
        with torch.no_grad():
            self._model(self._x)
        return {"whole": time.thread_time() - begun}

    def train(self) -> dict[str, float]:
        marks = [time.thread_time()]
        self._optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self._model(self._x), self._y)
        marks.append(time.thread_time())
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(time.thread_time())
        self._optimizer.step()
        marks.append(time.thread_time())
        del loss  # and with it the nodes that forward made
        marks.append(time.thread_time())
        forward, backward, update, let_go = np.diff(marks).tolist()
        return {"forward": forward + let_go, "backward": backward, "update": update}

    def set_mode(self, *, training: bool) -> None:
        self._model.train(training)


def _beside(network: _Network, runs: int, after: _Network | None = None) -> _Beside:
    """What the loop took beyond the replay of the same ops, in training and in inference; each right after its like, or
    after replayed steps of another network."""
    other = None if after is None else after.replay_training
    other_bytes = 0.0 if after is None else moved_bytes(after.training)
    network.set_mode(training=False)
    beside, infer_pace_s = _interleaved(network.infer, network.replay_inference, runs, other)
    seconds = {"infer": beside["whole"]}
    network.set_mode(training=True)
    beside, pace = _interleaved(network.train, network.replay_training, runs, other)
    seconds["infer"] *= pace / infer_pace_s
    seconds |= {p: beside[p] for p in ("forward", "update")}
    seconds["backward"] = beside["backward"] + beside.get("recompute", 0.0)
    counts = _counts(network.training, other_bytes) | _counts(network.inference, other_bytes)
    return _Beside(seconds, counts, pace)


def _interleaved(
    eager: Callable[[], dict[str, float]],
    replay: Callable[[], dict[str, float]],
    count: int,
    before_each: Callable[[], object] | None,
) -> tuple[dict[str, float], float]:
    """By how many seconds one takes longer than the other, by phase, in alternation while Python is at its fastest; and
    its pace then. What comes before each is its like unless something else is given."""
    eager(), replay()
    runs = []
    for _ in range(count):
        before = pace_s()
        (before_each or eager)()
        eager_s = eager()
        (before_each or replay)()
        replayed = replay()
        names = eager_s.keys() | replayed.keys()
        difference = {name: eager_s.get(name, 0.0) - replayed.get(name, 0.0) for name in names}
        runs.append((max(before, pace_s()), difference))
    runs.sort(key=lambda run: run[0])
    best = runs[: count // 2]
    return (
        {name: statistics.median(difference[name] for _, difference in best) for name in best[0][1]},
        statistics.median(pace for pace, _ in best),
    )
