"""What an answer says of a traced step before anything else: what is not known of it and what the user has to tell."""

from __future__ import annotations

from pararev_hw.reports.unknown_work import unknown_work_lines
from pararev_hw.types import AXES_UNKNOWN, BlockGraph


def first_lines(graph: BlockGraph) -> tuple[str, ...]:
    """A sentence each: input axes that nothing tells, operations without a formula."""
    axes = (f"{line[:1].upper()}{line[1:]}." for line in graph.assumptions if line.startswith(AXES_UNKNOWN))
    return (*axes, *unknown_work_lines(graph))
