"""How much of a step has no formula: what an answer says before anything else."""

from __future__ import annotations

from pararev_hw.reports import units
from pararev_hw.types import BlockGraph

NAMED = 3  # operators that are named


def unknown_work_lines(graph: BlockGraph) -> tuple[str, ...]:
    """A sentence where operations have no formula: how many, what share of the step's bytes they move, which."""
    unknown = graph.unknown_ops
    if not unknown:
        return ()
    moved = [graph.op_types[op.type].read_bytes + graph.op_types[op.type].write_bytes for op in graph.ops]
    of_unknown = sum(b for op, b in zip(graph.ops, moved, strict=True) if graph.op_types[op.type].name in unknown)
    share = of_unknown / sum(moved) if sum(moved) else 0.0
    ranked = sorted(unknown, key=lambda name: (-unknown[name], name))
    names = ", ".join(f"{name} ({unknown[name]} times)" for name in ranked[:NAMED])
    more = f" and {len(ranked) - NAMED} more operators" if len(ranked) > NAMED else ""
    count = sum(unknown.values())
    return (
        f"The work of {count:,} of {len(graph.ops):,} operations is unknown, since they have no formula: "
        f"{names}{more}. They move {units.percent(share)} of the step's bytes; their arithmetic is in none of the "
        "figures below.",
    )
