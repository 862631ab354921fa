"""What PyTorch's own loop spends beside the ops that it runs: Python, modules, autograd, the optimizer's loop.

Networks whose ops do next to nothing are run both ways, as PyTorch runs them and replayed op by op: the difference,
per op of each phase, is what stands beside an op. One is reversible (its backward calls modules again), one is not, and
one is a single layer: what remains of it is what stands beside a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pararev_hw import models
from pararev_hw.execution.replay_timing import in_program_order
from pararev_hw.measurement import computing_threads
from pararev_hw.tracing import optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step
from pararev_hw.types import PHASES, Estimate

_NETWORKS = ("msresnet18", "revsresnet21")
_WIDTH, _TIMESTEPS, _CLASSES = 0.0625, 1, 10
_RUNS = 15
_LOW = 0.2  # the quantile of runs that is taken: disturbances only add


def loop_overheads() -> Mapping[str, Estimate]:
    """Seconds per op by phase ("forward_s", "recompute_s", "backward_s", "update_s", "infer_s") and per step
    ("train_step_s", "infer_step_s"); the deviation is how far the networks differ, where two tell the same."""
    with computing_threads(1):
        nets = [_zoo(name) for name in _NETWORKS]
        plain, reversible = (_beside(net, "train") for net in nets)
        inferred = [_beside(net, "infer") for net in nets]
        linear = nn.Linear(4, 4)
        small = {mode: _beside(linear, mode, torch.rand(2, 4)) for mode in ("train", "infer")}
    per_op = {phase: _mean([b[phase].per_op for b in (plain, reversible)]) for phase in ("forward", "update")}
    per_op["infer"] = _mean([b["infer"].per_op for b in inferred])
    per_op["backward"] = Estimate(max(0.0, plain["backward"].per_op))
    again = reversible["backward"].seconds - reversible["backward"].ops * per_op["backward"].value
    per_op["recompute"] = Estimate(max(0.0, again / reversible["recompute"].ops))
    steps = {
        mode: Estimate(max(0.0, sum(b.seconds - b.ops * per_op[phase].value for phase, b in beside.items())))
        for mode, beside in small.items()
    }
    return {f"{phase}_s": e for phase, e in per_op.items()} | {f"{mode}_step_s": e for mode, e in steps.items()}


@dataclass(frozen=True, slots=True)
class _Beside:
    """What PyTorch's loop took beyond a replay, in a phase of so many ops; "backward" holds recomputation too."""

    seconds: float
    ops: int

    @property
    def per_op(self) -> float:
        return self.seconds / self.ops


def _mean(values: Sequence[float]) -> Estimate:
    return Estimate(max(0.0, sum(values) / len(values)), (max(values) - min(values)) / 2)


def _zoo(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.create(name, width=_WIDTH, timesteps=_TIMESTEPS, num_classes=_CLASSES)


def _beside(model: nn.Module, mode: str, x: torch.Tensor | None = None) -> dict[str, _Beside]:
    """By phase, what the loop took beyond the replay of the same ops."""
    train = mode == "train"
    model.train(train)
    x = torch.rand(1, 3, 32, 32) if x is None else x
    y = torch.zeros(x.shape[0], dtype=torch.int64)
    make = optimizer_named("sgd")
    graph = trace_step(model, x, mode="train" if train else "infer", timesteps=_TIMESTEPS, optimizer=make).graph
    counts = {p: sum(op.phase == p for op in graph.ops) for p in PHASES}
    replay = in_program_order(graph)
    if not train:
        step = eager_step(model, None, "float32", "cpu")
        eager, replayed = _interleaved(lambda: _timed(lambda: step((x,), y)), replay)
        return {"infer": _Beside(eager["whole"] - replayed["whole"], len(graph.ops))}
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

    eager, replayed = _interleaved(phases, replay)
    beside = {p: _Beside(eager[p] - replayed[p], counts[p]) for p in ("forward", "update")}
    recomputed = replayed.get("recompute", 0.0)
    beside["backward"] = _Beside(eager["backward"] - replayed["backward"] - recomputed, counts["backward"])
    if counts["recompute"]:
        beside["recompute"] = _Beside(0.0, counts["recompute"])
    return beside


def _timed(run: Callable[[], object]) -> dict[str, float]:
    begun = time.thread_time()
    run()
    return {"whole": time.thread_time() - begun}


def _interleaved(
    eager: Callable[[], dict[str, float]], replay: Callable[[], dict[str, float]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Low quantiles of the seconds of both, run in alternation."""
    eager(), replay()
    pairs = [(eager(), replay()) for _ in range(_RUNS)]
    low = [
        {name: float(np.quantile([run[name] for run in runs], _LOW)) for name in runs[0]}
        for runs in zip(*pairs, strict=True)
    ]
    return low[0], low[1]
