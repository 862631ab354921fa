"""The simulator against a slow one in exact arithmetic that knows no virtual clock and no heap."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.errors import IllegalSchedule
from pararev_hw.simulate import play, play_sequential, sequential_order
from pararev_hw.types import CommEdge, SchedulingProblem, TaskCost
from tests.helpers.scheduling_problems import lane_orders, layered, problems

Times = dict[int, tuple[Fraction, Fraction]]


class Stuck(Exception):
    pass


def crawl(costs: SchedulingProblem, lanes: tuple[tuple[int, ...], ...], *, real: bool = True) -> Times:
    """Steps from one change to the next, asking every task every time. `real=False`: no host, no sharing."""
    where = {i: k for k, order in enumerate(lanes) for i in order}
    before = {order[at]: order[at - 1] for order in lanes for at in range(1, len(order))}
    release, issued = issue_times(costs, lanes) if real else ({}, {})
    left = {i: Fraction(costs.tasks[i].times_s[k]) for i, k in where.items()}
    start: dict[int, Fraction] = {}
    end: dict[int, Fraction] = {}
    now = Fraction(0)

    def ready(i: int) -> Fraction | None:
        """When task i may start, None where that is not known yet."""
        needed = [e for e in costs.edges if e.dst == i]
        if any(e.src not in end for e in needed) or (i in before and before[i] not in end):
            return None
        arrivals = [end[e.src] + (Fraction(e.delay_s) if where[e.src] != where[i] else 0) for e in needed]
        return max([release.get(i, Fraction(0)), Fraction(0), *arrivals, *([end[before[i]]] if i in before else [])])

    while len(end) < len(costs.tasks):
        changed = True
        while changed:  # everything that happens at this very instant
            changed = False
            for i in left:
                if i not in start and (at := ready(i)) is not None and at <= now:
                    start[i], changed = now, True
                if i in start and i not in end and left[i] == 0 and issued.get(i, 0) <= now:
                    end[i], changed = now, True
        working = [i for i in start if left[i] > 0]
        use = [Fraction(1)]
        if real:
            use.append(sum((Fraction(costs.tasks[i].compute_demand) for i in working), Fraction(0)))
            use.append(sum((Fraction(costs.tasks[i].bandwidth_demand) for i in working), Fraction(0)))
        rate = 1 / max(use)
        later = [now + left[i] / rate for i in working]
        later += [issued[i] for i in start if i not in end and left[i] == 0]
        later += [at for i in left if i not in start and (at := ready(i)) is not None]
        if not later:
            if len(end) < len(costs.tasks):
                raise Stuck
            break
        step = min(later) - now
        for i in working:
            left[i] -= step * rate
        now += step
    return {i: (start[i], end[i]) for i in end}


def issue_times(
    costs: SchedulingProblem, lanes: tuple[tuple[int, ...], ...]
) -> tuple[dict[int, Fraction], dict[int, Fraction]]:
    """Of the tasks whose forerunners it has issued, the host takes the one that would start first if undisturbed."""
    free = crawl(costs, lanes, real=False)
    pairs = [(e.src, e.dst) for e in costs.edges]
    pairs += [(order[at - 1], order[at]) for order in lanes for at in range(1, len(order))]
    release: dict[int, Fraction] = {}
    issued: dict[int, Fraction] = {}
    passed: set[int] = set()
    now = Fraction(0)
    while len(passed) < len(free):
        open_ = [i for i in free if i not in passed and all(a in passed for a, b in pairs if b == i)]
        i = min(open_, key=lambda i: (free[i][0], i))
        passed.add(i)
        if costs.tasks[i].host_s > 0:
            release[i], now = now, now + Fraction(costs.tasks[i].host_s)
            issued[i] = now
    return release, issued


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_played_times_equal_an_exact_slow_simulation(data: st.DataObject) -> None:
    costs = data.draw(problems())
    lanes = data.draw(lane_orders(costs))
    exact = crawl(costs, lanes)
    played = {p.task: p for p in play(costs, lanes)}
    for i, c in enumerate(costs.tasks):
        assert i in lanes[played[c.task].lane]
        assert played[c.task].start_s == pytest.approx(float(exact[i][0]), rel=1e-12, abs=1e-12)
        assert played[c.task].end_s == pytest.approx(float(exact[i][1]), rel=1e-12, abs=1e-12)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_orders_deadlock_exactly_where_the_slow_simulation_is_stuck(data: st.DataObject) -> None:
    costs = data.draw(problems(sharing=False, host=False))
    lanes = data.draw(lane_orders(costs, legal=False))
    try:
        crawl(costs, lanes)
    except Stuck:
        with pytest.raises(IllegalSchedule, match="contradict the edges") as caught:
            play(costs, lanes)
        named = str(caught.value).split(": ")[-1].split(" -> ")
        ids = [c.task for c in costs.tasks]
        circle = [ids.index(name.strip("'")) for name in named]
        assert circle[0] == circle[-1] and len(circle) > 2
        for i, j in pairwise(circle):  # each waits for the one before it
            same_lane = any(i in o and j in o and o.index(i) < o.index(j) for o in lanes)
            assert same_lane or (i, j) in {(e.src, e.dst) for e in costs.edges}
    else:
        assert len(play(costs, lanes)) == len(costs.tasks)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_sharing_that_never_exceeds_one_changes_nothing(data: st.DataObject) -> None:
    costs = data.draw(problems(sharing=False))
    lanes = data.draw(lane_orders(costs))
    # One more task asks for more than everything, for no time, behind all others: it only forces the slow path.
    greedy = replace(costs, tasks=(*costs.tasks, TaskCost("z", (0.0,) * costs.lanes, compute_demand=2.0)))
    slow = play(greedy, ((*lanes[0], len(costs.tasks)), *lanes[1:]))
    assert tuple(p for p in slow if p.task != "z") == play(costs, lanes)


@given(problems())
@settings(max_examples=200, deadline=None)
def test_sequential_is_what_playing_its_one_lane_gives(costs: SchedulingProblem) -> None:
    found = play_sequential(costs)
    busy = sorted(found, key=lambda p: (p.start_s, p.end_s))
    for before, after in pairwise(busy):
        assert after.start_s >= before.end_s  # never two at once, whatever the lanes
    allowed = [k for k in range(costs.lanes) if all(c.times_s[k] < math.inf for c in costs.tasks)]
    if allowed and costs.tasks:
        main = min(allowed, key=lambda k: (sum(c.times_s[k] for c in costs.tasks), k))
        orders = [sequential_order(costs) if k == main else () for k in range(costs.lanes)]
        assert found == play(costs, orders)


def test_two_tasks_that_both_want_all_bandwidth_take_twice_as_long() -> None:
    tasks = tuple(TaskCost(name, (3.0, 3.0), bandwidth_demand=1.0) for name in "ab")
    ends = [p.end_s for p in play(SchedulingProblem("toy", 2, tasks, ()), [[0], [1]])]
    assert ends == [6.0, 6.0]


def test_a_task_gains_speed_when_its_rival_has_ended() -> None:
    tasks = (TaskCost("long", (3.0, 3.0), 0.75), TaskCost("short", (1.0, 1.0), 0.75))
    long, short = play(SchedulingProblem("toy", 2, tasks, ()), [[0], [1]])
    assert (short.end_s, long.end_s) == (1.5, 3.5)  # 1 s of each at rate 1/1.5, then 2 s alone


def test_short_tasks_end_when_the_host_has_issued_them() -> None:
    tasks = tuple(TaskCost(f"t{i}", (0.5,), host_s=1.0) for i in range(3))
    assert [(p.start_s, p.end_s) for p in play(SchedulingProblem("toy", 1, tasks, ()), [[0, 1, 2]])] == [
        (0, 1),
        (1, 2),
        (2, 3),
    ]


def test_long_tasks_hide_the_host() -> None:
    tasks = tuple(TaskCost(f"t{i}", (2.0,), host_s=1.0) for i in range(3))
    assert [(p.start_s, p.end_s) for p in play(SchedulingProblem("toy", 1, tasks, ()), [[0, 1, 2]])] == [
        (0, 2),
        (2, 4),
        (4, 6),
    ]


def test_data_arrives_late_on_another_lane_only() -> None:
    tasks = tuple(TaskCost(f"t{i}", (1.0, 1.0)) for i in range(3))
    costs = SchedulingProblem("toy", 2, tasks, (CommEdge(0, 1, 0.5), CommEdge(0, 2, 0.5)))
    assert [p.start_s for p in play(costs, [[0, 1], [2]])] == [0.0, 1.0, 1.5]


def test_one_at_a_time_where_no_lane_may_run_everything_still_waits_for_data() -> None:
    # a (1 s) and b (1 s) on lane 0; x only on lane 1, 0.5 s after a; then b, 0.5 s after x
    tasks = (TaskCost("a", (1.0, math.inf)), TaskCost("x", (math.inf, 2.0)), TaskCost("b", (1.0, math.inf)))
    costs = SchedulingProblem("toy", 2, tasks, (CommEdge(0, 1, 0.5), CommEdge(1, 2, 0.5)))
    assert [(p.task, p.lane, p.start_s) for p in play_sequential(costs)] == [
        ("a", 0, 0.0),
        ("x", 1, 1.5),
        ("b", 0, 4.0),
    ]


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        ([[0, 1]], r"1 lane orders for 2 lanes"),
        ([[0, 1], [1]], r"'b' runs twice, on lane 0 and on lane 1"),
        ([[0], []], r"'b' runs on no lane"),
        ([[0, 1, 2], []], r"lane 0 runs task number 2: there are 2 tasks"),
        ([[1], [0]], r"'a' runs on lane 1, where it may not"),
        ([[1, 0], []], r"'a' -> 'b' -> 'a'|'b' -> 'a' -> 'b'"),
    ],
)
def test_orders_that_make_no_sense_are_refused(lanes: list[list[int]], message: str) -> None:
    costs = SchedulingProblem("toy", 2, (TaskCost("a", (1.0, math.inf)), TaskCost("b", (1.0, 1.0))), (CommEdge(0, 1),))
    with pytest.raises(IllegalSchedule, match=message):
        play(costs, lanes)


@pytest.mark.parametrize("options", [{}, {"demand": 0.5, "host_s": 1e-6, "delay_s": 1e-5}], ids=["plain", "everything"])
def test_fifty_thousand_tasks_play_legally(options: dict[str, float]) -> None:
    costs = layered(50_000, 8, **options)  # type: ignore[arg-type]
    lanes = [range(k, 50_000, 8) for k in range(8)]
    played = play(costs, lanes)  # how long it takes: benchmarks/bench_schedulers.py
    assert len(played) == 50_000
    end = {p.task: p.end_s for p in played}
    start = {p.task: p.start_s for p in played}
    ids = [c.task for c in costs.tasks]
    assert all(start[ids[e.dst]] >= end[ids[e.src]] * (1 - 1e-12) for e in costs.edges)
