"""What a reversible stage costs on lanes, from traced graphs: nothing here knows the recurrence but the closed forms.

With t = one forward of F or G, recompute t, gradient 2t (1t for its input, 1t for its weights), L pairs, and nothing
else taking time, a training step of a stage takes the makespans below. Where they come from: Σ over the L + 1 (ParaRev)
or 2L (RevNet) steps of the recurrence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from pararev_hw import rewrites, schedulers
from pararev_hw.graph import critical_path
from pararev_hw.models.networks import reversible_stage
from pararev_hw.models.neurons import IF
from pararev_hw.models.reversible import Coupling
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.tracing import Traced, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph, Buffer, CommEdge, SchedulingProblem, Task, TaskCost
from tests.helpers.brute_force_optimum import optimum


class Stage(nn.Module):
    """One reversible stage behind a layer, so that the gradient of the stage's input is wanted."""

    def __init__(self, pairs: int, coupling: Coupling) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stage = reversible_stage(IF, 2, pairs, coupling=coupling)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.stage(self.stem(x).expand(2, -1, -1, -1, -1))
        return y


@cache
def traced(pairs: int, coupling: Coupling, mode: str = "train") -> Traced:
    return trace_step(Stage(pairs, coupling), torch.empty(1, 3, 4, 4), loop=Loop() if mode == "train" else None)


@cache
def split(pairs: int, coupling: Coupling) -> Traced:
    return rewrites.apply_all(traced(pairs, coupling), ["split"])[0]


def units_of_time(graph: BlockGraph, task: Task) -> float:
    """t/2 for each convolution of a unit (it has two), for each gradient of one asked for."""
    total = 0.0
    for k in task.ops:
        op, kind = graph.ops[k], graph.op_types[graph.ops[k].type]
        if op.module.startswith("stage.") and kind.kind == "conv":
            total += 0.5
        if op.module.startswith("stage.") and kind.kind == "conv_backward":
            total += 0.5 * sum(dict(kind.attributes)["output_mask"][:2])
    return total


def costs(
    graph: BlockGraph,
    lanes: int,
    *,
    exchange_s: float = 0.0,
    transient: int | None = None,
    time: Callable[[BlockGraph, Task], float] = units_of_time,
) -> SchedulingProblem:
    """The problem. `transient`: how many recomputed graphs may be alive at once."""
    tasks = tuple(TaskCost(t.id, (time(graph, t),) * lanes) for t in graph.tasks)
    edges = tuple(CommEdge(e.src, e.dst, exchange_s) for e in graph.edges)
    return SchedulingProblem(
        "unit times", lanes, tasks, edges, memory_limit_bytes=transient, buffers=transient_graphs(graph)
    )


def transient_graphs(graph: BlockGraph) -> tuple[Buffer, ...]:
    """One byte for what each recomputation leaves to gradient tasks: alive from its start to the end of the last."""
    born = {}
    for i, t in enumerate(graph.tasks):
        if t.phase == "recompute" and units_of_time(graph, t) > 0:
            born |= {s: i for k in t.ops for s in graph.ops[k].writes if graph.storages[s].born == k}
    users: dict[int, set[int]] = {}
    for j, t in enumerate(graph.tasks):
        if t.phase == "backward":
            for k in t.ops:
                for s in born.keys() & {*graph.ops[k].reads}:
                    users.setdefault(born[s], {born[s]}).add(j)
    return tuple(Buffer(1, tuple(sorted(found))) for found in users.values())


PAIRS = (1, 2, 3, 5, 8)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("coupling", ["revnet", "pararev"])
def test_everything_serial_takes_8L(coupling: Coupling, pairs: int) -> None:
    for graph in (traced(pairs, coupling).graph, split(pairs, coupling).graph):
        assert schedulers.run(costs(graph, 1), "sequential").makespan_s == 8 * pairs


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("coupling", "apart", "lanes", "makespan"),
    [
        ("revnet", False, 2, lambda n: 6 * n + 1),
        ("revnet", True, 3, lambda n: 4 * n + 2),
        ("pararev", False, 2, lambda n: 4 * n + 3),
        ("pararev", False, 3, lambda n: 3 * n + 4),
        ("pararev", False, 4, lambda n: 3 * n + 4),
    ],
)
def test_the_table_of_makespans(
    coupling: Coupling, apart: bool, lanes: int, makespan: Callable[[int], int], pairs: int
) -> None:
    graph = (split if apart else traced)(pairs, coupling).graph
    problem = costs(graph, lanes)
    found = schedulers.run(problem, "heft")
    assert found.makespan_s == found.lower_bound_s == makespan(pairs)
    if pairs <= 3:  # the bound is ours, too: another solver says the same
        assert optimum(problem) == makespan(pairs)


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_critical_path_of_pararev_ahead_and_split_is_2L_plus_4(pairs: int) -> None:
    graph = split(pairs, "pararev").graph
    assert critical_path(graph, [units_of_time(graph, t) for t in graph.tasks]).length == 2 * pairs + 4


