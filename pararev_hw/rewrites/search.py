"""Which alternatives of a problem to take: a search around any scheduler.

It starts from whatever is best among nothing and everything of some kinds, then goes through the alternatives one by
one and keeps each change that shortens the makespan, until a whole round changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.schedulers.alternatives import expand, select_alternatives
from pararev_hw.schedulers.heft import heft_orders
from pararev_hw.simulate import play, play_sequential
from pararev_hw.types import Alternative, Placement, SchedulingProblem

GAIN = 1e-6  # relative: what shortens a step by less is not worth a change of it


def choose(
    costs: SchedulingProblem,
    alternatives: Sequence[Alternative],
    makespan_s: Callable[[SchedulingProblem], float],
    *,
    trials: int = 400,
) -> tuple[str, ...]:
    """Names of the alternatives to take, in their order; `makespan_s` is asked for `trials` makespans at most.

    Deterministic where `makespan_s` is. Raises Infeasible where that does for every combination that was tried.
    """
    problem = expand(costs, alternatives)
    replaces = [set(a.replaces) for a in alternatives]
    latency_of: dict[frozenset[int], float] = {}

    def makespan(chosen: frozenset[int]) -> float:
        if chosen not in latency_of:
            if len(latency_of) >= trials:
                return math.inf
            try:
                latency_of[chosen] = makespan_s(select_alternatives(costs, problem, sorted(chosen)))
            except (Infeasible, BadInput):  # too large for the memory, or choices that wait for each other
                latency_of[chosen] = math.inf
        return latency_of[chosen]

    def without_rivals(chosen: frozenset[int], a: int) -> frozenset[int]:
        return frozenset(b for b in chosen if replaces[b].isdisjoint(replaces[a]))

    best: frozenset[int] = frozenset()
    for start in _starts(alternatives, replaces):
        if makespan(start) < makespan(best) * (1 - GAIN):
            best = start
    improved = True
    while improved and len(latency_of) < trials:
        improved = False
        for a in range(len(alternatives)):
            other = best - {a} if a in best else without_rivals(best, a) | {a}
            # an alternative that gains nothing goes, one that is not taken must gain
            if makespan(other) < makespan(best) * (1 - GAIN) or (a in best and makespan(other) <= makespan(best)):
                best, improved = other, True
    if makespan(best) == math.inf:
        raise Infeasible("no combination of rewrites fits the memory: raise the limit or lower the batch")
    return tuple(alternatives[a].name for a in sorted(best))


def heft_makespan(costs: SchedulingProblem) -> float:
    """What the scheduler heft reaches, without its bound: several times as fast."""
    played = min((play(costs, heft_orders(costs)), play_sequential(costs)), key=_end)
    return _end(played)


def _end(placements: Sequence[Placement]) -> float:
    return max((p.end_s for p in placements), default=0.0)


def _starts(alternatives: Sequence[Alternative], replaces: Sequence[set[int]]) -> list[frozenset[int]]:
    """For each set of kinds, as many alternatives of these kinds as do not exclude each other: those that combine the
    most kinds first, then in their order."""
    kinds = [_kinds(a) for a in alternatives]
    present = sorted(set().union(*kinds))
    neighbours: dict[frozenset[int], None] = {}
    for size in range(1, len(present) + 1):
        for allowed in combinations(present, size):
            usable = [a for a, alternative_kinds in enumerate(kinds) if alternative_kinds <= set(allowed)]
            starts: list[int] = []
            for a in sorted(usable, key=lambda a: (-len(kinds[a]), a)):
                if all(replaces[a].isdisjoint(replaces[b]) for b in starts):
                    starts.append(a)
            neighbours[frozenset(starts)] = None
    return list(neighbours)


def _kinds(alternative: Alternative) -> frozenset[str]:
    """The kinds in an alternative's name: "fuse a + b; split c"."""
    return frozenset(part.split(" ", 1)[0] for part in alternative.name.split("; "))
