"""A search ends in the seconds that it is given: each of its parts is told when, and what takes longer is left out."""

from __future__ import annotations

import math

import pytest

from pararev_hw import compiled
from pararev_hw.check import check_schedule
from pararev_hw.schedulers import deadline as deadlines
from pararev_hw.schedulers import exact, forward_backward, local_search, memory_list, pareto
from pararev_hw.schedulers.deadline import NEVER, Deadline, deadline_in, meeting
from tests.helpers.scheduling_problems import layered

PROBLEM = layered(60, 3, width=15, delay_s=1e-4, uneven=True)


class Clock:
    """Stands in for `time`: a wall clock and a processor clock that are set by hand."""

    now_s = worked_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.worked_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadlines, "time", clock)
    return clock


def test_a_process_that_gets_a_quarter_of_its_core_affords_a_quarter_of_the_work(clock: Clock) -> None:
    deadline = deadline_in(100.0)
    clock.now_s, clock.worked_s = 20.0, 5.0
    assert deadline.affords(19.0) and not deadline.affords(21.0)  # of the 80 seconds left it will get 20
    assert NEVER.affords(1e9) and NEVER.part(0.5) is NEVER and not NEVER.passed()


def test_a_part_of_a_deadline_is_a_share_of_what_is_left(clock: Clock) -> None:
    deadline = deadline_in(8.0)
    clock.now_s = 2.0
    assert deadline.part(0.25).at_s == 3.5  # 2 + 0.25 * 6
    assert deadline.part(0.25).part(1.0).at_s == 3.5
    clock.now_s = 9.0
    assert deadline.passed() and deadline.part(0.25).at_s == 8.0


@pytest.mark.parametrize(
    "by", [forward_backward.schedule_by, memory_list.schedule_by, lambda p, d: local_search.schedule_by(p, d, 0, None)]
)
def test_after_its_deadline_a_search_still_gives_a_legal_schedule_of_its_first_pass(by) -> None:  # type: ignore[no-untyped-def]
    passed = Deadline(0.0)
    schedule = by(PROBLEM, passed)
    check_schedule(PROBLEM, schedule)
    assert schedule.makespan_s >= by(PROBLEM, deadline_in(2.0)).makespan_s


def test_what_the_clock_cut_short_is_not_kept_for_those_who_have_time() -> None:
    problem = layered(60, 3, width=15, delay_s=1e-4, uneven=True)
    pareto.schedules_by(problem, 4, Deadline(0.0))
    cut_short = pareto.schedule(problem, points=4)
    whole = pareto.schedule(layered(60, 3, width=15, delay_s=1e-4, uneven=True), points=4)
    assert cut_short == whole and not whole.notes


def test_without_time_for_a_model_exact_says_so_and_searches_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BUILD_SHARE", 0.0)  # the time for the model is over when it begins
    monkeypatch.setattr(exact, "LOADING_S", -math.inf)
    schedule = exact.schedule(PROBLEM, seconds=0.5)
    check_schedule(PROBLEM, schedule)
    assert schedule.notes and schedule.notes[0].endswith("the time left was too short for the solver's model")


def test_loops_stay_plain_where_there_is_no_time_to_load_or_compile_them() -> None:
    @compiled.loop
    def doubled(x: float) -> float:
        return 2.0 * x

    with meeting(Deadline(0.0)):
        assert doubled.compiled_for(10**9) is None
    with compiled.compile_while(lambda seconds: seconds < compiled.COMPILING_S):
        assert doubled.compiled_for(10**9) is None or doubled.at_hand
