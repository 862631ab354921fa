"""A network trained by its traced step on lanes, and by PyTorch's own loop: what tests of the executor compare."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from pararev_hw.execution import LaneThreads, StepRun, bind, fresh_optimizer_state, network_state
from pararev_hw.tracing import Traced
from pararev_hw.training.step import OPTIMIZERS
from pararev_hw.types import BlockGraph
from tests.helpers.real_step import default_loss

Batch = tuple[torch.Tensor, torch.Tensor | None]


def batches(
    shape: tuple[int, ...], count: int, *, classes: int = 10, dtype: torch.dtype = torch.float64
) -> list[Batch]:
    """Inputs and targets, the same for the same shape."""
    g = torch.Generator().manual_seed(7)
    return [
        (torch.randn(shape, generator=g, dtype=dtype), torch.randint(0, classes, (shape[0],), generator=g))
        for _ in range(count)
    ]


def random_lanes(graph: BlockGraph, lanes: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """A random topological order of the tasks, each on a random lane."""
    draw = random.Random(seed)
    missing = [0] * len(graph.tasks)
    for e in graph.edges:
        missing[e.dst] += 1
    ready = [k for k, count in enumerate(missing) if count == 0]
    orders: list[list[int]] = [[] for _ in range(lanes)]
    while ready:
        k = ready.pop(draw.randrange(len(ready)))
        orders[draw.randrange(lanes)].append(k)
        for e in graph.edges:
            if e.src == k:
                missing[e.dst] -= 1
                if missing[e.dst] == 0:
                    ready.append(e.dst)
    return tuple(map(tuple, orders))


def in_order(graph: BlockGraph) -> tuple[tuple[int, ...], ...]:
    """All tasks on one lane."""
    return (tuple(range(len(graph.tasks))),)


def trained_on_lanes(
    model: nn.Module,
    traced: Traced,
    orders: Sequence[Sequence[int]],
    data: Sequence[Batch],
    *,
    optimizer: str = "sgd",
    seeds: Sequence[int | None] | None = None,
) -> tuple[dict[str, torch.Tensor], list[StepRun]]:
    """Parameters and buffers after the steps, gradients and loss of the last one; and how each step ran."""
    model = copy.deepcopy(model).train()
    state = network_state(model) | fresh_optimizer_state(model, OPTIMIZERS[optimizer])
    x, y = data[0]
    state |= {"input:0": x.clone()} | ({} if y is None else {"target:0": y.clone()})
    step = bind(traced.graph, traced.program, state, orders)
    runs = []
    with LaneThreads(step) as lanes:
        for n, (x, y) in enumerate(data):
            state["input:0"].copy_(x)
            if y is not None:
                state["target:0"].copy_(y)
            runs.append(lanes.run(None if seeds is None else seeds[n]))
        results = {k: v.clone() for k, v in step.results().items() if not k.startswith("output:")}
    return network_state(model) | results, runs


def trained_by_loop(model: nn.Module, data: Sequence[Batch], *, optimizer: str = "sgd") -> dict[str, torch.Tensor]:
    """The same by plain autograd."""
    model = copy.deepcopy(model).train()
    chosen = OPTIMIZERS[optimizer]([p for p in model.parameters() if p.requires_grad])
    for x, y in data:
        chosen.zero_grad()
        out = model(x)
        loss = default_loss(out, y) if y is not None else default_loss(out, torch.empty(0))
        loss.backward()
        chosen.step()
    gradients = {f"gradient:{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return network_state(model) | gradients | {"loss": loss.detach()}


def never_two_at_once(run: StepRun) -> bool:
    """Whether every lane ran one task at a time."""
    lanes: dict[int, list[tuple[float, float]]] = {}
    for t in run.tasks:
        lanes.setdefault(t.lane, []).append((t.start_s, t.end_s))
    return all(a[1] <= b[0] for own in lanes.values() for a, b in pairwise(sorted(own)))


def keeps_edges(graph: BlockGraph, run: StepRun) -> bool:
    """Whether no task started before one that it depends on had ended."""
    at: Mapping[int, tuple[float, float]] = {t.task: (t.start_s, t.end_s) for t in run.tasks}
    return all(at[e.src][1] <= at[e.dst][0] for e in graph.edges)