def test_at_8_pairs_six_lanes_reach_that_path() -> None:
    graph = split(8, "pararev").graph
    assert schedulers.run(costs(graph, 6), "heft").makespan_s == 20
    assert optimum(costs(graph, 6)) == 20
    assert optimum(costs(graph, 4)) == 22


@pytest.mark.parametrize(("lanes", "transient", "makespan"), [(2, 2, 35), (3, 2, 35), (3, 3, 31), (3, 4, 28)])
def test_few_transient_graphs_cost_time_on_three_lanes_but_not_on_two(
    lanes: int, transient: int, makespan: int
) -> None:
    assert optimum(costs(traced(8, "pararev").graph, lanes, transient=transient)) == makespan


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize(("coupling", "makespan"), [("revnet", lambda n: 8 * n), ("pararev", lambda n: 4 * n + 4)])
def test_just_in_time_recomputation_overlaps_no_gradient(
    coupling: Coupling, makespan: Callable[[int], int], pairs: int
) -> None:
    graph = rewrites.apply_all(traced(pairs, coupling), ["wait"])[0].graph
    assert optimum(costs(graph, 2)) == makespan(pairs)


def forward_optimum(pairs: int, t_f: float, t_g: float, exchange_s: float) -> float:
    def time(graph: BlockGraph, task: Task) -> float:
        return units_of_time(graph, task) * {"f": t_f, "g": t_g}.get(task.branch, 1.0)

    graph = traced(pairs, "pararev", "infer").graph
    return optimum(costs(graph, 2, exchange_s=exchange_s, time=time))


@pytest.mark.parametrize("exchange", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_forward_on_two_lanes_pays_for_the_exchange(exchange: float, pairs: int) -> None:
    expected = 1 + 1 + (pairs - 1) * min(1 + exchange, 1 + 1)
    assert forward_optimum(pairs, 1.0, 1.0, exchange) == expected


@pytest.mark.parametrize(("t_f", "t_g"), [(2.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("exchange", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("pairs", [2, 4])
def test_where_f_and_g_differ_the_shorter_one_can_hide_the_exchange(
    t_f: float, t_g: float, exchange: float, pairs: int
) -> None:
    # the sum stays with the longer one, and only the shorter one's lane sends and waits
    longer, shorter = max(t_f, t_g), min(t_f, t_g)
    apart, one_lane = longer + exchange, t_f + t_g
    hidden = max(longer, shorter + 2 * exchange)
    found = forward_optimum(pairs, t_f, t_g, exchange)
    assert found == t_f + t_g + (pairs - 1) * min(apart, one_lane, hidden)
    assert found <= t_f + t_g + (pairs - 1) * min(apart, one_lane)


def test_the_bound_is_what_makes_the_table_sharp() -> None:
    graph = traced(8, "pararev").graph
    assert lower_bound(costs(graph, 2))[0] == 35
    assert lower_bound(costs(graph, 3))[0] == 28


class Stepwise(nn.Module):
    """A RevNet-coupled chain of 2L units that each keep a membrane, walked through time step by step."""

    def __init__(self, units: int, timesteps: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(LeakyUnit() for _ in range(units))
        self.timesteps = timesteps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: list[torch.Tensor | None] = [None] * len(self.units)
        seen = []
        for _ in range(self.timesteps):
            older, newer = x, x
            for k, unit in enumerate(self.units):
                out, states[k] = unit(newer, states[k])
                older, newer = newer, older + out
            seen.append(newer)
        return torch.stack(seen)


class LeakyUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, v: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        u = self.conv(x)
        v = u if v is None else u + 0.5 * v
        return torch.sigmoid(v), v


@pytest.mark.parametrize(("pairs", "timesteps"), [(1, 2), (2, 2), (3, 4), (2, 5)])
def test_a_stepwise_revnet_is_a_wavefront_of_blocks_and_time_steps(pairs: int, timesteps: int) -> None:
    graph = trace_step(Stepwise(2 * pairs, timesteps), torch.empty(1, 2, 4, 4), loop=None).graph
    work = [float(any(graph.op_types[graph.ops[k].type].kind == "conv" for k in t.ops)) for t in graph.tasks]
    assert sum(work) == 2 * pairs * timesteps  # a task is a unit at a time step
    path = 2 * pairs + timesteps - 1
    assert critical_path(graph, work).length == path
    lanes = min(2 * pairs, timesteps)
    tasks = tuple(TaskCost(t.id, (w,) * lanes) for t, w in zip(graph.tasks, work, strict=True))
    problem = SchedulingProblem("unit times", lanes, tasks, tuple(CommEdge(e.src, e.dst) for e in graph.edges))
    found = schedulers.run(problem, "heft")
    assert found.makespan_s == path
    assert found.speedup == 2 * pairs * timesteps / path
