"""List scheduling within a memory limit that never deadlocks: `safe_dispatch`, in several ways, the best kept.

Ways: the program's order or the one of least peak as a fallback, tasks by longest way to the end or by that order; then
passes backward and forward, each with the starts of the last as its ranks and as its safe order.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.schedulers.buffer_table import AddedWaits, buffer_table_of, by_start
from pararev_hw.schedulers.deadline import NEVER, Deadline
from pararev_hw.schedulers.evaluate import PROVED, evaluate_orders
from pararev_hw.schedulers.heft import upward_ranks
from pararev_hw.schedulers.memory_order import peak_by_order
from pararev_hw.schedulers.safe_dispatch import Planned, SafeDispatch
from pararev_hw.simulate import timeline
from pararev_hw.types import Schedule, SchedulingProblem

MOST_TASKS_REMEMBERED = 10_000  # of a pass: of more tasks there are too few passes for one to come again
PLACEMENTS = 30_000  # tasks placed in all passes together: it bounds the time, without a clock


def schedule(problem: SchedulingProblem) -> Schedule:
    """Within the memory limit wherever the order of least peak that was found is; without a limit, a list schedule.

    It plans without sharing and host clock; the best pass is chosen by what the simulator gives with them. The schedule
    names the waits that keep the limit. Raises Infeasible where not even one task at a time fits.
    """
    return schedule_by(problem, NEVER)


def schedule_by(problem: SchedulingProblem, deadline: Deadline) -> Schedule:
    """The same in the passes before the deadline, at least one."""
    bound = lower_bound(problem)
    listed = search(problem, PLACEMENTS, bound, deadline)
    if listed is None:
        return evaluate_orders(problem, None, "memory-list", problem_bound=bound)
    return evaluate_orders(problem, listed.lanes, "memory-list", waits=listed.waits, problem_bound=bound)


@dataclass(frozen=True, slots=True)
class ListedOrders:
    """Lane orders and waits that keep the limit, the planned starts, and how long it takes when played."""

    lanes: list[list[int]]
    waits: list[tuple[int, int]]
    starts_s: list[float]
    makespan_s: float


class SafeSearch:
    """A problem and its two directions, with safe orders to begin with; none where nothing that was found fits."""

    def __init__(self, problem: SchedulingProblem, bound: tuple[float, str] | None = None) -> None:
        self.problem = problem
        self.held = buffer_table_of(problem)
        self.forward = SafeDispatch(problem, self.held)
        self.backward = SafeDispatch(problem, self.held, backward=True)
        self.order = problem.topological_order()
        self.enough_s = (lower_bound(problem) if bound is None else bound)[0] * (1 + PROVED)
        self.plain = not any(c.compute_demand or c.bandwidth_demand or c.host_s for c in problem.tasks)
        self.levels = upward_ranks(problem)
        self.keeping = AddedWaits(problem)
        self.spent = 0
        self._passes: dict[tuple[bool, tuple[float, ...], tuple[int, ...]], Planned] = {}
        # shared by all limits: what the widest of them leaves free, the next ones often leave free too
        self._candidates: dict[Hashable, ListedOrders] = problem.of_tasks.setdefault("memory-list", {})

    def safe_orders(self) -> list[tuple[int, ...]]:
        """Sequential orders that fit, the program's first."""
        room = self.problem.memory_limit_bytes
        return [order for order, peak in peak_by_order(self.problem).items() if room is None or peak <= room]

    def climb(self, rank: Sequence[float], order: Sequence[int]) -> Iterator[tuple[Planned, bool, bool]]:
        """Passes forward and backward without end, each from the one before; whether it is mirrored, whether it is new.

        More than a third of all passes begin where one has begun before, and are not made again.
        """
        while True:
            for mirrored, direction in ((False, self.forward), (True, self.backward)):
                begins = (mirrored, tuple(rank), tuple(order))
                listed = self._passes.get(begins)
                new = listed is None
                if listed is None:
                    listed = direction.run(rank, order)
                    if len(order) <= MOST_TASKS_REMEMBERED:
                        self._passes[begins] = listed
                self.spent += len(order)
                yield listed, mirrored, new
                # the next pass runs against this one: latest end first, and this one's starts, backward, are safe
                topological = self.order if not mirrored else self.order[::-1]
                started = by_start(topological, listed.starts_s, listed.ends_s)
                rank, order = [-end_s for end_s in listed.ends_s], started[::-1]

    def candidate(self, listed: Planned, mirrored: bool) -> ListedOrders:
        """A pass as lane orders and waits, forward in time; one that was played before is not played again."""
        if len(self.order) > MOST_TASKS_REMEMBERED:
            return self._played(listed, mirrored)
        key = (self.held.matters, mirrored, tuple(listed.lane), tuple(listed.starts_s))
        candidate = self._candidates.get(key)
        if candidate is None:
            candidate = self._candidates[key] = self._played(listed, mirrored)
        return candidate

    def _played(self, listed: Planned, mirrored: bool) -> ListedOrders:
        if mirrored:
            end_s = listed.makespan_s
            listed = Planned(listed.lane, [end_s - e for e in listed.ends_s], [end_s - s for s in listed.starts_s])
        lanes = listed.lanes(self.problem.lanes, self.order)
        waits = []
        if self.held.matters:
            waits = self.keeping.between(listed.lane, listed.starts_s, listed.ends_s)
        took_s = listed.makespan_s if self.plain else timeline(self.problem, lanes, waits).makespan_s
        return ListedOrders(lanes, waits, listed.starts_s, took_s)


def search(
    problem: SchedulingProblem, placements: int, bound: tuple[float, str] | None = None, deadline: Deadline = NEVER
) -> ListedOrders | None:
    """The best of the ways that `placements` placed tasks allow, or of the passes before the deadline; None where no
    order fits the memory. `bound` is what `lower_bound` gave for the problem, if it was asked."""
    if not problem.tasks:
        return None
    work = SafeSearch(problem, bound)
    best: ListedOrders | None = None
    for order in work.safe_orders():
        for rank in ([-level for level in work.levels], _positions(order)):
            local_s, stale = math.inf, 0
            for listed, mirrored, new in work.climb(rank, order):
                if best is None or (new and not work.plain) or listed.makespan_s < best.makespan_s:
                    candidate = work.candidate(listed, mirrored)
                    if best is None or candidate.makespan_s < best.makespan_s:
                        best = candidate
                    if best.makespan_s <= work.enough_s:
                        return best
                if deadline.passed():
                    return best
                stale = 0 if listed.makespan_s < local_s else stale + 1
                local_s = min(local_s, listed.makespan_s)
                if stale > 3 or work.spent >= placements:
                    break
    return best


def _positions(order: Sequence[int]) -> list[float]:
    listed = [0.0] * len(order)
    for k, i in enumerate(order):
        listed[i] = float(k)
    return listed
