"""The checker accepts what the simulator plays, and refuses it once any single rule is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pararev_hw.check import check_schedule
from pararev_hw.errors import IllegalSchedule
from pararev_hw.simulate import play
from pararev_hw.types import CommEdge, Placement, Schedule, SchedulingProblem, TaskCost
from tests.helpers.scheduling_problems import NAMED, lane_orders, layered, problems


def schedule_of(costs: SchedulingProblem, placements: tuple[Placement, ...], **changes: object) -> Schedule:
    """What a scheduler without a bound would return for these placements."""
    makespan_s = max((p.end_s for p in placements), default=0.0)
    schedule = Schedule(costs.device, "test", costs.lanes, placements, makespan_s, makespan_s, 0.0, "none", False, 0)
    return replace(schedule, **changes)  # type: ignore[arg-type]


def moved(schedule: Schedule, task: str, **changes: float) -> Schedule:
    """The schedule with one placement changed, everything else made to fit again."""
    placements = [replace(p, **changes) if p.task == task else p for p in schedule.placements]  # type: ignore[arg-type]
    return relisted(schedule, placements)


def relisted(schedule: Schedule, placements: list[Placement]) -> Schedule:
    listed = tuple(sorted(placements, key=lambda p: (p.start_s, p.lane, p.task)))
    return replace(schedule, placements=listed, makespan_s=max(p.end_s for p in listed))


# lane 0: b1 [0, 1]  b3 [1, 3]        b4 [3, 4]
# lane 1:            b2 [1.5, 2.5]    b5 [4.5, 6]     (0.5 s from lane to lane)
COSTS = SchedulingProblem(
    "toy",
    2,
    (
        TaskCost("b1", (1.0, 1.0), memory_bytes=3),
        TaskCost("b2", (math.inf, 1.0), memory_bytes=3),
        TaskCost("b3", (2.0, 2.0)),
        TaskCost("b4", (1.0, 1.0)),
        TaskCost("b5", (1.0, 1.5)),
    ),
    (CommEdge(0, 1, 0.5), CommEdge(0, 2, 0.5), CommEdge(2, 3), CommEdge(3, 4, 0.5)),
    memory_limit_bytes=10,
)
LEGAL = schedule_of(COSTS, play(COSTS, [[0, 2, 3], [1, 4]]), lower_bound_s=5.0)


def test_the_schedule_that_is_broken_below_is_legal() -> None:
    check_schedule(COSTS, LEGAL)
    assert [(p.task, p.lane, p.start_s, p.end_s) for p in LEGAL.placements] == [
        ("b1", 0, 0, 1),
        ("b3", 0, 1, 3),
        ("b2", 1, 1.5, 2.5),
        ("b4", 0, 3, 4),
        ("b5", 1, 4.5, 6),
    ]


BROKEN: dict[str, tuple[Callable[[Schedule], Schedule], str]] = {
    "a task is missing": (
        lambda s: relisted(s, [p for p in s.placements if p.task != "b2"]),
        r"'b2' is not placed: every task runs once",
    ),
    "a task runs twice": (
        lambda s: relisted(s, [*s.placements, Placement("b2", 1, 2.5, 3.5)]),
        r"'b2' is placed twice, at 1.5 s and 2.5 s",
    ),
    "a task is unknown": (
        lambda s: relisted(s, [*s.placements, Placement("b9", 1, 7, 8)]),
        r"'b9' is placed, but the problem has no such task",
    ),
    "a lane does not exist": (lambda s: moved(s, "b5", lane=2), r"'b5' is on lane 2: lanes are 0 to 1"),
    "a lane is negative": (lambda s: moved(s, "b5", lane=-1), r"'b5' is on lane -1"),
    "a lane is not allowed": (lambda s: moved(s, "b2", lane=0), r"'b2' is on lane 0: it may run on 1 only"),
    "a time is not a number": (lambda s: moved(s, "b3", start_s=math.nan), r"'b3' runs from nan to 3.0"),
    "a time is infinite": (lambda s: moved(s, "b5", end_s=math.inf), r"'b5' runs from 4.5 to inf"),
    "a start is negative": (lambda s: moved(s, "b1", start_s=-1.0, end_s=0.0), r"'b1' runs from -1.0 to 0.0"),
    "a lane runs two at once": (
        lambda s: moved(s, "b2", lane=1, start_s=4.0, end_s=5.0),
        r"'b5' starts at 4.5 s on lane 1, where 'b2' runs until 5 s",
    ),
    "a task starts before its predecessor ends": (
        lambda s: moved(s, "b5", lane=0, start_s=3.75, end_s=4.75),
        r"'b5' starts at 3.75 s on lane 0|'b5' starts at 3.75 s, before 'b4' ends at 4 s",
    ),
    "a task on another lane starts before its predecessor ends": (
        lambda s: moved(s, "b5", start_s=3.75, end_s=5.25),
        r"'b5' starts at 3.75 s, before 'b4' ends at 4 s",
    ),
    "data is used before it arrives": (
        lambda s: moved(s, "b5", start_s=4.25, end_s=5.75),
        r"'b5' starts at 4.25 s, before what 'b4' sends to lane 1 arrives at 4.5 s",
    ),
    "a task is too short": (
        lambda s: moved(s, "b5", end_s=5.5),
        r"'b5' gets 1 s of work done between 4.5 s and 5.5 s, it needs 1.5 s on lane 1",
    ),
    "a task is too long": (lambda s: moved(s, "b5", end_s=7.0), r"'b5' gets 2.5 s of work done"),
    "a task ends before it starts": (lambda s: moved(s, "b5", end_s=4.0), r"'b5' gets -0.5 s of work done"),
    "the makespan is too small": (lambda s: replace(s, makespan_s=5.9), r"makespan is given as 5.9 s.* ends at 6.0 s"),
    "the makespan is too large": (lambda s: replace(s, makespan_s=6.1), r"makespan is given as 6.1 s.* ends at 6.0 s"),
    "the bound is beaten": (
        lambda s: replace(s, lower_bound_s=6.5),
        r"the makespan 6 s is below its own lower bound 6.5 s",
    ),
    "the bound is not a number": (lambda s: replace(s, lower_bound_s=math.nan), r"below its own lower bound nan s"),
    "it is called optimal": (
        lambda s: replace(s, optimal=True),
        r"called optimal at 6 s, but the lower bound is 5 s",
    ),
    "placements are not sorted": (
        lambda s: replace(s, placements=s.placements[::-1]),
        r"'b4' is listed after 'b5': placements are sorted",
    ),
    "the lanes are other ones": (lambda s: replace(s, lanes=3), r"the schedule has 3 lanes, the problem 2"),
    "the device is another one": (lambda s: replace(s, device="h200"), r"for device 'h200', the problem for 'toy'"),
    "memory is over the limit": (lambda s: replace(s, peak_bytes=11), r"needs 11 bytes at its peak, the limit is 10"),
}


@pytest.mark.parametrize("claim", BROKEN)
def test_refused_when(claim: str) -> None:
    broken, message = BROKEN[claim]
    with pytest.raises(IllegalSchedule, match=message) as caught:
        check_schedule(COSTS, broken(LEGAL))
    assert "\n" not in str(caught.value)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_the_simulator_plays_is_legal(data: st.DataObject) -> None:
    costs = data.draw(problems())
    check_schedule(costs, schedule_of(costs, play(costs, data.draw(lane_orders(costs)))))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_task_cut_short_or_drawn_out_is_refused_also_under_contention(data: st.DataObject) -> None:
    costs = data.draw(problems(host=False))
    played = schedule_of(costs, play(costs, data.draw(lane_orders(costs))))
    long = [p for p in played.placements if p.end_s > p.start_s]
    assume(long)
    victim = data.draw(st.sampled_from(long))
    factor = data.draw(st.sampled_from([0.0, 0.5, 0.99, 1.01, 2.0]))
    end_s = victim.start_s + factor * (victim.end_s - victim.start_s)
    with pytest.raises(IllegalSchedule):
        check_schedule(costs, moved(played, victim.task, end_s=end_s))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_task_that_starts_too_early_is_refused(data: st.DataObject) -> None:
    costs = data.draw(problems(sharing=False, host=False))
    played = schedule_of(costs, play(costs, data.draw(lane_orders(costs))))
    held = [p for p in played.placements if p.start_s > 0 and p.end_s > p.start_s]
    assume(held)
    victim = data.draw(st.sampled_from(held))  # the simulator starts everything as early as the rules allow
    with pytest.raises(IllegalSchedule):
        early = victim.start_s * 0.99
        check_schedule(costs, moved(played, victim.task, start_s=early, end_s=early + victim.end_s - victim.start_s))


def test_the_host_cannot_have_issued_more_than_time_allows() -> None:
    costs = SchedulingProblem(
        "toy", 2, (TaskCost("a", (0.5, 0.5), host_s=1.0), TaskCost("b", (0.5, 0.5), host_s=1.0)), ()
    )
    played = schedule_of(costs, play(costs, [[0], [1]]))
    check_schedule(costs, played)
    with pytest.raises(IllegalSchedule, match=r"'b' ends at 1.5 s, before the host can have issued it at 2 s"):
        check_schedule(costs, moved(played, "b", end_s=1.5))
    with pytest.raises(IllegalSchedule, match=r"'b' takes 0.25 s, it needs at least 0.5 s on lane 1"):
        check_schedule(costs, moved(played, "b", start_s=1.75, end_s=2.0))


def test_zero_time_tasks_may_share_an_instant_but_not_the_middle_of_another() -> None:
    costs = SchedulingProblem("toy", 1, (TaskCost("a", (1.0,)), TaskCost("z", (0.0,))), ())
    for at, legal in ((0.0, True), (0.5, False), (1.0, True)):
        placements = sorted([Placement("a", 0, 0.0, 1.0), Placement("z", 0, at, at)], key=lambda p: (p.start_s, p.task))
        schedule = schedule_of(costs, tuple(placements))
        if legal:
            check_schedule(costs, schedule)
        else:
            with pytest.raises(IllegalSchedule, match=r"'z' starts at 0.5 s on lane 0, where 'a' runs until 1 s"):
                check_schedule(costs, schedule)


@pytest.mark.parametrize("name", NAMED)
def test_rounding_of_long_sums_is_no_offence(name: str) -> None:
    costs = NAMED[name]
    order = costs.topological_order()
    lane = [c.times_s.index(c.best_s) for c in costs.tasks]
    check_schedule(
        costs, schedule_of(costs, play(costs, [[i for i in order if lane[i] == k] for k in range(costs.lanes)]))
    )


def test_rounding_of_ten_thousand_contending_tasks_is_no_offence() -> None:
    costs = layered(10_000, 8, demand=0.7)
    check_schedule(costs, schedule_of(costs, play(costs, [range(k, 10_000, 8) for k in range(8)])))
