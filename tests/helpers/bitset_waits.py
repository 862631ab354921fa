"""Where recomputations can wait, with the ancestors of every task as a set of bits, as it was until 0.2.0."""

from __future__ import annotations

from pararev_hw.rewrites.draft import Draft
from pararev_hw.rewrites.opportunity import Opportunity
from pararev_hw.rewrites.wait import _made_by


def bitset_waits(draft: Draft) -> tuple[Opportunity, ...]:
    """Recomputing tasks that may start before what else their gradients wait for. The `plan` of each is the pairs of
    lines of which the second is to follow the first."""
    graph = draft.graph
    before: list[set[int]] = [set() for _ in graph.tasks]
    ancestors = [0] * len(graph.tasks)  # bit sets of tasks
    for e in graph.edges:
        before[e.dst].add(e.src)
    for i, sources in enumerate(before):
        for s in sources:
            ancestors[i] |= ancestors[s] | 1 << s
    owner = {k: i for i, t in enumerate(graph.tasks) for k in t.ops}
    opportunities = []
    for r, task in enumerate(graph.tasks):
        if task.phase != "recompute" or not any(graph.op_types[graph.ops[k].type].flops for k in task.ops):
            continue
        recomputed = {s for k in task.ops for s in graph.ops[k].writes if graph.storages[s].born == k}
        readers = {owner[k] for k in _readers(draft, recomputed) if k in owner and graph.ops[k].phase == "backward"}
        other = {b for g in readers for b in before[g] if not ancestors[b] >> r & 1 and b != r and b not in readers}
        late = {b for b in other if not ancestors[r] >> b & 1}
        first = next((k for k in task.ops if graph.op_types[graph.ops[k].type].kind != "view"), task.ops[0])
        needed = {a for g in readers for k in graph.tasks[g].ops for a in _made_by(draft, k) if owner.get(a) in late}
        # where the step itself does not recompute just in time, neither is there a time to wait for
        if needed and max(needed) < first:
            opportunities.append(
                Opportunity(f"wait {task.id}", "wait", task.ops, tuple((a, first) for a in sorted(needed)))
            )
    return tuple(opportunities)


def _readers(draft: Draft, storages: set[int]) -> list[int]:
    return [k for k, op in enumerate(draft.graph.ops) if not storages.isdisjoint(op.reads)]
