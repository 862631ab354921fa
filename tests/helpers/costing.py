"""Costs of a graph in one call each."""

from __future__ import annotations

from pararev_hw.costmodels import cost
from pararev_hw.types import BlockGraph, Hardware, SchedulingProblem


def costs(
    graph: BlockGraph, hardware: Hardware, *, lanes: int | None = None, launch: str = "eager"
) -> SchedulingProblem:
    """The scheduling problem of a graph on a device."""
    return cost(graph, hardware, launch).problem(lanes)


def op_seconds(graph: BlockGraph, hardware: Hardware, launch: str = "eager") -> tuple[float, ...]:
    """Seconds of each op alone on one lane."""
    return cost(graph, hardware, launch).op_seconds
