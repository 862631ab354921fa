"""What every scheduler of the table promises, whatever it does inside; and what each of them adds to that."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.check import check_schedule
from pararev_hw.errors import BadInput, Infeasible, UnknownName
from pararev_hw.schedulers import SCHEDULERS, describe, insertion, names
from pararev_hw.schedulers.buffer_table import peak_memory
from pararev_hw.schedulers.evaluate import energy, evaluate_orders
from pararev_hw.simulate import play
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import CommEdge, Placement, SchedulingProblem, TaskCost
from tests.helpers.scheduler_runs import EVERY, INSTANCES, rows, run
from tests.helpers.scheduling_problems import NAMED, all_lane_orders, lane_orders, layered, problems


def keeps_its_promises(costs: SchedulingProblem, name: str) -> None:
    schedule = run(costs, name)
    check_schedule(costs, schedule)
    assert schedule.scheduler == name
    assert schedule == run(costs, name)
    assert schedule.lower_bound_s <= schedule.makespan_s
    assert schedule.makespan_s <= schedule.sequential_s
    assert schedule.sequential_s == run(costs, "sequential").makespan_s
    assert schedule.optimal == (schedule.makespan_s <= schedule.lower_bound_s * (1 + 1e-12))


@EVERY
@pytest.mark.parametrize("problem", NAMED)
def test_legal_repeatable_above_the_bound_and_no_worse_than_sequential(name: str, problem: str) -> None:
    keeps_its_promises(NAMED[problem], name)


@EVERY
@given(costs=problems())
@settings(max_examples=40, deadline=None)
def test_the_same_on_random_problems(name: str, costs: SchedulingProblem) -> None:
    keeps_its_promises(costs, name)


@EVERY
@given(costs=problems(max_tasks=4, sharing=False, host=False))
@settings(max_examples=40, deadline=None)
def test_never_better_than_the_best_of_all_schedules(name: str, costs: SchedulingProblem) -> None:
    best_s = min(max((p.end_s for p in play(costs, lanes)), default=0.0) for lanes in all_lane_orders(costs))
    schedule = run(costs, name)
    assert schedule.makespan_s >= best_s * (1 - 1e-12)
    if schedule.optimal:
        assert schedule.makespan_s == pytest.approx(best_s)


@EVERY
@pytest.mark.parametrize("problem", NAMED)
def test_renaming_the_tasks_changes_no_time(name: str, problem: str) -> None:
    costs = NAMED[problem]
    n = len(costs.tasks)
    renamed = replace(costs, tasks=tuple(replace(c, task=f"r{n - i:04}") for i, c in enumerate(costs.tasks)))
    ids = {new.task: old.task for new, old in zip(renamed.tasks, costs.tasks, strict=True)}
    new, old = run(renamed, name), run(costs, name)
    assert {replace(p, task=ids[p.task]) for p in new.placements} == set(old.placements)
    assert {(ids[a], ids[b]) for a, b in new.waits} == set(old.waits)
    assert [(p.makespan_s, p.peak_bytes) for p in new.front] == [(p.makespan_s, p.peak_bytes) for p in old.front]
    nameless = {"placements": (), "waits": (), "front": (), "notes": ()}
    assert replace(new, **nameless) == replace(old, **nameless)


def test_the_hash_seed_changes_nothing() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pararev_hw.schedulers import names\n"
        "from tests.helpers.scheduling_problems import NAMED\n"
        "from tests.helpers.scheduler_runs import run\n"
        "small = sorted(NAMED.values(), key=lambda problem: len(problem.tasks))[:8]\n"
        "for name in names(): print(name, [run(problem, name) for problem in small])"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    printed = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, timeout=120
        ).stdout.splitlines()
        for seed in ("0", "1")
    ]
    assert printed[0] == printed[1] and len(printed[0]) == len(names())


@EVERY
@pytest.mark.parametrize("row", rows("stg_optimum.csv"), ids=lambda r: r["file"])
def test_no_schedule_beats_a_proved_optimum_of_the_standard_task_graphs(name: str, row: dict[str, str]) -> None:
    for lanes in (2, 4, 8, 16):
        costs = read_problem(INSTANCES / row["file"], lanes=lanes)
        schedule = run(costs, name)
        check_schedule(costs, schedule)
        optimum = int(row[f"opt_m{lanes}"])
        assert schedule.makespan_s >= optimum
        assert schedule.lower_bound_s <= optimum
        if name == "heft":
            assert schedule.makespan_s <= 1.05 * optimum
        if name == "asap":
            assert schedule.makespan_s <= 2 * optimum
        if name == "forward-backward":
            assert schedule.makespan_s <= 1.002 * optimum


@EVERY
@pytest.mark.parametrize("row", rows("jsp_optimum.csv"), ids=lambda r: r["file"])
def test_no_schedule_beats_a_closed_job_shop_optimum(name: str, row: dict[str, str]) -> None:
    file = next(INSTANCES / f for f in (row["file"], f"{row['file']}.jsp") if (INSTANCES / f).exists())
    costs = read_problem(file, format="jsp")
    schedule = run(costs, name)
    check_schedule(costs, schedule)
    assert schedule.lower_bound_s <= int(row["optimum"]) <= schedule.makespan_s
    if name == "heft":
        assert schedule.makespan_s <= 1.5 * int(row["optimum"])
    if name == "sequential":
        assert schedule.makespan_s == sum(c.best_s for c in costs.tasks)


def test_list_schedulers_are_within_half_a_percent_of_the_bound_on_ten_thousand_tasks() -> None:
    for options in ({}, {"delay_s": 1e-5}):
        costs = layered(10_000, 8, **options)  # type: ignore[arg-type]
        assert run(costs, "heft").gap <= 0.005
        assert run(costs, "forward-backward").gap <= 0.005


def test_heft_uses_the_gap_that_a_delay_leaves() -> None:
    # a on lane 0, then b, which waits there; c is short, ranks last and fits in between.
    inf = math.inf
    tasks = (TaskCost("a", (1.0, inf)), TaskCost("x", (inf, 3.0)), TaskCost("b", (1.0, inf)), TaskCost("c", (2.0, inf)))
    costs = SchedulingProblem("toy", 2, tasks, (CommEdge(0, 1), CommEdge(1, 2)))
    placed = {p.task: p.start_s for p in run(costs, "heft").placements}
    assert placed == {"a": 0.0, "x": 1.0, "b": 4.0, "c": 1.0}
    assert run(costs, "asap").makespan_s == 7.0  # c appended behind b


def test_heft_runs_a_zero_time_task_before_the_long_one_that_starts_with_it() -> None:
    # p on lane 1; then a (5 s, lane 0 only) and z (no time, lane 0 by lowest number) at 1 s; c on lane 1 waits for z.
    inf = math.inf
    tasks = (TaskCost("p", (inf, 1.0)), TaskCost("a", (5.0, inf)), TaskCost("z", (0.0, 0.0)), TaskCost("c", (inf, 3.0)))
    costs = SchedulingProblem("toy", 2, tasks, (CommEdge(0, 1), CommEdge(0, 2), CommEdge(2, 3)))
    assert run(costs, "heft").makespan_s == 6.0


def test_asap_waits_for_a_busy_lane_rather_than_for_slower_data() -> None:
    # a, y on lane 0 until 2 s, x on lane 1 until 1.5 s; what b needs from a reaches lane 1 at 6 s only.
    tasks = tuple(TaskCost(task, (time_s, time_s)) for task, time_s in (("a", 1.0), ("x", 1.5), ("y", 1.0), ("b", 1.0)))
    assert run(SchedulingProblem("toy", 2, tasks, (CommEdge(0, 3, 5.0),)), "asap").makespan_s == 3.0


@given(st.data())
def test_heft_knows_when_inputs_arrive_on_each_lane(data: st.DataObject) -> None:
    lanes = data.draw(st.integers(1, 4))
    whole = st.integers(0, 5).map(float)
    sources = data.draw(st.lists(st.tuples(st.integers(0, lanes - 1), whole, whole), max_size=5))  # lane, end, delay
    edges = [CommEdge(i, len(sources), delay) for i, (_, _, delay) in enumerate(sources)]
    found = insertion._ready(
        [(e.src, e.delay_s) for e in edges], [lane for lane, _, _ in sources], [end for _, end, _ in sources], lanes
    )
    for k in range(lanes):
        assert found[k] == max([end + (delay if lane != k else 0.0) for lane, end, delay in sources], default=0.0)


def test_heft_prefers_the_lane_that_ends_first_and_asap_the_one_that_starts_first() -> None:
    tasks = (TaskCost("a", (1.0, 5.0)), TaskCost("b", (1.0, 5.0)))
    costs = SchedulingProblem("toy", 2, tasks, ())
    assert [p.lane for p in run(costs, "heft").placements] == [0, 0]
    assert run(costs, "heft").makespan_s == 2.0
    assert run(costs, "asap").makespan_s == 2.0  # its own takes 5 s: the sequential one is returned


def test_the_sequential_lane_is_the_fastest_overall() -> None:
    costs = SchedulingProblem("toy", 3, (TaskCost("a", (1.0, 3.0, 2.0)), TaskCost("b", (9.0, 3.0, 2.0))), ())
    schedule = run(costs, "sequential")
    assert {p.lane for p in schedule.placements} == {2}
    assert (schedule.makespan_s, schedule.speedup) == (4.0, 1.0)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_peak_memory_is_the_most_alive_at_any_moment(data: st.DataObject) -> None:
    costs = data.draw(problems())
    played = play(costs, data.draw(lane_orders(costs)))
    at = {p.task: p for p in played}
    index = {c.task: i for i, c in enumerate(costs.tasks)}
    alive = []
    for c in costs.tasks:
        users = [at[costs.tasks[e.dst].task].end_s for e in costs.edges if e.src == index[c.task]]
        alive.append((at[c.task].start_s, max([at[c.task].end_s, *users]), c.memory_bytes))
    times = sorted({t for a, b, _ in alive for t in (a, b)})
    # What ends at t has made room; what begins at t needs its own, even where it lives for no time.
    needed = [sum(m for a, b, m in alive if a < t < b or a == t) for t in times]
    assert peak_memory(costs, played)[0] == costs.static_bytes + max(needed, default=0)


def test_an_output_lives_until_its_last_consumer_ends() -> None:
    tasks = (
        TaskCost("a", (1.0,), memory_bytes=4),
        TaskCost("b", (1.0,), memory_bytes=2),
        TaskCost("c", (1.0,), memory_bytes=1),
    )
    chain = SchedulingProblem("toy", 1, tasks, (CommEdge(0, 1), CommEdge(1, 2)), static_bytes=10)
    fork = replace(chain, edges=(CommEdge(0, 1), CommEdge(0, 2), CommEdge(1, 2)))
    assert run(chain, "sequential").peak_bytes == 10 + 4 + 2
    assert run(fork, "sequential").peak_bytes == 10 + 4 + 2 + 1


@EVERY
def test_a_problem_that_does_not_fit_says_what_it_needs_and_has(name: str) -> None:
    tasks = tuple(TaskCost(task, (1.0, 1.0), memory_bytes=size) for task, size in (("a", 100), ("b", 50), ("c", 7)))
    costs = SchedulingProblem(
        "toy", 2, tasks, (CommEdge(0, 2), CommEdge(1, 2)), memory_limit_bytes=166, static_bytes=10
    )
    with pytest.raises(Infeasible) as caught:
        run(costs, name)
    assert str(caught.value) == (
        "no schedule on 'toy' keeps to 166 bytes of memory: the smallest takes 167 at its peak "
        "(10 static; the largest of 3 outputs alive then: 'a' 100, 'b' 50, 'c' 7)"
    )
    assert run(replace(costs, memory_limit_bytes=167), name).peak_bytes == 167


@EVERY
def test_a_parallel_schedule_that_does_not_fit_gives_way_to_the_sequential_one(name: str) -> None:
    tasks = tuple(TaskCost(f"t{i}", (1.0, 1.0), memory_bytes=10) for i in range(4))
    tight = run(SchedulingProblem("toy", 2, tasks, (), memory_limit_bytes=19), name)
    assert (tight.makespan_s, tight.peak_bytes) == (4.0, 10)
    if name != "sequential":
        hurry = {"latency_bound": 2.0} if name == "memory-min" else {}
        roomy = run(SchedulingProblem("toy", 2, tasks, (), memory_limit_bytes=20), name, **hurry)
        assert (roomy.makespan_s, roomy.peak_bytes) == (2.0, 20)


def test_energy_adds_the_tasks_the_crossing_edges_and_the_static_power() -> None:
    tasks = tuple(TaskCost(t, (1.0, 1.0), energy_j={"compute": 1.0, "dram": 0.5}) for t in "abc")
    edges = (CommEdge(0, 1, 0.0, 8, 0.25), CommEdge(0, 2, 0.0, 8, 0.125))
    costs = SchedulingProblem("toy", 2, tasks, edges, static_power_w=3.0)
    played = play(costs, [[0, 1], [2]])
    # 3 x 1 J, 3 x 0.5 J, one edge crosses, 3 W for 2 s
    assert energy(costs, played) == {"compute": 3.0, "dram": 1.5, "noc": 0.125, "static": 6.0, "total": 10.625}
    assert list(energy(costs, played)) == ["compute", "dram", "noc", "static", "total"]


def test_energy_that_nobody_stated_is_unknown_not_zero() -> None:
    assert run(NAMED["chain"], "heft").energy_j == {}


@EVERY
def test_what_the_schedule_says_agrees_with_its_placements(name: str) -> None:
    costs = replace(NAMED["everything"], static_power_w=7.0, static_bytes=11)
    schedule = run(costs, name)
    assert schedule.peak_bytes == peak_memory(costs, schedule.placements)[0]
    assert schedule.energy_j == energy(costs, schedule.placements)
    assert schedule.energy_j["static"] == pytest.approx(7.0 * schedule.makespan_s)


def test_finish_keeps_orders_that_beat_the_sequential_schedule_and_drops_those_that_do_not() -> None:
    costs = SchedulingProblem("toy", 2, (TaskCost("a", (1.0, 9.0)), TaskCost("b", (1.0, 1.0))), ())
    assert evaluate_orders(costs, [[0], [1]], "mine").placements == (Placement("a", 0, 0, 1), Placement("b", 1, 0, 1))
    assert evaluate_orders(costs, [[1], [0]], "mine").makespan_s == 2.0


def test_an_unknown_scheduler_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no scheduler is called 'hefft': did you mean heft\?"):
        run(NAMED["chain"], "hefft")
    with pytest.raises(UnknownName, match="no scheduler"):
        describe("best")


@EVERY
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"scheduler '{name}' has no option 'colour'"):
        run(NAMED["chain"], name, colour="red")


def test_the_table_describes_every_scheduler_in_one_line() -> None:
    assert names()[:4] == ("sequential", "asap", "heft", "forward-backward")
    assert set(names()) >= {"memory-list", "local-search", "exact", "memory-min", "pareto"}
    for name in names():
        assert describe(name) == SCHEDULERS[name].description
        assert 10 < len(describe(name)) <= 100 and "\n" not in describe(name)


def test_a_schedule_is_plain_data() -> None:
    schedule = run(NAMED["everything"], "heft")
    assert all(type(p.start_s) is float and type(p.lane) is int for p in schedule.placements)
    json.dumps([schedule.makespan_s, schedule.lower_bound_s, dict(schedule.energy_j), schedule.peak_bytes])
