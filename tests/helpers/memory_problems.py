"""Problems under a memory limit, and the best schedules there are, by trying every one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from pararev_hw.schedulers.buffer_table import buffer_table_of, peak_along
from pararev_hw.types import Buffer, SchedulingProblem
from tests.helpers.scheduling_problems import problems


@st.composite
def limited(draw: st.DrawFn, max_tasks: int = 7, plain: bool = False) -> SchedulingProblem:
    """A problem whose limit some sequential order keeps, and that means something; now and then with buffers."""
    costs = draw(problems(max_tasks=max_tasks, sharing=not plain, host=not plain))
    n = len(costs.tasks)
    if n and draw(st.booleans()):
        users = st.sets(st.integers(0, n - 1), min_size=1, max_size=3).map(lambda u: tuple(sorted(u)))
        buffer = st.builds(Buffer, st.integers(0, 9), users, st.booleans())
        costs = replace(costs, buffers=tuple(draw(st.lists(buffer, min_size=1, max_size=6))))
    held = buffer_table_of(costs)
    low = min((peak_along(held, o) for o in orders(costs)), default=costs.static_bytes)
    high = costs.static_bytes + held.total
    return replace(costs, memory_limit_bytes=draw(st.integers(low, max(low, high))))


def orders(costs: SchedulingProblem) -> Iterator[tuple[int, ...]]:
    """Every sequential order that the edges allow."""
    before = [{e.src for e in edges} for edges in costs.predecessors()]
    for order in itertools.permutations(range(len(costs.tasks))):
        at = {i: k for k, i in enumerate(order)}
        if all(at[j] < at[i] for i in order for j in before[i]):
            yield order


def best_of_limited(costs: SchedulingProblem) -> float:
    """The least makespan within the limit, where tasks take their times: every order of starts on all lanes, each
    start as early as lane, inputs, memory and the start before it allow."""
    best = math.inf
    choices = [[k for k, t in enumerate(c.times_s) if t < math.inf] for c in costs.tasks]
    for order in orders(costs):
        for lanes in itertools.product(*choices):
            best = min(best, _earliest(costs, order, lanes))
    return best


def _earliest(costs: SchedulingProblem, order: tuple[int, ...], lane: tuple[int, ...]) -> float:
    into = costs.predecessors()
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    room = math.inf if costs.memory_limit_bytes is None else costs.memory_limit_bytes - costs.static_bytes
    now = 0.0
    for i in order:
        ready = [ends[e.src] + (e.delay_s if lane[e.src] != lane[i] else 0.0) for e in into[i]]
        ready += [ends[j] for j in starts if lane[j] == lane[i]]
        now = max([now, *ready])
        starts[i] = now
        for then in sorted({now, *(e for e in ends.values() if e > now)}):
            starts[i] = then
            if _alive(costs, starts, ends, then) <= room:
                break
        else:
            return math.inf
        now = starts[i]
        ends[i] = now + costs.tasks[i].times_s[lane[i]]
    return max(ends.values(), default=0.0)


def _alive(costs: SchedulingProblem, starts: dict[int, float], ends: dict[int, float], now: float) -> float:
    """Bytes alive just after `now`, and of what lives no time just then, with everything placed so far."""
    live = 0
    for b in costs.held():
        begun = [starts[i] for i in b.tasks if i in starts]
        if begun:
            first = min(begun)
            over = not b.stays and all(i in ends and ends[i] <= now for i in b.tasks)
            live += b.bytes if not over or first == now else 0
    return live
