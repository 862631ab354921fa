"""List scheduling within a memory limit that never deadlocks: `safe_dispatch`, in several ways, the best kept.

Ways: the program's order or the one of least peak up the sleeve, tasks by longest way to the end or by that order; then
passes backward and forward, each with the starts of the last as its ranks and as its safe order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.buffer_table import holding, peak_along, waits_that_keep
from pararev_hw.schedulers.evaluate import PROVED, evaluate_orders, makespan
from pararev_hw.schedulers.heft import upward_ranks
from pararev_hw.schedulers.memory_order import least_peak_order
from pararev_hw.schedulers.safe_dispatch import Planned, SafeDispatch
from pararev_hw.simulate import placements, play
from pararev_hw.types import Schedule, SchedulingProblem

PLACEMENTS = 30_000  # tasks placed in all passes together: it bounds the time, without a clock


def schedule(costs: SchedulingProblem) -> Schedule:
    """Within the memory limit wherever the order of least peak that was found is; without a limit, a list schedule.

    It plans without sharing and host clock; the best pass is chosen by what the simulator gives with them. The schedule
    names the waits that keep the limit. Raises Infeasible where not even one task at a time fits.
    """
    found = search(costs, PLACEMENTS)
    if found is None:
        return evaluate_orders(costs, None, "memory-list")
    return evaluate_orders(costs, found.lanes, "memory-list", waits=found.waits)


@dataclass(frozen=True, slots=True)
class Kept:
    """Lane orders and waits that keep the limit, the planned starts, and how long it takes when played."""

    lanes: list[list[int]]
    waits: list[tuple[int, int]]
    starts_s: list[float]
    makespan_s: float


class SafeSearch:
    """A problem and its two directions, with safe orders to begin with; none where nothing that was found fits."""

    def __init__(self, costs: SchedulingProblem) -> None:
        self.costs = costs
        self.held = holding(costs)
        self.forward = SafeDispatch(costs, self.held)
        self.backward = SafeDispatch(costs, self.held, backward=True)
        self.order = costs.topological_order()
        self.enough_s = lower_bound(costs)[0] * (1 + PROVED)
        self.plain = not any(c.compute_demand or c.bandwidth_demand or c.host_s for c in costs.tasks)
        self.levels = upward_ranks(costs, self.order)
        self.spent = 0

    def safe_orders(self) -> list[tuple[int, ...]]:
        """Sequential orders that fit, the program's first."""
        least = least_peak_order(self.costs, self.held)
        tried = dict.fromkeys((self.order, least))
        room = self.costs.memory_limit_bytes
        return [o for o in tried if room is None or peak_along(self.held, o) <= room]

    def climb(self, rank: Sequence[float], order: Sequence[int]) -> Iterator[tuple[Planned, bool]]:
        """Passes forward and backward without end, each from the one before; mirrored ones are marked."""
        while True:
            for mirrored, direction in ((False, self.forward), (True, self.backward)):
                made = direction.run(rank, order)
                self.spent += len(order)
                yield made, mirrored
                # the next pass runs against this one: latest end first, and this one's starts, backward, are safe
                topological = self.order if not mirrored else self.order[::-1]
                by_start = sorted(topological, key=lambda i: (made.starts_s[i], made.ends_s[i]))
                rank, order = [-end_s for end_s in made.ends_s], by_start[::-1]

    def kept(self, made: Planned, mirrored: bool) -> Kept:
        """A pass as lane orders and waits, forward in time."""
        if mirrored:
            end_s = made.makespan_s
            made = Planned(made.lane, [end_s - e for e in made.ends_s], [end_s - s for s in made.starts_s])
        lanes = made.lanes(self.costs.lanes, self.order)
        waits = []
        if self.held.matters:
            waits = waits_that_keep(self.costs, placements(self.costs, made.lane, made.starts_s, made.ends_s))
        took_s = made.makespan_s if self.plain else makespan(play(self.costs, lanes, waits))
        return Kept(lanes, waits, made.starts_s, took_s)


def search(costs: SchedulingProblem, placements: int) -> Kept | None:
    """The best of the ways that `placements` placed tasks allow, None where no order fits the memory."""
    if not costs.tasks:
        return None
    work = SafeSearch(costs)
    best: Kept | None = None
    for order in work.safe_orders():
        for rank in ([-level for level in work.levels], _positions(order)):
            local_s, stale = math.inf, 0
            for made, mirrored in work.climb(rank, order):
                if best is None or not work.plain or made.makespan_s < best.makespan_s:
                    kept = work.kept(made, mirrored)
                    if best is None or kept.makespan_s < best.makespan_s:
                        best = kept
                    if best.makespan_s <= work.enough_s:
                        return best
                stale = 0 if made.makespan_s < local_s else stale + 1
                local_s = min(local_s, made.makespan_s)
                if stale > 3 or work.spent >= placements:
                    break
    return best


def _positions(order: Sequence[int]) -> list[float]:
    found = [0.0] * len(order)
    for k, i in enumerate(order):
        found[i] = float(k)
    return found
