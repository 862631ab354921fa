"""What PyTorch's own loop spends beside the ops that it runs: Python, modules, autograd, the optimizer's loop.

Small networks are run both ways, as PyTorch runs them and replayed op by op; the difference is what stands beside the
ops. Each network has much of one thing, so that together they tell what each takes:

    a loop of functions   an op whose gradient is an op or two
    recurrent layers      an op whose gradient is many
    plain layers          the call of a module, an update
    spiking layers        a custom autograd function, and its gradient
    checkpointed layers   a hook that packs a saved tensor
    reversible layers     an op that is computed again
    a single layer        what remains: a step

The spiking and the reversible network have ops of a usual size: between two of them the caches lose some of what Python
needs, and a custom function takes twice as long as between ops that do next to nothing.

Both ways run in alternation. Of each the better half of the runs counts, by how fast a fixed piece of Python ran just
before and after: that is the machine at its own speed, undisturbed by who shares the core. The speed is kept as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn
from torch.utils.checkpoint import checkpoint

from pararev_hw import models
from pararev_hw.costmodels.measured_ops import python_calls
from pararev_hw.execution.replay_timing import in_program_order
from pararev_hw.measurement import collector_at_rest, computing_threads
from pararev_hw.measurement.pace import PACE, pace_s
from pararev_hw.tracing import StepDescription, optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step
from pararev_hw.types import PHASES, BlockGraph, Estimate

_ZOO = ("msresnet18", "revsresnet21")
_LITTLE_S = 100e-6  # of a phase: what it tells is lost in the clock's noise
_WIDTH, _TIMESTEPS, _CLASSES = 0.25, 1, 10
_LAYERS, _ROUNDS = 12, 80
_CHANNELS, _SEQUENCE = 3, 20
RUNS, FEW_RUNS = 24, 10


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
        networks = (_Functions(), _Layers(False), _Layers(True))
        comparisons = [_beside(net, image, runs) for net in networks]
        recurrent = (nn.GRU(_CHANNELS, _CHANNELS, batch_first=True), nn.LSTMCell(_CHANNELS, _CHANNELS))
        comparisons += [_beside(_Recurrent(layer), sequence, runs) for layer in recurrent]
        comparisons += [_beside(_zoo(name), larger, runs) for name in _ZOO]
        small = _beside(nn.Linear(4, 4), torch.rand(2, 4), runs)
    pace = min(b.pace_s for b in comparisons)
    comparisons, small = [b.at(pace) for b in comparisons], small.at(pace)
    seconds = _explained(comparisons)
    steps = {"train": ("forward", "backward", "update"), "infer": ("infer",)}
    rest = {f"{mode}_step_s": max(0.0, sum(small.rest(p, seconds) for p in ps)) for mode, ps in steps.items()}
    return {name: Estimate(value) for name, value in {**seconds, **rest, PACE: pace}.items()}


@dataclass(frozen=True, slots=True)
class _Beside:
    """What PyTorch's loop took beyond a replay by phase, and how often it did what took it, by name."""

    seconds: Mapping[str, float]  # "backward" holds recomputation too
    counts: Mapping[str, Mapping[str, int]]
    pace_s: float

    def at(self, pace_s: float) -> _Beside:
        """What it would have taken where Python is that fast."""
        return replace(self, seconds={p: s * pace_s / self.pace_s for p, s in self.seconds.items()}, pace_s=pace_s)

    def rest(self, phase: str, s: Mapping[str, float]) -> float:
        """Seconds of a phase that those per op and per call do not explain."""
        return self.seconds[phase] - sum(n * s.get(name, 0.0) for name, n in self.counts[phase].items())


def _explained(comparisons: Sequence[_Beside]) -> Mapping[str, float]:
    """Seconds of each thing, none below 0, that together come nearest to what was seen."""
    rows = [(b.counts[phase], b.seconds[phase]) for b in comparisons for phase in b.seconds]
    names = sorted({name for counts, _ in rows for name in counts})
    measured_s = np.array([seconds for _, seconds in rows])
    weight = 1.0 / (np.abs(measured_s) + _LITTLE_S)
    table = np.array([[counts.get(name, 0) for name in names] for counts, _ in rows], np.float64)
    solution, _ = nnls(table * weight[:, None], measured_s * weight)
    return dict(zip(names, solution.tolist(), strict=True))


def _counts(graph: BlockGraph, calls: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """How often each phase of a training step does what takes time, by the name of what it takes."""
    ops = {p: sum(op.phase == p for op in graph.ops) for p in PHASES}
    counts = {p: {f"{p}_s": ops[p]} for p in ("forward", "backward", "update")}
    counts["backward"]["recompute_s"] = ops["recompute"]
    for (where, event), n in calls.items():
        counts[where][f"{event}_s"] = n
    return counts


def _zoo(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.create(name, width=_WIDTH, timesteps=_TIMESTEPS, num_classes=_CLASSES)


def _beside(model: nn.Module, x: torch.Tensor, runs: int) -> _Beside:
    """What the loop took beyond the replay of the same ops, in training and in inference."""
    y = torch.zeros(x.shape[0], dtype=torch.int64)
    make = optimizer_named("sgd")
    model.eval()
    inference = trace_step(model, x, loop=None, description=StepDescription(timesteps=_TIMESTEPS)).graph
    infer = eager_step(model, None, "float32", "cpu")
    beside, infer_pace_s = _interleaved(lambda: _timed(lambda: infer((x,), y)), in_program_order(inference), runs)
    seconds = {"infer": beside["whole"]}
    model.train()
    training = trace_step(model, x, loop=Loop(optimizer=make), description=StepDescription(timesteps=_TIMESTEPS)).graph
    optimizer = eager_step(model, Loop(make), "float32", "cpu").optimizer
    assert optimizer is not None

    def phases() -> dict[str, float]:
        marks = [time.thread_time()]
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        marks.append(time.thread_time())
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(time.thread_time())
        optimizer.step()
        marks.append(time.thread_time())
        forward, backward, update = np.diff(marks).tolist()
        return {"forward": forward, "backward": backward, "update": update}

    beside, pace = _interleaved(phases, in_program_order(training), runs)
    seconds["infer"] *= pace / infer_pace_s
    seconds |= {p: beside[p] for p in ("forward", "update")}
    seconds["backward"] = beside["backward"] + beside.get("recompute", 0.0)
    forward = {f"{event}_s": n for (_, event), n in python_calls(inference).items()}
    counts = _counts(training, python_calls(training)) | {"infer": {"infer_s": len(inference.ops), **forward}}
    return _Beside(seconds, counts, pace)


def _timed(run: Callable[[], object]) -> dict[str, float]:
    begun = time.thread_time()
    run()
    return {"whole": time.thread_time() - begun}


def _interleaved(
    eager: Callable[[], dict[str, float]], replay: Callable[[], dict[str, float]], count: int
) -> tuple[dict[str, float], float]:
    """By how many seconds one takes longer than the other, by phase, run in alternation while Python is at its
    fastest; and its pace then."""
    eager(), replay()
    runs = []
    for _ in range(count):
        before = pace_s()
        eager_s, replayed = eager(), replay()
        names = eager_s.keys() | replayed.keys()
        difference = {name: eager_s.get(name, 0.0) - replayed.get(name, 0.0) for name in names}
        runs.append((max(before, pace_s()), difference))
    runs.sort(key=lambda run: run[0])
    best = runs[: count // 2]
    return (
        {name: statistics.median(difference[name] for _, difference in best) for name in best[0][1]},
        statistics.median(pace for pace, _ in best),
    )
