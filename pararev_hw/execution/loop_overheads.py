"""What PyTorch's own loop spends beside the ops that it runs: Python, modules, autograd, the optimizer's loop.

Two networks whose ops do next to nothing are run both ways, as PyTorch runs them and replayed op by op: the difference,
per op of each phase, is what stands beside an op. One is reversible (its backward calls modules again), one is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from pararev_hw import models
from pararev_hw.execution.replay_timing import in_program_order
from pararev_hw.measurement import computing_threads
from pararev_hw.tracing import optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step
from pararev_hw.types import Estimate

_NETWORKS = ("revsresnet21", "msresnet18")
_WIDTH, _TIMESTEPS, _CLASSES = 0.0625, 1, 10
_RUNS = 15
_LOW = 0.2  # the quantile of runs that is taken: disturbances only add


def loop_overheads() -> Mapping[str, Estimate]:
    """Seconds per op by phase of a training step, and "infer_s"; the deviation is how far the two networks differ."""
    per_op: dict[str, list[float]] = {}
    with computing_threads(1):
        for name in _NETWORKS:
            for mode in ("train", "infer"):
                for phase, value in _of_network(name, mode).items():
                    per_op.setdefault(phase, []).append(value)
    return {
        phase: Estimate(max(0.0, sum(values) / len(values)), (max(values) - min(values)) / 2)
        for phase, values in sorted(per_op.items())
    }


def _of_network(name: str, mode: str) -> dict[str, float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.create(name, width=_WIDTH, timesteps=_TIMESTEPS, num_classes=_CLASSES).train(mode == "train")
    x, y = torch.rand(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    make = optimizer_named("sgd")
    how = "train" if mode == "train" else "infer"
    graph = trace_step(model, x, name=name, mode=how, timesteps=_TIMESTEPS, optimizer=make).graph  # type: ignore[arg-type]
    counts = {p: sum(op.phase == p for op in graph.ops) for p in ("forward", "recompute", "backward", "update")}
    replay = in_program_order(graph)
    if mode == "infer":
        step = eager_step(model, None, "float32", "cpu")
        eager, replayed = _interleaved(lambda: _timed(lambda: step((x,), y)), replay)
        return {"infer_s": (eager["whole"] - replayed["whole"]) / len(graph.ops)}
    trains = eager_step(model, Loop(make), "float32", "cpu")
    optimizer = trains.optimizer
    assert optimizer is not None

    def phases() -> dict[str, float]:
        marks = [time.thread_time()]
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        marks.append(time.thread_time())
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(time.thread_time())
        optimizer.step()
        marks.append(time.thread_time())
        forward, backward, update = np.diff(marks).tolist()
        return {"forward": forward, "backward": backward, "update": update}

    eager, replayed = _interleaved(phases, replay)
    of = {p: (eager[p] - replayed[p]) / counts[p] for p in ("forward", "update")}
    if not counts["recompute"]:
        of["backward"] = (eager["backward"] - replayed["backward"]) / counts["backward"]
    else:  # what is recomputed runs as the forward does, under autograd
        both = eager["backward"] - replayed["backward"] - replayed["recompute"]
        of["recompute"] = both / (counts["backward"] + counts["recompute"])
    return {f"{phase}_s": value for phase, value in of.items()}


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
