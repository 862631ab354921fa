"""The solver proves, or gives a bound that holds and says what it did not find; and it takes alternatives that pay."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.check import check_schedule
from pararev_hw.errors import BadInput
from pararev_hw.schedulers import names
from pararev_hw.schedulers.alternatives import expand, select_alternatives
from pararev_hw.schedulers.ticks import EXACT_TICKS, ticks_for
from pararev_hw.simulate import play
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import Alternative, CommEdge, SchedulingProblem, TaskCost
from tests.helpers.scheduler_runs import INSTANCES, rows, run
from tests.helpers.scheduling_problems import NAMED, all_lane_orders, layered, problems


def best_of_all(costs: SchedulingProblem) -> float:
    return min(max((p.end_s for p in play(costs, lanes)), default=0.0) for lanes in all_lane_orders(costs))


@given(problems(max_tasks=5, sharing=False, host=False))
@settings(max_examples=60, deadline=None)
def test_it_proves_the_best_of_all_schedules(costs: SchedulingProblem) -> None:
    schedule = run(costs, "exact")
    assert schedule.optimal
    assert schedule.makespan_s == pytest.approx(best_of_all(costs))


@given(problems(max_tasks=4))
@settings(max_examples=30, deadline=None)
def test_its_bound_holds_with_sharing_and_a_host_too(costs: SchedulingProblem) -> None:
    # no assertion on the makespan: where tasks slow each other down, a wait may beat every order without one
    assert run(costs, "exact").lower_bound_s <= best_of_all(costs) * (1 + 1e-12)


DEAR = ("heterogeneous lanes", "comm delays", "contention", "everything")  # hard problems of 120 tasks


@pytest.mark.parametrize("problem", [pytest.param(p, marks=[pytest.mark.slow] * (p in DEAR)) for p in NAMED])
def test_no_other_scheduler_is_faster(problem: str) -> None:
    costs = NAMED[problem]
    exact = run(costs, "exact")
    for name in names():
        assert exact.makespan_s <= run(costs, name).makespan_s
        assert exact.lower_bound_s <= run(costs, name).makespan_s * (1 + 1e-12)


@pytest.mark.parametrize("row", [r for r in rows("stg_optimum.csv") if r["file"].startswith("50")], ids=str)
def test_it_proves_standard_task_graphs(row: dict[str, str]) -> None:
    for lanes in (2, 4, 8, 16):
        costs = read_problem(INSTANCES / row["file"], lanes=lanes)
        schedule = run(costs, "exact", workers=8, seconds=20.0)
        check_schedule(costs, schedule)
        assert schedule.optimal and schedule.makespan_s == int(row[f"opt_m{lanes}"])


@pytest.mark.parametrize(("file", "optimum"), [("ft06.jsp", 55), ("la01", 666)])
def test_it_proves_job_shops(file: str, optimum: int) -> None:
    schedule = run(read_problem(INSTANCES / file, format="jsp"), "exact", workers=8, seconds=60.0)
    assert schedule.optimal and schedule.makespan_s == optimum


@pytest.mark.slow
@pytest.mark.parametrize("row", rows("jsp_optimum.csv"), ids=lambda r: r["file"])
def test_it_proves_each_job_shop_in_a_minute(row: dict[str, str]) -> None:
    file = next(INSTANCES / f for f in (row["file"], f"{row['file']}.jsp") if (INSTANCES / f).exists())
    schedule = run(read_problem(file, format="jsp"), "exact", workers=8, seconds=60.0)
    assert schedule.optimal and schedule.makespan_s == int(row["optimum"])


def test_where_nothing_better_is_found_it_says_so_and_gives_the_warm_start() -> None:
    costs = layered(60, 3, width=15, delay_s=1e-4, uneven=True)
    schedule = run(costs, "exact", workers=1, seconds=1e-6)
    check_schedule(costs, schedule)
    assert not schedule.optimal and schedule.lower_bound_s < schedule.makespan_s
    assert len(schedule.notes) == 1
    assert schedule.notes[0].startswith("no better schedule than that of ")
    assert schedule.notes[0].endswith("the solver ended as unknown")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seconds": 0.0}, "both must be positive"),
        ({"seconds": math.nan}, "seconds is nan: it must be a number"),
        ({"seconds": math.inf}, "seconds is inf: it must be a number"),
        ({"workers": 0}, "both must be positive"),
    ],
)
def test_it_refuses_a_budget_that_is_none(options: dict[str, float], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run(NAMED["chain"], "exact", **options)


@given(st.lists(st.decimals(0, 100, places=3), max_size=6), st.integers(1, 1000))
def test_decimal_times_are_whole_ticks(times: list[Fraction], horizon: int) -> None:
    floats = [float(t) for t in times]
    ticks = ticks_for(floats, float(horizon))
    assert ticks.exact
    for t, f in zip(times, floats, strict=True):
        assert ticks.quantum_s * ticks.floor(f) == Fraction(t) == ticks.quantum_s * ticks.ceil(f)


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=6))
def test_ticks_that_are_rounded_lose_time_and_never_gain_any(times: list[float]) -> None:
    ticks = ticks_for(times, sum(times))
    for t in times:
        assert ticks.quantum_s * ticks.floor(t) <= Fraction(repr(t)) <= ticks.quantum_s * ticks.ceil(t)
    assert Fraction(repr(sum(times))) / ticks.quantum_s <= EXACT_TICKS


def chosen_by_hand(costs: SchedulingProblem, alternatives: tuple[Alternative, ...]) -> float:
    """The best of all schedules under every set of alternatives that do not exclude each other."""
    problem = expand(costs, alternatives)
    best = math.inf
    for count in range(len(alternatives) + 1):
        for chosen in combinations(range(len(alternatives)), count):
            replaced = [i for a in chosen for i in alternatives[a].replaces]
            if len(set(replaced)) == len(replaced):
                best = min(best, best_of_all(select_alternatives(costs, problem, chosen)))
    return best


FORK = SchedulingProblem(  # a feeds b and c; d joins them
    "toy",
    2,
    tuple(
        TaskCost(t, (s, s), memory_bytes=m) for t, s, m in (("a", 1.0, 4), ("b", 3.0, 2), ("c", 3.0, 2), ("d", 1.0, 1))
    ),
    (CommEdge(0, 1, 0.5), CommEdge(0, 2, 0.5), CommEdge(1, 3, 0.5), CommEdge(2, 3, 0.5)),
)
FUSED = Alternative(
    "fuse b + c", "fuse", (1, 2), (TaskCost("bc", (4.0, 4.0), memory_bytes=4),), {0: (0,), 1: (0,)}, {2: (0,), 3: (0,)}
)
SPLIT = Alternative(
    "split c",
    "split",
    (2,),
    (TaskCost("c1", (1.0, 1.0), memory_bytes=1), TaskCost("c2", (1.5, 1.5), memory_bytes=1)),
    {1: (0, 1)},
    {3: (0, 1)},
)


@pytest.mark.parametrize(
    "alternatives", [(), (FUSED,), (SPLIT,), (FUSED, SPLIT)], ids=lambda a: "+".join(x.kind for x in a) or "none"
)
@pytest.mark.parametrize("delay_s", [0.0, 0.5, 3.0])
def test_alternatives_are_taken_where_they_pay(alternatives: tuple[Alternative, ...], delay_s: float) -> None:
    costs = replace(FORK, edges=tuple(replace(e, delay_s=delay_s) for e in FORK.edges))
    schedule = run(costs, "exact", alternatives=alternatives)
    chosen = [k for k, a in enumerate(alternatives) if a.name in schedule.chosen]
    settled = select_alternatives(costs, expand(costs, alternatives), chosen)
    check_schedule(settled, schedule)
    assert schedule.makespan_s == pytest.approx(chosen_by_hand(costs, alternatives))
    assert schedule.lower_bound_s == pytest.approx(schedule.makespan_s)


def test_fusing_pays_where_data_takes_long_to_move() -> None:
    costs = replace(FORK, edges=tuple(replace(e, delay_s=3.0) for e in FORK.edges))
    assert run(costs, "exact", alternatives=(FUSED,)).chosen == ("fuse b + c",)
    assert run(replace(FORK, edges=FORK.edges[:2]), "exact", alternatives=(FUSED,)).chosen == ()


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_alternatives_of_random_problems(seed: int) -> None:
    draw = random.Random(seed)
    times = [draw.randint(1, 5) / 2 for _ in range(4)]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4) if draw.random() < 0.4]
    edges = tuple(CommEdge(i, j, draw.choice([0.0, 1.0])) for i, j in pairs)
    costs = SchedulingProblem(
        "toy", 2, tuple(TaskCost(f"t{i}", (t, t), memory_bytes=1) for i, t in enumerate(times)), edges
    )
    i = draw.randrange(4)
    into = {k: (0,) for k, e in enumerate(edges) if e.dst == i}
    onward = {k: (1,) for k, e in enumerate(edges) if e.src == i}
    parts = (TaskCost("p", (times[i] / 2,) * 2, memory_bytes=1), TaskCost("q", (times[i] / 4,) * 2, memory_bytes=1))
    split = Alternative(
        "split", "split", (i,), parts, into, onward, internal_edges=(CommEdge(0, 1, draw.choice([0.0, 2.0])),)
    )
    schedule = run(costs, "exact", alternatives=(split,))
    assert schedule.makespan_s == pytest.approx(chosen_by_hand(costs, (split,)))
