"""No schedule beats a bound, found by trying every schedule; and every bound is the one that counts somewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linprog

from pararev_hw.schedulers.bounds import linear_program
from pararev_hw.schedulers.bounds.makespan import heads_and_tails, lower_bound, without_pairs
from pararev_hw.simulate import play
from pararev_hw.types import CommEdge, SchedulingProblem, TaskCost
from tests.helpers.scheduling_problems import NAMED, all_lane_orders, layered, problems


def best_of_all(costs: SchedulingProblem) -> float:
    """The best makespan over all assignments and orders (tasks start as soon as they can)."""
    return min(max((p.end_s for p in play(costs, lanes)), default=0.0) for lanes in all_lane_orders(costs))


@given(problems(max_tasks=4))
@settings(max_examples=150, deadline=None)
def test_no_schedule_of_all_beats_the_bound(costs: SchedulingProblem) -> None:
    assert lower_bound(costs)[0] <= best_of_all(costs) * (1 + 1e-12)


@given(problems(max_tasks=6, max_lanes=2))
@settings(max_examples=25, deadline=None)
def test_no_schedule_of_six_tasks_beats_the_bound(costs: SchedulingProblem) -> None:
    assert lower_bound(costs)[0] <= best_of_all(costs) * (1 + 1e-12)


@given(problems(max_tasks=6, max_lanes=2))
@settings(max_examples=60, deadline=None)
def test_a_bound_without_pairs_is_below_the_whole_one_and_does_not_stand_for_it(costs: SchedulingProblem) -> None:
    whole = lower_bound(replace(costs))
    with without_pairs():
        assert lower_bound(costs)[0] <= whole[0]
    assert lower_bound(costs) == whole
    with without_pairs():
        assert lower_bound(costs) == whole  # it is there


@given(problems(max_tasks=5, max_lanes=3, sharing=False, host=False))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_never_below_the_critical_path_and_the_work_over_lanes(costs: SchedulingProblem) -> None:
    best = [c.best_s for c in costs.tasks]

    def longest(i: int) -> float:
        return best[i] + max((longest(e.dst) for e in costs.edges if e.src == i), default=0.0)

    path = max(map(longest, range(len(best))), default=0.0)
    assert lower_bound(costs)[0] >= max(path, sum(best) / costs.lanes) * (1 - 1e-12)


def problem(
    times: list[tuple[float, ...]],
    edges: list[tuple[int, int]],
    *,
    compute: float = 0,
    bandwidth: float = 0,
    host: float = 0,
) -> SchedulingProblem:
    tasks = tuple(TaskCost(f"t{i}", t, compute, bandwidth, host) for i, t in enumerate(times))
    return SchedulingProblem("toy", len(times[0]), tasks, tuple(CommEdge(a, b) for a, b in edges))


INF = math.inf
TIGHT = {  # name -> problem, optimum: worked out by hand
    "critical path": (problem([(1.0, 2.0), (3.0, 1.0), (1.0, 1.0)], [(0, 1)]), 2.0),
    "work over lanes": (problem([(1.0, 1.0)] * 6, []), 3.0),
    # 1 s first, then four tasks of 1 s on two lanes, then 1 s more: 1 + 4/2 + 1
    "head-body-tail": (problem([(1.0, 1.0)] * 6, [(0, i) for i in range(1, 5)] + [(i, 5) for i in range(1, 5)]), 4.0),
    # three tasks of 1 s confined to lane 1, behind one of 0.5 s
    "work on lane 1": (problem([(0.5, 0.5)] + [(INF, 1.0)] * 3, [(0, i) for i in range(1, 4)]), 3.5),
    # four tasks confined to lanes 0 and 2 of four lanes
    "work on lane 0, 2": (problem([(1.0, INF, 1.0, INF)] * 4, []), 2.0),
    "shared compute": (problem([(1.0, 1.0, 1.0)] * 3, [], compute=0.5), 1.5),
    "shared bandwidth": (problem([(1.0, 1.0, 1.0)] * 3, [], bandwidth=1.0), 3.0),
    "host clock": (problem([(1.0, 1.0)] * 2, [], host=2.0), 4.0),
    "nothing to do": (problem([(0.0, 0.0)] * 2, [(0, 1)]), 0.0),
}


@pytest.mark.parametrize("name", TIGHT)
def test_a_bound_is_met_exactly_where_it_is_the_one_that_counts(name: str) -> None:
    costs, optimum = TIGHT[name]
    assert lower_bound(costs) == (pytest.approx(optimum), name)
    assert best_of_all(costs) == pytest.approx(optimum) if len(costs.tasks) < 6 else True


def test_tasks_issued_last_still_have_their_tail_before_them() -> None:
    costs = SchedulingProblem("toy", 1, (TaskCost("a", (1.0,), host_s=4.0), TaskCost("b", (3.0,))), (CommEdge(0, 1),))
    assert lower_bound(costs) == (7.0, "host clock")  # 4 s of issuing a, then b


def test_lanes_wait_for_their_first_task() -> None:
    # After a (2.5 s), three follow, and nothing else is there to do: two lanes, both idle for 2.5 s.
    costs = problem([(2.5, 2.5), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], [(0, 1), (0, 2), (0, 3)])
    assert lower_bound(costs)[0] == pytest.approx(4.0)
    assert best_of_all(costs) == pytest.approx(4.5)


def test_whole_times_make_whole_makespans() -> None:
    costs = problem([(4.0, 4.0), (2.0, 2.0), (2.0, 2.0), (2.0, 2.0)], [(0, 1), (0, 2), (0, 3)])
    assert lower_bound(costs)[0] == 8.0 == best_of_all(costs)  # 4 + 6/2 = 7, and all times are multiples of 2


def test_an_empty_problem_takes_no_time() -> None:
    assert lower_bound(NAMED["empty"]) == (0.0, "nothing to do")


def test_heads_and_tails_are_the_longest_ways_in_and_out() -> None:
    costs = NAMED["chain against the index"]
    heads, tails = heads_and_tails(costs, [1.0] * 5)
    assert heads == [4, 3, 2, 1, 0]
    assert tails == [0, 1, 2, 3, 4]


def test_the_bound_scales_with_the_times() -> None:
    small = layered(300, 4, width=30)
    large = SchedulingProblem(
        "x", 4, tuple(TaskCost(c.task, tuple(1000 * t for t in c.times_s)) for c in small.tasks), small.edges
    )
    assert lower_bound(large)[0] == pytest.approx(1000 * lower_bound(small)[0])


@pytest.mark.parametrize("solver", ["its own module", "of another release", "not there"])
def test_the_solver_gives_what_it_gives_through_scipy(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if solver != "its own module":
        monkeypatch.setattr(linear_program, "_solver", lambda: object() if solver == "of another release" else None)
    draw = np.random.default_rng(3)
    for n in (1, 2, 7, 30):
        first, second = np.triu_indices(n, 1)
        chosen = draw.random(len(first)) < 0.6
        first, second = first[chosen], second[chosen]
        worth, most, together = draw.random(n), 1 + draw.random(n), 1 + draw.random(len(first))
        rows = np.zeros((len(first), n))
        rows[np.arange(len(first)), first] = rows[np.arange(len(first)), second] = 1
        bounds = np.column_stack((np.zeros(n), most))
        right = linprog(-worth, *((rows, together) if len(first) else ()), bounds=bounds, method="highs").x
        assert linear_program.most_of_pairs(worth, most, first, second, together) == pytest.approx(right, abs=1e-12)
