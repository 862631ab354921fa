"""The longest chain of tasks."""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.types import PHASES, BlockGraph, CriticalPath


def critical_path(graph: BlockGraph, weights: Sequence[float] | None = None) -> CriticalPath:
    """The heaviest chain through the whole step, and within each phase alone.

    `weights` are per task, seconds on a device say; without them a task weighs its flops and vector flops. A phase's
    chain follows only edges between tasks of that phase. Ties go to the task that comes first.
    """
    unit = "work" if weights is None else "time_s"
    weigh = [float(t.flops + t.vector_flops) for t in graph.tasks] if weights is None else list(weights)
    everything = list(range(len(graph.tasks)))
    whole = _longest(graph, weigh, everything)
    phases = {p: [k for k in everything if graph.tasks[k].phase == p] for p in PHASES}
    return CriticalPath(
        tasks=tuple(graph.tasks[k].id for k in whole),
        length=sum(weigh[k] for k in whole),
        by_phase={
            p: tuple(graph.tasks[k].id for k in _longest(graph, weigh, tasks)) for p, tasks in phases.items() if tasks
        },
        weight=unit,
    )


def op_parallelism(graph: BlockGraph, op_seconds: Sequence[float]) -> float:
    """The time of all ops over that of their longest chain: what parallel lanes could give at most if each op were a
    task. 1.0 where nothing takes time."""
    end_s: list[float] = []
    for op, seconds in zip(graph.ops, op_seconds, strict=True):
        end_s.append(seconds + max((end_s[k] for k in op.after), default=0.0))
    longest = max(end_s, default=0.0)
    return sum(op_seconds) / longest if longest > 0 else 1.0


def _longest(graph: BlockGraph, weights: Sequence[float], among: Sequence[int]) -> list[int]:
    inside = set(among)
    before: dict[int, list[int]] = {k: [] for k in among}
    for e in graph.edges:
        if e.src in inside and e.dst in inside:
            before[e.dst].append(e.src)
    best: dict[int, tuple[float, int]] = {}
    for k in among:  # tasks are in a topological order
        reach, via = max(((best[b][0], -b) for b in before[k]), default=(0.0, 1))
        best[k] = (reach + weights[k], -via if before[k] else -1)
    if not best:
        return []
    at = max(best, key=lambda k: (best[k][0], -k))
    path = []
    while at != -1:
        path.append(at)
        at = best[at][1]
    return path[::-1]
