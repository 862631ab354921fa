"""Schedules within a memory limit: always one where one task at a time fits, and never below what brute force finds."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pararev_hw.check import check_schedule
from pararev_hw.compiled import COMPILING
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.schedulers import memory_list
from pararev_hw.schedulers.alternatives import expand, select_alternatives
from pararev_hw.schedulers.bounds.makespan import bound_within, lower_bound
from pararev_hw.schedulers.bounds.memory import Forced, least_memory
from pararev_hw.schedulers.buffer_table import buffer_table_of, peak_along, peak_memory, profile, waits_that_keep
from pararev_hw.schedulers.compiled_dispatch import dispatch, ranges
from pararev_hw.schedulers.memory_order import _greedy_order, least_peak_order
from pararev_hw.schedulers.safe_dispatch import SafeDispatch
from pararev_hw.simulate import play
from pararev_hw.types import Buffer, CommEdge, Placement, Schedule, SchedulingProblem, TaskCost
from tests.helpers.memory_problems import best_of_limited, limited, orders
from tests.helpers.plain_safe_dispatch import PlainRun
from tests.helpers.scheduler_runs import EVERY, run, tight
from tests.helpers.scheduling_problems import NAMED, layered


@EVERY
@given(costs=limited())
@settings(max_examples=60, deadline=None)
def test_legal_within_the_limit_or_refused_with_numbers(name: str, costs: SchedulingProblem) -> None:
    try:
        schedule = run(costs, name)
    except Infeasible as refused:
        # only where the sequential orders that are tried do not fit
        assert peak_along(buffer_table_of(costs), least_peak_order(costs)) > (
            costs.memory_limit_bytes or 0
        ) or _at_once(costs)
        assert str(costs.memory_limit_bytes) in str(refused)
        return
    check_schedule(costs, schedule)
    assert peak_memory(costs, schedule.placements)[0] <= (costs.memory_limit_bytes or 0)
    assert schedule == run(costs, name)


def _at_once(costs: SchedulingProblem) -> bool:
    """Whether tasks of no time make orders of one another that the clock cannot tell apart."""
    return any(t == 0 for c in costs.tasks for t in c.times_s)


@given(limited(max_tasks=4, plain=True))
@settings(max_examples=150, deadline=None)
def test_no_schedule_of_all_within_the_limit_beats_the_bound(costs: SchedulingProblem) -> None:
    assert lower_bound(costs)[0] <= best_of_limited(costs) * (1 + 1e-12)


@given(limited(max_tasks=4, plain=True))
@settings(max_examples=60, deadline=None)
def test_exact_finds_the_best_within_the_limit(costs: SchedulingProblem) -> None:
    if _at_once(costs):
        return
    best_s = best_of_limited(costs)
    schedule = run(costs, "exact")
    assert schedule.makespan_s == pytest.approx(best_s)
    assert schedule.optimal


def test_exact_counts_the_buffers_and_not_the_tasks_where_the_buffers_hold_nothing() -> None:
    tasks = tuple(TaskCost(f"t{i}", (0.25, 0.25), memory_bytes=m) for i, m in enumerate((0, 0, 1)))
    costs = SchedulingProblem("toy", 2, tasks, (), memory_limit_bytes=5, static_bytes=5, buffers=(Buffer(0, (0,)),))
    assert select_alternatives(costs, expand(costs, ()), ()).held() == costs.held()
    schedule = run(costs, "exact")
    assert (schedule.makespan_s, schedule.peak_bytes, schedule.optimal) == (0.5, 5, True)


@given(limited(max_tasks=5))
@settings(max_examples=100, deadline=None)
def test_no_order_needs_less_than_the_least_memory(costs: SchedulingProblem) -> None:
    held = buffer_table_of(costs)
    least, _ = least_memory(costs)
    assert least <= min((peak_along(held, o) for o in orders(costs)), default=costs.static_bytes)


@given(limited())
@settings(max_examples=100, deadline=None)
def test_a_sequential_profile_is_the_peak_of_the_sequential_schedule(costs: SchedulingProblem) -> None:
    timed = replace(costs, tasks=tuple(replace(c, times_s=(1.0,) * costs.lanes) for c in costs.tasks))
    order = least_peak_order(timed)
    placed = [Placement(timed.tasks[i].task, 0, float(k), float(k + 1)) for k, i in enumerate(order)]
    assert peak_memory(timed, placed)[0] == peak_along(buffer_table_of(timed), order)
    assert len(profile(buffer_table_of(timed), order)) == len(timed.tasks)


@given(limited(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_waits_keep_the_limit_whatever_time_tasks_take(costs: SchedulingProblem, seed: int) -> None:
    if _at_once(costs):
        return
    try:
        schedule = run(costs, "memory-list")
    except Infeasible:
        return
    draw = random.Random(seed)
    other = replace(
        costs, tasks=tuple(replace(c, times_s=tuple(t * draw.uniform(0.1, 10) for t in c.times_s)) for c in costs.tasks)
    )
    index = {c.task: i for i, c in enumerate(costs.tasks)}
    lanes = [[index[p.task] for p in schedule.placements if p.lane == k] for k in range(costs.lanes)]
    edges = [CommEdge(index[a], index[b]) for a, b in schedule.waits]
    played = play(other, lanes, [(e.src, e.dst) for e in edges])
    assert peak_memory(other, played)[0] <= (costs.memory_limit_bytes or 0)


@given(limited(), st.sampled_from(["memory-list", "heft", "asap"]))
@settings(max_examples=150, deadline=None)
def test_few_waits_imply_one_for_the_last_task_to_end_on_each_other_lane(costs: SchedulingProblem, name: str) -> None:
    free = costs if name == "memory-list" else replace(costs, memory_limit_bytes=None)
    try:
        at = {p.task: p for p in run(free, name).placements}
    except Infeasible:
        return
    placed = [at[c.task] for c in costs.tasks]
    waits = waits_that_keep(costs, placed)
    in_time = sorted(costs.topological_order(), key=lambda i: (placed[i].start_s, placed[i].end_s))
    on_lane = [[i for i in in_time if placed[i].lane == k] for k in range(costs.lanes)]
    every = [
        (max(ended, key=in_time.index), i)
        for place, i in enumerate(in_time)
        for k in range(costs.lanes)
        if k != placed[i].lane
        and (ended := [j for j in in_time[:place] if placed[j].lane == k and placed[j].end_s <= placed[i].start_s])
    ]
    by_themselves = [*((e.src, e.dst) for e in costs.edges), *(pair for line in on_lane for pair in pairwise(line))]
    assert set(waits) <= set(every)
    assert _implied(waits, by_themselves) == _implied(every, by_themselves)
    played, by_all = play(costs, on_lane, waits), play(costs, on_lane, every)
    assert played == by_all


def _implied(*pairs: list[tuple[int, int]]) -> set[tuple[int, int]]:
    return set(nx.transitive_closure_dag(nx.DiGraph([pair for some in pairs for pair in some])).edges)


def test_tasks_side_by_side_wait_for_what_ended_since_the_last_start_alone() -> None:
    # every second task is short: one that has ended has waited for all but the last few of those that ended before
    tasks = tuple(TaskCost(f"t{i}", (1.0,) * 8) for i in range(80))
    placed = [Placement(f"t{i}", i % 8, i / 8, i / 8 + 0.125 + 0.75 * (i % 2)) for i in range(80)]
    waits = waits_that_keep(SchedulingProblem("toy", 8, tasks, ()), placed)
    assert len(waits) < 2 * 80


def test_waits_of_tasks_that_take_no_time_follow_the_edges() -> None:
    # t0 and then t2 take no time and start together, when t3 has ended: t2 waits for t0, though its lane comes first
    tasks = (
        TaskCost("t0", (0.5, 0.0, math.inf)),
        TaskCost("t1", (0.5, 0.25, 0.5), memory_bytes=1),
        TaskCost("t2", (0.0, 0.0, 0.0)),
        TaskCost("t3", (0.5, 0.25, math.inf), memory_bytes=1),
    )
    costs = SchedulingProblem("toy", 3, tasks, (CommEdge(0, 2),), memory_limit_bytes=1)
    placed = [Placement("t1", 1, 0.0, 0.25), Placement("t3", 1, 0.25, 0.5)]
    placed += [Placement("t2", 0, 0.5, 0.5), Placement("t0", 1, 0.5, 0.5)]
    waits = waits_that_keep(costs, placed)
    played = play(costs, [[2], [1, 3, 0], []], waits)
    assert {p.task: (p.start_s, p.end_s) for p in played} == {p.task: (p.start_s, p.end_s) for p in placed}
    assert peak_memory(costs, played)[0] == 1
    for name in ("memory-list", "exact"):
        check_schedule(costs, run(costs, name))


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("options", [{}, {"delay_s": 1e-5}, {"uneven": True}, {"demand": 0.7}, {"host_s": 1e-5}])
def test_memory_list_gains_most_of_what_lanes_can_give(share: float, options: dict[str, float]) -> None:
    costs = tight(layered(200, 4, width=20, **options), share)  # type: ignore[arg-type]
    schedule = run(costs, "memory-list")
    check_schedule(costs, schedule)
    free = run(replace(costs, memory_limit_bytes=None), "heft")
    # with what a sequential run needs and no more, lanes still do most of their work side by side
    assert schedule.makespan_s <= (1.25 if share else 1.6) * free.makespan_s


def test_tasks_that_the_memory_keeps_apart_bound_the_makespan() -> None:
    tasks = tuple(TaskCost(f"t{i}", (1.5,) * 3, memory_bytes=6) for i in range(4))
    costs = SchedulingProblem("toy", 3, tasks, (), memory_limit_bytes=11)
    assert lower_bound(costs) == (pytest.approx(6.0), "tasks that do not fit the memory together")
    assert run(costs, "memory-list").optimal


def test_bytes_times_time_bound_the_makespan() -> None:
    tasks = tuple(TaskCost(f"t{i}", (1.5,) * 8, memory_bytes=2) for i in range(12))
    costs = SchedulingProblem(
        "toy", 8, tasks, (), memory_limit_bytes=5
    )  # two at once: 12 x 1.5 s x 2 bytes over 5, at least 7.2 s
    assert lower_bound(costs) == (pytest.approx(7.2), "bytes x time that the memory offers")
    assert run(costs, "memory-list").makespan_s == 9.0


def test_what_stays_lives_to_the_end() -> None:
    tasks = (TaskCost("a", (1.0,)), TaskCost("b", (1.0,)), TaskCost("c", (1.0,)))
    costs = SchedulingProblem("toy", 1, tasks, (), buffers=(Buffer(4, (0,), stays=True), Buffer(3, (1, 2))))
    assert run(costs, "sequential").peak_bytes == 7
    assert run(costs, "memory-min").peak_bytes == 4  # b and c first
    assert run(costs, "memory-min").notes == (
        "every schedule needs at least 4 bytes, for 'a' and what must be alive then",
    )


def test_a_start_that_would_block_the_rest_waits() -> None:
    # x's output needs room until z has run; y is next in the safe order and needs the same room meanwhile.
    tasks = (
        TaskCost("y", (2.0, 2.0), memory_bytes=6),
        TaskCost("w", (1.0, 1.0), memory_bytes=1),
        TaskCost("x", (1.0, 1.0), memory_bytes=6),
        TaskCost("z", (1.0, 1.0), memory_bytes=1),
    )
    costs = SchedulingProblem("toy", 2, tasks, (CommEdge(0, 1), CommEdge(2, 3), CommEdge(1, 3)), memory_limit_bytes=9)
    schedule = run(costs, "memory-list")
    check_schedule(costs, schedule)
    assert schedule.makespan_s == best_of_limited(costs) == 5.0


@given(limited(max_tasks=5, plain=True), st.sampled_from([None, 1.0, 1.2, 2.0]))
@settings(max_examples=60, deadline=None)
def test_memory_min_keeps_its_latency_bound_and_never_needs_more_than_the_fastest(
    costs: SchedulingProblem, slack: float | None
) -> None:
    free = replace(costs, memory_limit_bytes=None)
    fastest = run(free, "memory-list")
    if slack is not None and fastest.makespan_s == 0:
        return
    made = run(free, "memory-min", latency_bound=None if slack is None else slack * fastest.makespan_s)
    check_schedule(free, made)
    assert (made.peak_bytes or 0) <= (fastest.peak_bytes or 0)
    assert slack is None or made.makespan_s <= slack * fastest.makespan_s * (1 + 1e-9)
    assert (made.peak_bytes or 0) >= least_memory(free)[0] or made.peak_bytes is None or _at_once(costs)


def test_no_note_names_more_memory_than_the_peak() -> None:
    # b starts and ends when a ends: to the clock, a's output is gone by then
    costs = SchedulingProblem(
        "toy", 1, (TaskCost("a", (1.0,), memory_bytes=1), TaskCost("b", (0.0,), memory_bytes=1)), (CommEdge(0, 1),)
    )
    made = run(costs, "memory-min")
    assert made.peak_bytes == 1 < least_memory(costs)[0]
    assert made.notes == ()


def test_a_latency_that_cannot_be_kept_is_an_answer_with_numbers() -> None:
    with pytest.raises(Infeasible, match=r"no schedule of 0.1 s was found .* the fastest takes .* none can take less"):
        run(NAMED["very wide"], "memory-min", latency_bound=0.1)
    for bad in (0.0, -1.0):
        with pytest.raises(BadInput, match="give a positive number"):
            run(NAMED["chain"], "memory-min", latency_bound=bad)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(BadInput, match=f"latency_bound is {bad}: it must be a number"):
            run(NAMED["chain"], "memory-min", latency_bound=bad)


def points(schedule: Schedule) -> list[tuple[int, float]]:
    return [(p.peak_bytes or 0, p.makespan_s) for p in schedule.front]


def test_a_front_trades_latency_for_memory_and_every_point_is_a_schedule() -> None:
    # ten pairs; a pair's two tasks are alive at once, and so are more pairs where they run side by side
    tasks = tuple(TaskCost(f"{k}{i}", (1.0,) * 4, memory_bytes=10) for i in range(10) for k in "ab")
    costs = SchedulingProblem("toy", 4, tasks, tuple(CommEdge(2 * i, 2 * i + 1) for i in range(10)))
    schedule = run(costs, "pareto", points=12)
    check_schedule(costs, schedule)
    found = points(schedule)
    assert found[0] == (20, 20.0) and found[-1] == (80, 5.0)
    assert len(found) >= 3
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(found))
    for point in schedule.front:
        limited_to = replace(costs, memory_limit_bytes=point.peak_bytes)
        check_schedule(limited_to, point)
    assert schedule.makespan_s == schedule.front[-1].makespan_s


@given(limited())
@settings(max_examples=40, deadline=None)
def test_what_two_tasks_force_and_exclude_is_found_for_all_at_once_and_for_any_limit(costs: SchedulingProblem) -> None:
    """Against the definitions in the module, task by task; a bound asked under many limits is that of each limit."""
    assume(costs.tasks)
    forced, n = Forced(replace(costs, memory_limit_bytes=None)), len(costs.tasks)
    together, ordered = forced.side_by_side(range(n)), forced.ordered(range(n))
    for i, j in product(range(n), repeat=2):
        both = (forced.touched[i] | forced.touched[j]) & (forced.needed[i] | forced.needed[j])
        assert together[i, j] == both @ forced.sizes
        assert ordered[i, j] == bool(forced.after[i] >> j & 1 or forced.after[j] >> i & 1)
    assert costs.memory_limit_bytes is not None
    for limit in (costs.memory_limit_bytes, 2 * costs.memory_limit_bytes, costs.memory_limit_bytes):
        assert lower_bound(costs.limited_to(limit)) == lower_bound(replace(costs, memory_limit_bytes=limit))


@given(limited())
@settings(max_examples=60, deadline=None)
def test_a_problem_that_is_asked_again_under_other_limits_gives_what_new_ones_give(costs: SchedulingProblem) -> None:
    """What is worked out once and used again changes no schedule, whoever asked first and under whatever limit."""

    def schedule(problem: SchedulingProblem, name: str) -> Schedule | str:
        try:
            return run(problem, name)
        except Infeasible as refused:
            return str(refused)

    limit = costs.memory_limit_bytes
    assert limit is not None
    bare = replace(costs, buffers=(), memory_limit_bytes=None)
    lower_bound(bare)
    one = bare.holding(costs.buffers)
    for room in (None, limit, 2 * limit):
        one = one.limited_to(room)
        for name in ("memory-min", "heft", "pareto", "memory-list"):
            assert schedule(one, name) == schedule(replace(costs, memory_limit_bytes=room), name)


@given(limited())
@settings(max_examples=60, deadline=None)
def test_passes_that_are_remembered_change_no_schedule(costs: SchedulingProblem) -> None:
    remembered = memory_list.search(costs, 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_list, "MOST_TASKS_REMEMBERED", -1)
        assert memory_list.search(costs, 400) == remembered


@given(limited())
@settings(max_examples=60, deadline=None)
def test_the_bound_within_a_limit_is_between_the_one_without_and_the_whole(costs: SchedulingProblem) -> None:
    roomy = lower_bound(replace(costs, memory_limit_bytes=None))
    within, _ = bound_within(costs, roomy)
    assert roomy[0] <= within <= lower_bound(costs)[0] * (1 + 1e-9)


def test_a_front_has_at_least_two_points_to_try() -> None:
    with pytest.raises(BadInput, match="a front of 1 points: give at least 2"):
        run(NAMED["chain"], "pareto", points=1)


def _larger(draw: random.Random) -> SchedulingProblem:
    """Layers with delays, tasks of no time, buffers of two to five tasks, and a limit between least and all."""
    wide = draw.random() < 0.2  # more tasks are ready than are looked at
    width, delay_s = draw.randint(60, 120) if wide else draw.randint(5, 9), draw.choice((0.0, 1e-5))
    costs = layered(
        width * draw.randint(2, 3 if wide else 7),
        draw.randint(1, 3),
        seed=draw.randrange(99),
        width=width,
        delay_s=delay_s,
    )
    n = len(costs.tasks)
    tasks = tuple(replace(c, times_s=(0.0,) * costs.lanes) if draw.random() < 0.1 else c for c in costs.tasks)
    buffers = tuple(
        Buffer(draw.randint(1, 90), tuple(sorted(draw.sample(range(n), draw.randint(2, 5)))), draw.random() < 0.2)
        for _ in range(n)
    )
    costs = replace(costs, tasks=tasks, buffers=buffers)
    low = peak_along(buffer_table_of(costs), least_peak_order(costs))
    high = costs.static_bytes + buffer_table_of(costs).total
    limit = draw.randint(low, low + (high - low) // 2) if draw.random() < 0.9 else None
    return replace(costs, memory_limit_bytes=limit)


def _greedy_by_definition(costs: SchedulingProblem) -> tuple[int, ...]:
    """Of the ready tasks always the one after which least is alive, then the one that needs least, then the first."""
    table, into = buffer_table_of(costs), [{e.src for e in edges} for edges in costs.predecessors()]
    order: list[int] = []
    while len(order) < len(into):
        before, keys = set(order), []
        for i in (i for i in range(len(into)) if i not in before and into[i] <= before):
            alive = [
                (size, set(users), stays)
                for size, users, stays in zip(table.bytes, table.users, table.stays, strict=True)
            ]
            need = sum(size for size, users, _ in alive if i in users and not users & before)
            gives = sum(size for size, users, stays in alive if i in users and not stays and users <= before | {i})
            keys.append((need - gives, need, i))
        order.append(min(keys)[2])
    return tuple(order)


@pytest.mark.parametrize("compiled", [False, True])
def test_greedy_orders_take_what_leaves_least_alive(compiled: bool) -> None:
    draw = random.Random(7)
    for _ in range(20):
        costs = _larger(draw)
        table, arrays = buffer_table_of(costs), costs.arrays
        loop = _greedy_order.compile() if compiled else _greedy_order.plain
        assert loop is not None
        users, touches = ranges(table.users), ranges(table.touches)
        stays, n = np.array(table.stays, np.int64), len(costs.tasks)
        order = loop(
            np.array(table.bytes, np.int64), *touches, *users, arrays.out.start, arrays.out.task,
            np.diff(arrays.into.start), np.zeros_like(stays), stays, np.arange(n),
        )  # fmt: skip
        assert tuple(order) == _greedy_by_definition(costs)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_safe_lists_are_those_of_looking_at_every_task_on_every_lane(
    backward: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_often", COMPILING if compiled else -(10**9))
    assert not compiled or dispatch.compile() is not None
    draw = random.Random(5)
    for _ in range(60):
        costs = _larger(draw)
        direction = SafeDispatch(costs, buffer_table_of(costs), backward)
        order = least_peak_order(costs)[:: -1 if backward else 1]
        rank = [draw.choice((draw.random(), float(draw.randrange(3)))) for _ in costs.tasks]
        assert direction.run(rank, order) == PlainRun(direction, rank, order).planned([c.times_s for c in costs.tasks])
