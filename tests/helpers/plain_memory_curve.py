"""Live memory over time by going through all storages at every time: what `StepStorages` is checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

from pararev_hw.graph.liveness import lives_throughout, own_at_peak, owned_by
from pararev_hw.types import ROLES, BlockGraph, MemoryCurve, Placement

Span = tuple[float, float]


def plain_memory_curve(
    graph: BlockGraph, placed: Sequence[Placement], makespan_s: float, op_seconds: Sequence[float] | None
) -> MemoryCurve:
    """As `pararev_hw.prediction.memory_curve`."""
    span_of_op = {
        op: span
        for task, p in zip(graph.tasks, placed, strict=True)
        for op, span in zip(task.ops, _spans(p, task.ops, op_seconds), strict=True)
    }
    inside_a_task = set() if op_seconds is not None else _inside_a_task(graph)
    lives = [
        (storage.bytes, storage.role, _life(graph, k, span_of_op))
        for k, storage in enumerate(graph.storages)
        if k not in inside_a_task
    ]
    lives = [(size, role, (born, gone)) for size, role, (born, gone) in lives if born < gone]
    ends = [end for _, _, life in lives for end in life if math.isfinite(end)]
    times = sorted({0.0, makespan_s, *ends})
    live = {
        name: tuple(sum(size for size, role, (born, gone) in lives if role == name and born <= t < gone) for t in times)
        for name in ROLES
    }
    return MemoryCurve(times_s=tuple(times), bytes={name: sizes for name, sizes in live.items() if any(sizes)})


def _spans(placed: Placement, ops: Sequence[int], op_seconds: Sequence[float] | None) -> list[Span]:
    """When each op of a task starts and ends: in proportion to its seconds, evenly where none takes any."""
    if op_seconds is None:
        return [(placed.start_s, placed.end_s)] * len(ops)
    until = list(accumulate(op_seconds[op] for op in ops))
    if until and until[-1] <= 0:
        until = list(range(1, len(ops) + 1))
    ends = [placed.start_s + (placed.end_s - placed.start_s) * (u / until[-1]) for u in until[:-1]]
    return list(pairwise([placed.start_s, *ends, placed.end_s])) if ops else []


def _life(graph: BlockGraph, k: int, span_of_op: dict[int, Span]) -> Span:
    """From the start of the first op that writes or makes a storage to the end of the last that touches it."""
    storage = graph.storages[k]
    if lives_throughout(storage):
        return 0.0, math.inf
    never = math.inf, -math.inf
    makes = [span_of_op.get(n, never) for n, op in enumerate(graph.ops) if k in op.writes or n == storage.born]
    reads = [span_of_op.get(n, never) for n, op in enumerate(graph.ops) if k in op.reads]
    born = min((start for start, _ in makes), default=math.inf)
    gone = max((end for _, end in chain(makes, reads)), default=-math.inf)
    return born, math.inf if storage.freed >= len(graph.ops) and math.isfinite(born) else gone


def _inside_a_task(graph: BlockGraph) -> set[int]:
    """Storages that a task makes and drops by itself, below its own peak."""
    owned = owned_by(graph)
    return set(chain.from_iterable(owned)).difference(*own_at_peak(graph, owned))
