"""What holds of every traced graph."""

from __future__ import annotations

import networkx as nx

from pararev_hw.types import BlockGraph


def assert_sound(graph: BlockGraph) -> None:
    """Acyclic, tasks in a topological order, each op in one task at most, and only views in none."""
    assert all(e.src < e.dst for e in graph.edges)
    assert nx.is_directed_acyclic_graph(nx.DiGraph((e.src, e.dst) for e in graph.edges))
    owner = {k: t for t, task in enumerate(graph.tasks) for k in task.ops}
    assert len(owner) == sum(len(t.ops) for t in graph.tasks)
    assert all(graph.op_types[op.type].kind == "view" for k, op in enumerate(graph.ops) if k not in owner)
    edges = {(e.src, e.dst) for e in graph.edges}
    for k, op in enumerate(graph.ops):
        for a in op.after:
            assert a < k
            if a in owner and k in owner and owner[a] != owner[k]:
                assert (owner[a], owner[k]) in edges
