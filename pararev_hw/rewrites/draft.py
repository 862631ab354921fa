"""A step while it is rewritten: a tape, of which the graph and the program are built when they are asked for.

Rewrites follow each other, and most look at the tape and at what must follow what alone. Building all the rest after
each of them took most of the time of rewriting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pararev_hw.rewrites.opportunity import Kind, Opportunity
from pararev_hw.rewrites.rebuilt import rebuilt
from pararev_hw.rewrites.sums import SumsApart, sums_apart
from pararev_hw.tracing import Traced
from pararev_hw.tracing.build import Followed, followed
from pararev_hw.tracing.tape import Tape
from pararev_hw.types import BlockGraph


@dataclass(frozen=True)  # no slots: cached properties need a place
class Draft:
    """The step `recorded`, changed to do what is on `tape`."""

    recorded: Traced
    tape: Tape

    @cached_property
    def traced(self) -> Traced:
        """The step with its graph and program."""
        if self.tape is self.recorded.tape:
            return self.recorded
        return rebuilt(self.recorded, self.tape, self._followed)

    @cached_property
    def sums_apart(self) -> SumsApart:
        """The tape with sums in place as values of their own, as rewrites look at it: line for line the same."""
        return sums_apart(self.tape)

    @cached_property
    def offered(self) -> dict[Kind, tuple[Opportunity, ...]]:
        """Opportunities by kind, once they were looked for."""
        return {}

    @property
    def values(self) -> Tape:
        """That tape alone."""
        return self.sums_apart.tape

    @property
    def graph(self) -> BlockGraph:
        return self.traced.graph

    @cached_property
    def after(self) -> tuple[tuple[int, ...], ...]:
        """For each line those that it must follow."""
        if self.tape is self.recorded.tape:
            return tuple([op.after for op in self.recorded.graph.ops])
        return self._followed.after

    @cached_property
    def _followed(self) -> Followed:
        return followed(self.tape)
