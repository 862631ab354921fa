"""Random and named scheduling problems that the tests of simulate, check, bounds and schedulers share."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping

from hypothesis import strategies as st

from pararev_hw.types import CommEdge, SchedulingProblem, TaskCost

# Multiples of 1/4: sums are exact, so that ties are ties.
QUARTERS = st.integers(0, 12).map(lambda k: k / 4)
DEMANDS = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5])


@st.composite
def problems(
    draw: st.DrawFn,
    max_tasks: int = 7,
    max_lanes: int = 3,
    sharing: bool = True,
    host: bool = True,
    restricted: bool = True,
) -> SchedulingProblem:
    """Few tasks with every feature of a problem, and edges that do not follow the index."""
    n = draw(st.integers(0, max_tasks))
    lanes = draw(st.integers(1, max_lanes))
    uniform = draw(st.booleans())
    shared = sharing and draw(st.booleans())
    hosted = host and draw(st.booleans())
    tasks = []
    for i in range(n):
        times = [draw(QUARTERS)] * lanes if uniform else [draw(QUARTERS) for _ in range(lanes)]
        if restricted and draw(st.integers(0, 3)) == 0:
            allowed = draw(st.sets(st.integers(0, lanes - 1), min_size=1))
            times = [t if k in allowed else math.inf for k, t in enumerate(times)]
        tasks.append(
            TaskCost(
                f"t{i}",
                tuple(times),
                draw(DEMANDS) if shared else 0.0,
                draw(DEMANDS) if shared else 0.0,
                draw(QUARTERS) if hosted else 0.0,
                draw(st.integers(0, 9)),
                {"compute": draw(QUARTERS)},
            )
        )
    rank = draw(st.permutations(range(n)))
    pairs = [(rank[a], rank[b]) for a in range(n) for b in range(a + 1, n)]
    chosen = draw(st.sets(st.sampled_from(pairs), max_size=8)) if pairs else set()
    delayed = draw(st.booleans())
    edges = [CommEdge(a, b, draw(QUARTERS) if delayed else 0.0, 1, 0.5) for a, b in sorted(chosen)]
    return SchedulingProblem("toy", lanes, tuple(tasks), tuple(edges), static_bytes=5, static_power_w=2.0)


@st.composite
def lane_orders(draw: st.DrawFn, costs: SchedulingProblem, legal: bool = True) -> tuple[tuple[int, ...], ...]:
    """Any assignment to allowed lanes, in a topological order or (not `legal`) in any order."""
    n = len(costs.tasks)
    order = list(draw(st.permutations(range(n))))
    if legal:
        key = {i: k for k, i in enumerate(order)}
        before = {i: {e.src for e in costs.edges if e.dst == i} for i in range(n)}
        order = []
        while len(order) < n:
            free = [i for i in range(n) if i not in order and before[i] <= set(order)]
            order.append(min(free, key=key.__getitem__))
    lanes: list[list[int]] = [[] for _ in range(costs.lanes)]
    for i in order:
        lanes[draw(st.sampled_from([k for k, t in enumerate(costs.tasks[i].times_s) if t < math.inf]))].append(i)
    return tuple(map(tuple, lanes))


def all_lane_orders(costs: SchedulingProblem) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every assignment to allowed lanes in every order that does not contradict the edges."""
    n = len(costs.tasks)
    reach = [[False] * n for _ in range(n)]
    for e in costs.edges:
        reach[e.src][e.dst] = True
    for k, i, j in itertools.product(range(n), repeat=3):
        reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    choices = [[k for k, t in enumerate(c.times_s) if t < math.inf] for c in costs.tasks]
    seen = set()
    for order in itertools.permutations(range(n)):
        if any(reach[b][a] for a, b in itertools.combinations(order, 2)):
            continue
        for assignment in itertools.product(*choices):
            lanes = tuple(tuple(i for i in order if assignment[i] == k) for k in range(costs.lanes))
            if lanes not in seen:
                seen.add(lanes)
                yield lanes


def layered(
    n: int,
    lanes: int,
    *,
    seed: int = 0,
    width: int = 100,
    demand: float = 0.0,
    host_s: float = 0.0,
    delay_s: float = 0.0,
    uneven: bool = False,
) -> SchedulingProblem:
    """A wide random graph in layers, three predecessors on average, times of 10 to 100 us."""
    rng = random.Random(seed)
    tasks, edges = [], []
    for i in range(n):
        time_s = rng.uniform(1e-5, 1e-4)
        times_s = tuple(time_s * (rng.uniform(0.5, 2) if uneven else 1.0) for _ in range(lanes))
        tasks.append(
            TaskCost(f"t{i}", times_s, demand * rng.random(), demand * rng.random(), host_s, rng.randrange(1000))
        )
        first = (i // width - 1) * width
        for p in rng.sample(range(first, first + width), rng.randint(1, 5)) if first >= 0 else ():
            edges.append(CommEdge(p, i, delay_s * rng.random()))
    return SchedulingProblem("layered", lanes, tuple(tasks), tuple(edges))


def _simple(times: list[tuple[float, ...]], edges: list[tuple[int, int]] = [], **demands: float) -> SchedulingProblem:  # noqa: B006
    tasks = tuple(TaskCost(f"t{i}", t, **demands) for i, t in enumerate(times))
    return SchedulingProblem("named", len(times[0]) if times else 2, tasks, tuple(CommEdge(a, b) for a, b in edges))


NAMED: Mapping[str, SchedulingProblem] = {
    "empty": _simple([]),
    "single task": _simple([(1.5, 2.5)]),
    "disconnected": _simple([(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]),
    "chain": _simple([(0.1, 0.1)] * 5, [(i, i + 1) for i in range(4)]),
    "chain against the index": _simple([(0.1, 0.1)] * 5, [(i + 1, i) for i in range(4)]),
    "zero-cost tasks": _simple([(0.0, 0.0)] * 6, [(0, 3), (1, 3), (3, 5)]),
    "zero-cost between others": _simple([(1.0,) * 2, (0.0,) * 2, (1.0,) * 2, (0.0,) * 2], [(0, 1), (1, 2), (0, 3)]),
    "very wide": _simple([(1.0 + i / 500,) * 4 for i in range(250)], [(0, i) for i in range(1, 249)]),
    "more lanes than tasks": _simple([(1.0,) * 8, (2.0,) * 8]),
    "one lane": layered(60, 1, width=10),
    "heterogeneous lanes": layered(60, 3, width=12, uneven=True),
    "restricted lanes": _simple(
        [(1.0, math.inf, math.inf), (math.inf, 2.0, math.inf), (math.inf, 1.0, 3.0), (2.0, 2.0, 2.0)], [(0, 1), (1, 2)]
    ),
    "comm delays": layered(60, 3, width=12, delay_s=1e-4),
    "delays longer than the work": layered(60, 2, width=10, delay_s=1e-2),
    "contention": layered(60, 3, width=12, demand=1.0),
    "host clock": layered(60, 3, width=12, host_s=5e-5),
    "everything": layered(60, 3, width=12, demand=1.0, host_s=1e-5, delay_s=1e-4, uneven=True),
}
