"""A prediction is checked against a slow scan that asks, for every interval, who is alive."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput
from pararev_hw.graph.liveness import lives_throughout
from pararev_hw.prediction import memory_curve, predict, step_storages
from pararev_hw.types import (
    ROLES,
    BlockGraph,
    Edge,
    Op,
    OpType,
    Placement,
    Schedule,
    SchedulingProblem,
    StepMemory,
    Storage,
    Task,
    TaskCost,
)
from tests.helpers.costing import costs, op_seconds
from tests.helpers.hand_built_graphs import chain, pararev_stage
from tests.helpers.plain_memory_curve import plain_memory_curve


def in_lanes(problem: SchedulingProblem, lanes: int) -> Schedule:
    """Tasks in order, each on the next lane, when its lane is free and its predecessors have ended."""
    into = problem.predecessors()
    free, ends, placed = [0.0] * lanes, {}, []
    for n, k in enumerate(problem.topological_order()):
        lane = n % lanes
        start = max([free[lane], *(ends[e.src] for e in into[k])])
        ends[k] = free[lane] = start + problem.tasks[k].times_s[lane]
        placed.append(Placement(problem.tasks[k].task, lane, start, ends[k]))
    makespan = max(free)
    work = sum(c.best_s for c in problem.tasks)
    return Schedule(problem.device, "in turn", lanes, tuple(placed), makespan, work, 0.0, "nothing", False)


@st.composite
def cases(draw: st.DrawFn) -> tuple[BlockGraph, Schedule, tuple[float, ...]]:
    """A random graph of up to 5 tasks with up to 4 ops each, and up to 2 ops of no task, placed at random (overlaps and
    gaps included)."""
    n_tasks = draw(st.integers(1, 5))
    per_task = [draw(st.integers(0, 4)) for _ in range(n_tasks)]
    n_ops, n_storages = sum(per_task) + draw(st.integers(0, 2)), draw(st.integers(0, 8))
    storages = tuple(
        Storage(
            draw(st.integers(0, 1000)),
            draw(st.sampled_from(ROLES)),
            draw(st.integers(-1, n_ops - 1)),
            draw(st.integers(0, n_ops)),
        )
        for _ in range(n_storages)
    )
    ids = st.lists(st.integers(0, n_storages - 1), max_size=3, unique=True) if n_storages else st.just([])
    ops = tuple(Op(0, "", "forward", tuple(draw(ids)), tuple(draw(ids)), ()) for _ in range(n_ops))
    order = draw(st.permutations(range(n_ops)))  # which ops form a task does not depend on their numbers
    at, tasks = 0, []
    for k, size in enumerate(per_task):
        members = tuple(sorted(order[at : at + size]))
        tasks.append(Task(f"t{k}", f"t{k}", "", "forward", members, 0, 0, 0, 0))
        at += size
    graph = BlockGraph(
        "random",
        "train",
        1,
        None,
        "float32",
        "op",
        (),
        0,
        (OpType("aten.add.Tensor", "elementwise", "float32", (), (), (), 0, 0, 0, 0),),
        ops,
        storages,
        tuple(tasks),
        (),
        StepMemory(0, 0, 0, 0, 0, 0, 0, 0),
    )
    starts = [draw(st.integers(0, 20)) for _ in tasks]
    placed = tuple(
        Placement(t.id, k, float(start), float(start + draw(st.integers(0, 8))))
        for k, (t, start) in enumerate(zip(tasks, starts, strict=True))
    )
    makespan = max(p.end_s for p in placed)
    seconds = tuple(float(draw(st.integers(0, 3))) for _ in ops)
    return graph, Schedule("d", "s", n_tasks, placed, makespan, makespan, 0.0, "nothing", False), seconds


def alive_at(graph: BlockGraph, schedule: Schedule, seconds: tuple[float, ...], time_s: float) -> dict[str, int]:
    """Bytes by role at a moment, by asking every storage and every op."""
    spans: dict[int, tuple[float, float]] = {}
    for task, p in zip(graph.tasks, schedule.placements, strict=True):
        total = sum(seconds[i] for i in task.ops)
        done = 0.0  # ops of no task are left out of `spans`
        for i in task.ops:
            part = seconds[i] / total if total else 1 / len(task.ops)
            spans[i] = (p.start_s + (p.end_s - p.start_s) * done, p.start_s + (p.end_s - p.start_s) * (done + part))
            done += part
    live: dict[str, int] = {}
    for k, s in enumerate(graph.storages):
        born = [spans[i][0] for i in spans if k in graph.ops[i].writes or i == s.born]
        used = [spans[i][1] for i in spans if k in (*graph.ops[i].reads, *graph.ops[i].writes) or i == s.born]
        here = lives_throughout(s) or (
            bool(born) and bool(used) and min(born) <= time_s and (time_s < max(used) or s.freed == len(graph.ops))
        )
        live[s.role] = live.get(s.role, 0) + here * s.bytes
    return live


@settings(max_examples=300, deadline=None)
@given(cases())
def test_memory_curve_equals_a_scan_of_every_interval(case: tuple[BlockGraph, Schedule, tuple[float, ...]]) -> None:
    graph, schedule, seconds = case
    curve = memory_curve(graph, schedule.placements, schedule.makespan_s, seconds)
    times = curve.times_s
    assert times[0] == 0.0 and list(times) == sorted(set(times)) and times[-1] >= schedule.makespan_s
    for k, (a, b) in enumerate(zip(times, (*times[1:], times[-1] + 1), strict=True)):
        if b - a < 1e-9:  # two ways to round one moment
            continue
        live = alive_at(graph, schedule, seconds, (a + b) / 2)
        for role in ROLES:
            assert curve.bytes.get(role, (0,) * len(times))[k] == live.get(role, 0), (role, a, b)


@settings(max_examples=300, deadline=None)
@given(cases(), st.booleans())
def test_storages_of_a_graph_give_each_schedule_the_curve_that_it_has_by_itself(
    case: tuple[BlockGraph, Schedule, tuple[float, ...]], planned: bool
) -> None:
    graph, schedule, seconds = case
    op_seconds = None if planned else seconds
    storages = step_storages(graph, op_seconds)
    for scale in (1.0, 3.0):
        placed = [replace(p, start_s=scale * p.start_s, end_s=scale * p.end_s) for p in schedule.placements]
        end_s = scale * schedule.makespan_s
        assert storages.curve(placed, end_s) == plain_memory_curve(graph, placed, end_s, op_seconds)


@pytest.mark.parametrize("device_name", ["h200", "edge8"])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("make", [chain, pararev_stage])
def test_prediction_adds_up(device_name: str, lanes: int, make: object) -> None:
    graph = make(3, rate=0.2)  # type: ignore[operator]
    device = load_device(device_name)
    problem = costs(graph, device, lanes=lanes)
    schedule = in_lanes(problem, lanes)
    p = predict(graph, device, problem, schedule, op_seconds(graph, device))
    busy = sum(q.end_s - q.start_s for q in schedule.placements)
    assert p.latency_s == schedule.makespan_s
    assert sum(p.lane_busy_s) == pytest.approx(busy)
    assert sum(p.time_by_phase_s.values()) == pytest.approx(busy)
    assert p.energy_j["total"] == pytest.approx(sum(v for k, v in p.energy_j.items() if k != "total"))
    assert p.energy_j["static"] == pytest.approx(problem.static_power_w * schedule.makespan_s)
    for part, joule in p.energy_j.items():
        assert joule == pytest.approx(sum(phase.get(part, 0.0) for phase in p.energy_by_phase_j.values()))
    assert p.peak_bytes == max(p.memory.total) == p.schedule.peak_bytes
    assert p.schedule.energy_j == p.energy_j
    assert p.host_s == pytest.approx(sum(c.host_s for c in problem.tasks))
    assert p.launch == ("eager" if device.kind == "gpu" else "")
    assert p.provenance == "assumed"
    # before the step: what persists. After it: that and what the step leaves
    persistent = sum(s.bytes for s in graph.storages if lives_throughout(s))
    left = sum(s.bytes for s in graph.storages if not lives_throughout(s) and s.freed == len(graph.ops))
    assert problem.static_bytes == persistent
    assert p.memory.total[-1] == persistent + left


def test_messages_between_lanes_cost_energy_and_those_within_a_lane_none() -> None:
    graph, device = pararev_stage(3), load_device("edge8")
    problem = costs(graph, device, lanes=2)

    def noc_j(lanes: int) -> float:
        return predict(graph, device, problem, in_lanes(problem, lanes), op_seconds(graph, device)).energy_j.get(
            "noc", 0
        )

    lane = {p.task: p.lane for p in in_lanes(problem, 2).placements}
    crossing = [e.energy_j for e in problem.edges if lane[problem.tasks[e.src].task] != lane[problem.tasks[e.dst].task]]
    own = sum(c.energy_j["noc"] for c in problem.tasks)  # weights that are kept in other cores' memories
    assert noc_j(1) == pytest.approx(own)
    assert noc_j(2) - own == pytest.approx(sum(crossing)) and noc_j(2) > own


def test_running_branches_together_never_needs_less_memory_than_one_after_another() -> None:
    graph, device = pararev_stage(4), load_device("h200")
    problem, seconds = costs(graph, device), op_seconds(graph, device)
    serial = predict(graph, device, problem, in_lanes(problem, 1), seconds)
    # everything at once, ended only by the makespan: an upper bound on what any schedule holds
    at_once = replace(
        in_lanes(problem, 1), placements=tuple(Placement(t.id, 0, 0.0, 1.0) for t in graph.tasks), makespan_s=1.0
    )
    assert serial.peak_bytes <= predict(graph, device, problem, at_once, seconds).peak_bytes
    assert serial.peak_bytes < sum(s.bytes for s in graph.storages)


def test_chain_holds_every_saved_spike_when_backward_begins() -> None:
    graph, device = chain(3), load_device("h200")
    problem = costs(graph, device)
    p = predict(graph, device, problem, in_lanes(problem, 1), op_seconds(graph, device))
    image = 4 * 2 * 8 * 8 * 8 * 4  # T x B x C x H x W float32
    assert max(p.memory.bytes["saved"]) == 3 * image
    assert p.memory.bytes["saved"][-1] == 0
    assert p.memory.bytes["gradient"][-1] == 3 * 8 * 8 * 9 * 4  # .grad of each weight stays


def test_mismatched_inputs_are_refused() -> None:
    graph, device = chain(2), load_device("h200")
    problem, seconds = costs(graph, device), op_seconds(graph, device)
    schedule = in_lanes(problem, 1)
    with pytest.raises(BadInput, match="one per op"):
        predict(graph, device, problem, schedule, seconds[1:])
    with pytest.raises(BadInput, match="not those of"):
        predict(graph, device, costs(chain(3), device), schedule, seconds)
    with pytest.raises(BadInput, match=r"does not place task 'layer0\.:update'"):
        predict(graph, device, problem, replace(schedule, placements=schedule.placements[:-1]), seconds)


def big_graph(n_ops: int, per_task: int) -> tuple[BlockGraph, SchedulingProblem, Schedule]:
    """A chain of tasks; every op writes one storage and reads the two before."""
    ops = tuple(Op(0, "", "forward", tuple(range(max(0, i - 2), i)), (i,), ()) for i in range(n_ops))
    storages = tuple(Storage(4096, ROLES[i % len(ROLES)], i, min(n_ops - 1, i + 2)) for i in range(n_ops))
    tasks = tuple(
        Task(f"t{a}", f"t{a}", "", "forward", tuple(range(a, a + per_task)), 0, 0, 0, 0)
        for a in range(0, n_ops, per_task)
    )
    edges = tuple(Edge(k, k + 1, 4096) for k in range(len(tasks) - 1))
    op_type = OpType("aten.add.Tensor", "elementwise", "float32", (), ((1024,),), (), 0, 1024, 8192, 4096)
    graph = BlockGraph(
        "big", "train", 1, None, "float32", "op", (), 0, (op_type,), ops, storages, tasks, edges,
        StepMemory(0, 0, 0, 0, 0, 0, 0, 0),
    )  # fmt: skip
    problem = SchedulingProblem("d", 1, tuple(TaskCost(t.id, (1e-3,)) for t in tasks), ())
    placed = tuple(Placement(t.id, 0, k * 1e-3, (k + 1) * 1e-3) for k, t in enumerate(tasks))
    span = len(tasks) * 1e-3
    return graph, problem, Schedule("d", "s", 1, placed, span, span, span, "work", True)


def test_a_step_of_50_000_ops_is_predicted_whole() -> None:
    graph, problem, schedule = big_graph(50_000, 25)
    predicted = predict(graph, load_device("h200"), problem, schedule, (1.0,) * len(graph.ops))
    assert predicted.latency_s == schedule.makespan_s
    assert predicted.memory.peak_bytes >= max(s.bytes for s in graph.storages)
