"""Networks side by side on their fronts: memory at equal time, time at equal memory, the largest batch that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from pararev_hw.types import BlockGraph, Comparison, Prediction, Study

# What does not grow with the batch.
FIXED_ROLES = frozenset(("parameter", "buffer", "optimizer", "gradient"))


@dataclass(frozen=True, slots=True)
class TradeOff:
    """Of one network; None: it has no such point, or the device's memory is not known."""

    memory_at_equal_time_bytes: int | None
    time_at_equal_memory_s: float | None
    largest_batch: int | None


@dataclass(frozen=True, slots=True)
class TradeOffs:
    """`equal_time_s` is the least that every network reaches, `equal_memory_bytes` the least that every one needs."""

    equal_time_s: float
    equal_memory_bytes: int
    networks: tuple[TradeOff, ...]


def trade_offs(comparison: Comparison) -> TradeOffs | None:
    """None where nothing was compared."""
    if not comparison.studies:
        return None
    ways = [_ways(s) for s in comparison.studies]
    time_s = max(min(p.latency_s for p in network_ways) for network_ways in ways)
    memory = max(min(p.peak_bytes for p in network_ways) for network_ways in ways)
    networks = tuple(
        TradeOff(
            min((p.peak_bytes for p in network_ways if p.latency_s <= time_s), default=None),
            min((p.latency_s for p in network_ways if p.peak_bytes <= memory), default=None),
            largest_batch(study),
        )
        for study, network_ways in zip(comparison.studies, ways, strict=True)
    )
    return TradeOffs(time_s, memory, networks)


def _ways(study: Study) -> Sequence[Prediction]:
    return (*study.predictions, *study.front)


def largest_batch(study: Study) -> int | None:
    """The most samples per step whose sequential step fits the limit that was given, or the device's memory: tensors
    that a sample makes grow with the batch, parameters, their gradients and the optimizer's state do not."""
    room = study.memory_limit_bytes if study.limit_given else study.device.get("memory_bytes", math.inf)
    curve = study.sequential.memory.bytes
    if room is None or not math.isfinite(room) or not curve:
        return None
    moments = range(len(next(iter(curve.values()))))
    fixed = [sum(b[k] for role, b in curve.items() if role in FIXED_ROLES) for k in moments]
    grows = [sum(b[k] for role, b in curve.items() if role not in FIXED_ROLES) for k in moments]
    most = min(((room - f) / g for f, g in zip(fixed, grows, strict=True) if g), default=None)
    return None if most is None else max(0, math.floor(most * study.graph.batch))


def same_graphs(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Pairs of networks that do not differ in what runs and in what waits for what: the same work, task by task, and
    the same longest chain of it."""
    shapes = [(s.graph.model, _shape(s.graph)) for s in comparison.studies]
    return tuple((a, b) for (a, x), (b, y) in combinations(shapes, 2) if x == y)


def _shape(graph: BlockGraph) -> tuple[object, ...]:
    work = [t.flops for t in graph.tasks]
    longest = list(work)
    for e in sorted(graph.edges, key=lambda e: e.dst):
        longest[e.dst] = max(longest[e.dst], longest[e.src] + work[e.dst])
    heavy = sorted((t.phase, t.flops) for t in graph.tasks if t.flops)
    return graph.batch, graph.mode, tuple(heavy), max(longest, default=0)
