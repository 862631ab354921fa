"""Tabu search in job shops: near proved optima, with delays and any precedences, compiled as in plain Python."""

from __future__ import annotations

import math
import random

import pytest

from pararev_hw.check import check_schedule
from pararev_hw.schedulers import heft
from pararev_hw.schedulers.evaluate import makespan_of
from pararev_hw.schedulers.job_shop import TabuSearch, is_job_shop
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import CommEdge, SchedulingProblem, TaskCost
from tests.helpers.scheduler_runs import INSTANCES, run
from tests.helpers.scheduling_problems import all_lane_orders


@pytest.mark.parametrize(("file", "optimum"), [("ft06.jsp", 55), ("la02.jsp", 655), ("ft10.jsp", 930)])
def test_local_search_comes_near_the_optimum_of_a_job_shop(file: str, optimum: int) -> None:
    problem = read_problem(INSTANCES / file)
    schedule = run(problem, "local-search", iterations=600)
    check_schedule(problem, schedule)
    assert optimum <= schedule.makespan_s <= 1.05 * optimum


def shop(draw: random.Random, n: int, lanes: int) -> SchedulingProblem:
    """Tasks of one lane each, any precedences, delays on some of them."""
    tasks = []
    for i in range(n):
        lane, time_s = draw.randrange(lanes), draw.randint(1, 9)
        tasks.append(TaskCost(f"t{i}", tuple(float(time_s) if k == lane else math.inf for k in range(lanes))))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n) if draw.random() < 0.15]
    edges = tuple(CommEdge(a, b, float(draw.choice([0, 0, 3]))) for a, b in pairs)
    return SchedulingProblem("shop", lanes, tuple(tasks), edges)


def test_small_shops_are_solved_and_what_it_says_is_what_is_played() -> None:
    for seed in range(40):
        problem = shop(random.Random(seed), 7, 2)
        assert is_job_shop(problem)
        best_s = min(makespan_of(problem, orders) for orders in all_lane_orders(problem))
        search = TabuSearch(problem, heft.heft_orders(problem), seed, compiled=False)
        search.move(300)
        assert search.best_s == makespan_of(problem, search.best) == best_s


def test_compiled_moves_are_those_of_plain_python() -> None:
    problem = shop(random.Random(7), 40, 5)
    searches = [TabuSearch(problem, heft.heft_orders(problem), 3, compiled) for compiled in (False, True)]
    for search in searches:
        search.move(100)
    assert searches[0].best == searches[1].best
    assert searches[0].best_s == searches[1].best_s < makespan_of(problem, heft.heft_orders(problem))


def test_what_is_no_job_shop_is_told_apart() -> None:
    once = TaskCost("a", (1.0, math.inf))
    for other in (TaskCost("b", (1.0, 1.0)), TaskCost("b", (math.inf, 0.0)), TaskCost("b", (math.inf, 1.0), 0.5)):
        assert not is_job_shop(SchedulingProblem("d", 2, (once, other), ()))
    assert is_job_shop(SchedulingProblem("d", 2, (once, TaskCost("b", (math.inf, 1.0))), ()))
