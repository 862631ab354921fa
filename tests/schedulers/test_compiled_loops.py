"""Compiled loops give what plain Python gives, bit for bit, and both what the code before them gave."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw import compiled, simulate
from pararev_hw.schedulers import run
from pararev_hw.schedulers.insertion import place, place_arrays
from pararev_hw.types import CommEdge, Schedule, SchedulingProblem, TaskCost
from tests.helpers import plain_simulate
from tests.helpers.scheduling_problems import lane_orders, layered, problems

NEVER = 10**12  # steps


@given(st.data())
def test_the_simulator_plays_what_it_played_over_lists(data: st.DataObject) -> None:
    problem = data.draw(problems())
    lanes = data.draw(lane_orders(problem))
    assert simulate.play(problem, lanes) == plain_simulate.play(problem, lanes)
    assert simulate.play_sequential(problem) == plain_simulate.play_sequential(problem)


@pytest.mark.parametrize("scheduler", ["sequential", "heft", "forward-backward", "memory-list"])
def test_compiled_and_plain_schedules_are_the_same(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def schedules(small: int) -> list[Schedule]:
        monkeypatch.setattr(compiled, "SMALL", small)
        monkeypatch.setattr(compiled, "FEW", small)
        cases: list[dict[str, float]] = [{}, {"demand": 0.5}, {"host_s": 1e-5, "delay_s": 1e-4, "uneven": True}]
        return [run(layered(200, 3, width=20, **case), scheduler) for case in cases]  # type: ignore[arg-type]

    monkeypatch.setattr(compiled.Loop, "_patience", 0)
    assert schedules(1) == schedules(NEVER)


def test_a_tree_of_gaps_finds_the_gap_that_a_scan_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SMALL", 0)
    monkeypatch.setattr(compiled.Loop, "_patience", 0)
    for seed in range(150):
        problem = gappy(random.Random(seed))
        arrays, order = problem.arrays, np.array(problem.topological_order(), np.int64)
        into = [[(e.src, e.delay_s) for e in edges] for edges in problem.predecessors()]
        scanned = place([c.times_s for c in problem.tasks], into, order.tolist(), problem.lanes)
        assert place_arrays(arrays.times_s, arrays.into, order) == scanned


def gappy(draw: random.Random) -> SchedulingProblem:
    """Long delays leave gaps; quarters, and tasks of no time, make ties."""
    n, lanes = draw.randint(1, 60), draw.randint(1, 4)
    exact = draw.random() < 0.5
    tasks = []
    for i in range(n):
        times = [draw.randint(0, 6) / 4 if exact else draw.random() for _ in range(lanes)]
        only = draw.randrange(lanes) if draw.random() < 0.3 else -1
        tasks.append(TaskCost(f"t{i}", tuple(t if only in (-1, k) else math.inf for k, t in enumerate(times))))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n) if draw.random() < 0.1]
    edges = tuple(CommEdge(a, b, draw.randint(0, 40) / 4 if exact else 9 * draw.random()) for a, b in pairs)
    return SchedulingProblem("gappy", lanes, tuple(tasks), edges)


def test_numba_is_loaded_only_where_there_is_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {k: v for k, v in compiled.sys.modules.items() if k != "numba"}
    monkeypatch.setattr(compiled.sys, "modules", modules)
    monkeypatch.setattr(compiled.Loop, "_patience", 10_000)
    loop = compiled.loop(lambda values: [v + 1 for v in values])
    assert loop.compiled_for(compiled.SMALL - 1) is None
    assert loop.compiled_for(6_000) is None
    assert loop(3, np.arange(3)) == [1, 2, 3]
    assert loop.compiled_for(6_000) is not None


@pytest.mark.parametrize(("at_hand", "enough"), [(True, compiled.ONE_LOADED), (False, compiled.ONE_COMPILED)])
def test_a_loop_of_small_calls_is_loaded_once_numba_runs_and_they_are_many(
    at_hand: bool, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled.Loop, "_numba_runs", False)
    monkeypatch.setattr(compiled.Loop, "at_hand", at_hand)
    small, another = compiled.loop(lambda values: [v + 1 for v in values]), compiled.loop(lambda values: values)
    calls = enough // 1_000
    assert all(small.compiled_for(1_000) is None for _ in range(2 * calls))  # numba is not loaded for them alone
    assert another.compiled_for_many(compiled.COMPILING) is not None
    assert all(small.compiled_for(1_000) is None for _ in range(calls - 1))
    assert small.compiled_for(1_000) is not None
    assert small.compiled_for(compiled.FEW - 1) is None
    assert small(1_000, np.arange(3)) == [1, 2, 3]


def test_what_is_expected_of_a_loop_counts_but_does_not_compile_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for at_hand in (False, True):
        monkeypatch.setattr(compiled.Loop, "at_hand", at_hand)
        loop = compiled.loop(lambda values: values)
        assert loop.compiled_for_many(1) is None
        loop.expect(100 * compiled.COMPILING)
        assert (loop.compiled_for_many(1) is not None) == at_hand


def test_numba_loads_without_scipys_linear_algebra_and_still_has_it() -> None:
    loops = """
import sys
import numpy as np
from pararev_hw import compiled
doubled = compiled.loop(lambda values: [2 * v for v in values])
assert doubled.compile()(np.arange(3)) == [0, 2, 4]
assert "scipy.linalg" not in sys.modules
import numba
two = np.full((2, 2), 2.0)
assert (numba.njit(lambda a: np.dot(a, a))(two) == 8).all()
assert numba.njit(lambda a: np.cov(a))(two).shape == (2, 2)
"""
    subprocess.run([sys.executable, "-c", loops], check=True)
