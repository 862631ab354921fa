"""Local search: a seed and a number of steps decide everything, and more steps are never worse."""

from __future__ import annotations

import math
import time

import pytest

from pararev_hw.check import check_schedule
from pararev_hw.errors import BadInput
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import SchedulingProblem
from tests.helpers.scheduler_runs import INSTANCES, run, tight
from tests.helpers.scheduling_problems import NAMED, layered

PROBLEMS = {
    "job shop": read_problem(INSTANCES / "ft06.jsp"),
    "delays": layered(60, 3, width=10, delay_s=1e-4),
    "sharing": layered(60, 3, width=10, demand=0.8),
    "memory": tight(layered(60, 3, width=10), 0.1),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_more_steps_are_never_worse_and_the_same_steps_are_the_same(problem: str) -> None:
    costs: SchedulingProblem = PROBLEMS[problem]
    found = [run(costs, "local-search", iterations=k) for k in (1, 20, 100, 400)]
    for schedule in found:
        check_schedule(costs, schedule)
    spans = [s.makespan_s for s in found]
    assert spans == sorted(spans, reverse=True)
    assert run(costs, "local-search", iterations=100) == found[2]


def test_it_finds_what_list_schedulers_do_not() -> None:
    costs = PROBLEMS["job shop"]
    assert run(costs, "local-search", iterations=3000).makespan_s == 55.0  # its proved optimum
    assert min(run(costs, s).makespan_s for s in ("asap", "heft", "forward-backward")) > 55.0
    shared = PROBLEMS["sharing"]
    assert run(shared, "local-search", iterations=400).makespan_s < run(shared, "heft").makespan_s


def test_another_seed_is_another_search() -> None:
    costs = layered(80, 3, width=10, delay_s=1e-4, uneven=True)
    found = {run(costs, "local-search", iterations=60, seed=k).placements for k in range(4)}
    assert len(found) > 1


def test_the_clock_ends_it() -> None:
    costs = layered(400, 4, delay_s=1e-4, uneven=True)
    begin = time.monotonic()
    schedule = run(costs, "local-search", seconds=0.2, iterations=10**9)
    assert time.monotonic() - begin < 30  # 10^9 steps would take days
    check_schedule(costs, schedule)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seconds": 0.0}, "local-search for .*: give"),
        ({"seconds": math.nan}, "seconds is nan: it must be a number"),
        ({"iterations": 0}, "local-search with .*: give"),
    ],
)
def test_it_refuses_a_budget_that_is_none(options: dict[str, float], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run(NAMED["chain"], "local-search", **options)
