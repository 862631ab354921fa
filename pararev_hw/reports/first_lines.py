"""What an answer says of a traced step before anything else: what is not known of it, what the user has to tell, and
what does not train."""

from __future__ import annotations

from pararev_hw.reports.unknown_work import unknown_work_lines
from pararev_hw.types import AXES_UNKNOWN, NO_GRADIENT, BlockGraph


def first_lines(graph: BlockGraph) -> tuple[str, ...]:
    """A sentence each: input axes that nothing tells, parameters without a gradient, operations without a formula."""
    lines = [line for line in graph.assumptions if line.startswith(AXES_UNKNOWN) or f" {NO_GRADIENT}: " in line]
    return (*(f"{line[:1].upper()}{line[1:]}." for line in lines), *unknown_work_lines(graph))
