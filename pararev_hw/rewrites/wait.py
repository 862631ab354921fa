"""Recomputation just in time: no earlier than when the gradient that needs it could start otherwise.

The data alone let a recomputation run ahead of the gradients above it, as far as lanes are free, at the price of one
transient graph after the other. This holds it back. Nothing is computed differently: results are bit-equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pararev_hw.graph.reach import which_follow
from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.editing import Edit
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.tracing.tape import Tape
from pararev_hw.types import BlockGraph


def find(draft: Draft) -> tuple[Opportunity, ...]:
    """Recomputing tasks that may start before what else their gradients wait for. The `plan` of each is the pairs of
    lines of which the second is to follow the first."""
    graph = draft.graph
    before: list[set[int]] = [set() for _ in graph.tasks]
    for e in graph.edges:
        before[e.dst].add(e.src)
    owner = {k: i for i, t in enumerate(graph.tasks) for k in t.ops}
    readers = _backward_readers(draft, owner)
    beside = {r: {b for g in tasks for b in before[g] if b != r and b not in tasks} for r, tasks in readers.items()}
    opportunities = []
    for r, late in _unordered(graph, beside).items():
        task = graph.tasks[r]
        first = next((k for k in task.ops if graph.op_types[graph.ops[k].type].kind != "view"), task.ops[0])
        needed = {a for g in readers[r] for k in graph.tasks[g].ops for a in _made_by(draft, k) if owner.get(a) in late}
        # where the step itself does not recompute just in time, neither is there a time to wait for
        if needed and max(needed) < first:
            opportunities.append(
                Opportunity(f"wait {task.id}", "wait", task.ops, tuple((a, first) for a in sorted(needed)))
            )
    return tuple(opportunities)


def _backward_readers(draft: Draft, owner: Mapping[int, int]) -> dict[int, set[int]]:
    """For each task that recomputes a convolution or a product the backward tasks that read what it makes."""
    graph = draft.graph
    tasks_that_read: dict[int, set[int]] = {}
    for k, op in enumerate(graph.ops):
        if op.phase == "backward" and k in owner:
            for s in op.reads:
                tasks_that_read.setdefault(s, set()).add(owner[k])
    readers = {}
    for r, task in enumerate(graph.tasks):
        if task.phase == "recompute" and any(graph.op_types[graph.ops[k].type].flops for k in task.ops):
            recomputed = {s for k in task.ops for s in graph.ops[k].writes if graph.storages[s].born == k}
            readers[r] = {g for s in recomputed for g in tasks_that_read.get(s, ())}
    return readers


def _unordered(graph: BlockGraph, beside: Mapping[int, set[int]]) -> dict[int, set[int]]:
    """For each task those of the tasks beside it that need not come before it, nor after it."""
    edges = [(e.src, e.dst) for e in graph.edges]
    pairs = [pair for r, tasks in beside.items() for b in tasks for pair in ((r, b), (b, r))]
    follows = iter(which_follow(len(graph.tasks), edges, pairs))
    return {r: {b for b in tasks if not any((next(follows), next(follows)))} for r, tasks in beside.items()}


def _made_by(draft: Draft, op: int) -> list[int]:
    """The ops that `op` follows, and for each view those that made what it looks at."""
    makers, open_ops = [], list(draft.graph.ops[op].after)
    while open_ops:
        a = open_ops.pop()
        if draft.graph.op_types[draft.graph.ops[a].type].kind == "view":
            open_ops += draft.graph.ops[a].after
        else:
            makers.append(a)
    return makers


def apply(draft: Draft, chosen: Sequence[Opportunity]) -> Tape:
    """The tape on which the chosen tasks wait."""
    edit = Edit(draft)
    for opportunity in chosen:
        for src, dst in opportunity.plan:
            edit.wait(src, dst)
    return edit.finished()
