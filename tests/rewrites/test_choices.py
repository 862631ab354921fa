"""What a schedule may choose: alternatives say what their rewrite does, and the search among them pays."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pararev_hw import execution, models, pipeline, rewrites, schedulers
from pararev_hw.devices import load_hardware
from pararev_hw.errors import BadInput, Infeasible, UnknownName
from pararev_hw.graph import critical_path, totals
from pararev_hw.rewrites import search as search
from pararev_hw.rewrites import select
from pararev_hw.rewrites.alternatives import alternatives, names_of
from pararev_hw.schedulers.alternatives import expand, select_alternatives
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import StepDescription, Traced, trace_step
from pararev_hw.types import Alternative, BlockGraph, CommEdge, Device, DeviceParameter, SchedulingProblem, TaskCost
from tests.helpers.command_line import run
from tests.helpers.costing import costs
from tests.helpers.random_schedules import random_lanes
from tests.helpers.scheduling_problems import problems

H200 = load_hardware("h200")
EDGE = load_hardware("edge8")


@pytest.fixture(scope="module")
def traced() -> Traced:
    torch.manual_seed(1)
    network = models.create("pararevsnn37", width=0.25, num_classes=10, timesteps=2)
    return trace_step(network, torch.empty(2, 3, 16, 16), description=StepDescription(name="pararevsnn37"))


@pytest.fixture(scope="module")
def every(traced: Traced) -> tuple[Alternative, ...]:
    """All that could be rewritten in the traced step."""
    return alternatives(traced, price, tuple(rewrites.REWRITES))


def price(graph: BlockGraph) -> SchedulingProblem:
    return replace(costs(graph, H200, lanes=2, launch="graph"), memory_limit_bytes=None)


def of_kinds(found: tuple[Alternative, ...], *kinds: str) -> list[int]:
    return [i for i, a in enumerate(found) if {n.split(" ")[0] for n in a.name.split("; ")} == set(kinds)]


@pytest.mark.parametrize("kinds", [("fuse",), ("split",), ("wait",)])
def test_all_alternatives_of_a_kind_together_are_the_rewritten_step(
    traced: Traced, every: tuple[Alternative, ...], kinds: tuple[str, ...]
) -> None:
    base = price(traced.graph)
    chosen = of_kinds(every, *kinds)
    settled = select_alternatives(base, expand(base, every), chosen)
    real = price(rewrites.apply_all(traced, kinds)[0].graph)
    assert Counter((c.task, c.times_s) for c in settled.tasks) == Counter((c.task, c.times_s) for c in real.tasks)
    assert lower_bound(settled)[0] == pytest.approx(lower_bound(real)[0], rel=1e-9)

    def edges(costs: SchedulingProblem) -> set[tuple[str, str]]:
        return {(costs.tasks[e.src].task, costs.tasks[e.dst].task) for e in costs.edges}

    assert edges(settled) == edges(real)


@pytest.mark.parametrize("kind", ["share", "fuse", "split", "store", "wait"])
def test_each_alternative_alone_is_its_own_rewrite(traced: Traced, every: tuple[Alternative, ...], kind: str) -> None:
    base = price(traced.graph)
    for i in of_kinds(every, kind)[:3]:
        settled = select_alternatives(base, expand(base, every), [i])
        real = price(rewrites.apply(traced, names_of([every[i].name])).graph)
        # storing counts what is reconstructed for others as still, or as no longer, done: elementwise work
        tolerance = 0.02 if kind == "store" else 1e-9
        spent = [sum(c.best_s for c in costs.tasks) for costs in (settled, real)]
        assert spent[0] == pytest.approx(spent[1], rel=tolerance), every[i].name
        assert lower_bound(settled)[0] == pytest.approx(lower_bound(real)[0], rel=tolerance), every[i].name


def test_rewrites_after_one_another_give_what_they_give_with_the_step_built_after_each(traced: Traced) -> None:
    step = traced
    names: list[str] = []
    for kind in rewrites.REWRITES:
        step, taken = rewrites.apply_all(step, [kind])
        names += [o.name for o in taken]
    draft, taken = rewrites.all_changed(rewrites.drafted(traced), rewrites.REWRITES)
    assert [o.name for o in taken] == names
    assert len({name.partition(" ")[0] for name in names}) >= 3
    assert draft.tape.lines == step.tape.lines
    assert (draft.graph.ops, draft.graph.tasks, draft.graph.edges) == (
        step.graph.ops,
        step.graph.tasks,
        step.graph.edges,
    )


def test_names_can_be_applied_and_nothing_else_is_left_to_take(traced: Traced) -> None:
    found = alternatives(traced, price, ("split",))
    assert found and {a.kind for a in found} == {"split"}
    after = rewrites.apply(traced, names_of([a.name for a in found]))
    assert not rewrites.find(after, ["split"])


# ---- the search


@st.composite
def problems_with_alternatives(draw: st.DrawFn) -> tuple[SchedulingProblem, tuple[Alternative, ...]]:
    """A chain with branches whose tasks may be replaced by one or two others."""
    n = draw(st.integers(1, 5))
    times = [draw(st.integers(1, 6)) for _ in range(n)]
    edges = tuple(CommEdge(a, b) for a, b in itertools.combinations(range(n), 2) if draw(st.booleans()))
    costs = SchedulingProblem("toy", 2, tuple(TaskCost(f"t{i}", (float(t),) * 2) for i, t in enumerate(times)), edges)
    found = []
    for a in range(draw(st.integers(0, 3))):
        i = draw(st.integers(0, n - 1))
        parts = tuple(
            TaskCost(f"a{a}.{k}", (float(draw(st.integers(0, 5))),) * 2) for k in range(draw(st.integers(0, 2)))
        )
        every = tuple(range(len(parts)))
        found.append(
            Alternative(
                name=f"{draw(st.sampled_from(['split', 'fuse']))} {a}",
                kind="split",
                replaces=(i,),
                tasks=parts,
                in_edges={k: every for k, e in enumerate(edges) if e.dst == i},
                out_edges={k: every for k, e in enumerate(edges) if e.src == i},
            )
        )
    return costs, tuple(found)


def heft(costs: SchedulingProblem) -> float:
    return schedulers.run(costs, "heft").makespan_s


@settings(max_examples=40, deadline=None)
@given(problems(max_tasks=6))
def test_the_quick_makespan_is_hefts(costs: SchedulingProblem) -> None:
    assert search.heft_makespan(costs) == heft(costs)


@settings(max_examples=40, deadline=None)
@given(problems_with_alternatives())
def test_the_search_is_no_worse_than_nothing_and_no_better_than_everything_tried(
    made: tuple[SchedulingProblem, tuple[Alternative, ...]],
) -> None:
    costs, found = made
    problem = expand(costs, found)
    legal = {}
    for size in range(len(found) + 1):
        for chosen in itertools.combinations(range(len(found)), size):
            replaced = [i for a in chosen for i in found[a].replaces]
            if len(set(replaced)) == len(replaced):
                legal[chosen] = heft(select_alternatives(costs, problem, chosen))
    names = search.choose(costs, found, heft)
    taken = tuple(i for i, a in enumerate(found) if a.name in names)
    assert min(legal.values()) - 1e-9 <= legal[taken] <= legal[()] + 1e-9
    # no single change would help
    for a in range(len(found)):
        other = tuple(sorted(set(taken) ^ {a}))
        if other in legal:
            assert legal[other] >= legal[taken] * (1 - 1e-5)


def test_the_search_takes_no_more_trials_than_it_is_given() -> None:
    calls = []

    def counted(costs: SchedulingProblem) -> float:
        calls.append(1)
        return heft(costs)

    costs = SchedulingProblem("toy", 1, tuple(TaskCost(f"t{i}", (4.0,)) for i in range(8)), ())
    found = tuple(
        Alternative(f"split {i}", "split", (i,), (TaskCost(f"a{i}", (float(i % 4),)),), {}, {}) for i in range(8)
    )
    search.choose(costs, found, counted, trials=5)
    assert len(calls) <= 5


# ---- the choice for a device


def latency_s(step: Traced, device: Device, scheduler: str = "heft") -> float:
    launch = "graph" if device.kind == "gpu" else "eager"
    return pipeline.predict(pipeline.plan(step.graph, device, scheduler, lanes=2, launch=launch)).latency_s


@pytest.mark.parametrize(("device", "scheduler"), [(H200, "heft"), (EDGE, "asap")], ids=["gpu", "accelerator"])
def test_auto_is_never_slower_than_no_choice_and_says_what_it_took(
    traced: Traced, device: Device, scheduler: str
) -> None:
    after = select.take(traced, device, "auto", lanes=2, scheduler=scheduler)
    assert latency_s(after, device, scheduler) < latency_s(traced, device, scheduler)
    assert [a for a in after.graph.assumptions if a.startswith("choices taken: ")]


class _Towers(nn.Module):
    """3x3 beside 5x5 convolutions, joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        towers = ([nn.Conv2d(8, 8, k, padding=k // 2), nn.GroupNorm(2, 8), nn.ReLU()] * 2 for k in (3, 5))
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.towers = nn.ModuleList(nn.Sequential(*layers) for layers in towers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return torch.cat([tower(x) for tower in self.towers], 1).mean((2, 3))


def test_auto_finds_what_pays_within_a_memory_limit() -> None:
    """HEFT alone would fall back to one lane there, with or without choices."""
    step = trace_step(_Towers(), torch.empty(8, 3, 20, 20), granularity="module")
    room = pipeline.predict(pipeline.plan(step.graph, EDGE, "sequential")).peak_bytes

    def within(step: Traced) -> float:
        plan = pipeline.plan(step.graph, EDGE, "memory-list", lanes=4, memory_limit=room)
        return pipeline.predict(plan).latency_s

    after = select.take(step, EDGE, "auto", lanes=4, scheduler="memory-list", memory_limit=room)
    assert within(after) < 0.95 * within(step)


def with_memory(device: Device, bytes_: float) -> Device:
    room = DeviceParameter(bytes_, "this test", "assumed")
    return replace(device, parameters={**device.parameters, "memory_bytes": room})


@pytest.mark.slow
def test_the_less_memory_there_is_the_less_is_stored_and_the_last_blocks_stay_longest() -> None:
    network = models.create("pararevsnn37", width=0.25, num_classes=10, timesteps=2, blocks=(1, 3, 1, 1))
    step = trace_step(network, torch.empty(4, 3, 16, 16))

    def peak_bytes(step: Traced, device: Device = H200) -> int:
        return pipeline.predict(pipeline.plan(step.graph, device, "heft", lanes=1, launch="graph")).peak_bytes

    plain, full = peak_bytes(step), peak_bytes(select.take(step, H200, "auto", lanes=1))
    assert full > plain
    recomputing = []
    for room in (full * 1.2, plain + 0.4 * (full - plain), plain * 1.001):
        device = with_memory(H200, room)
        after = select.take(step, device, "auto", lanes=1)
        assert peak_bytes(after, device) <= room
        recomputing.append([t.id for t in after.graph.tasks if t.phase == "recompute" and t.flops])
    counts = [len(r) for r in recomputing]
    assert counts == sorted(counts) and counts[0] == 0 and 0 < counts[1] < counts[2]
    assert all(t.startswith(("stages.0", "stages.1")) for t in recomputing[1])


def test_a_memory_that_holds_nothing_is_an_answer(traced: Traced) -> None:
    with pytest.raises(Infeasible, match="MiB"):
        select.take(traced, with_memory(H200, 1000.0), "auto", lanes=2)


def test_kinds_are_taken_everywhere_and_none_leaves_the_step_alone(traced: Traced) -> None:
    assert select.take(traced, H200, "none") is traced
    after = select.take(traced, H200, "split,share")
    assert {t.id for t in after.graph.tasks} == {
        t.id for t in rewrites.apply_all(traced, ["share", "split"])[0].graph.tasks
    }
    assert "choices taken: 12 pieces of common work done once, 20 gradients split" in after.graph.assumptions
    assert select.take(traced, H200, "ahead").graph.tasks == traced.graph.tasks
    assert totals(select.take(traced, H200, "store").graph)["flops"] < totals(traced.graph)["flops"]


@pytest.mark.parametrize(
    ("choices", "error", "said"),
    [("fuze", UnknownName, "fuse"), ("ahead,wait", BadInput, "ahead"), (" ", UnknownName, "known")],
)
def test_choices_that_mean_nothing_are_refused(choices: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        select.parsed(choices)


def test_splitting_shortens_the_chain_of_gradients(traced: Traced) -> None:
    def chain(step: Traced) -> float:
        found = critical_path(step.graph, [math.fsum(c.times_s) for c in price(step.graph).tasks])
        return found.length

    assert chain(select.take(traced, H200, "split")) < chain(traced)


def test_every_verb_takes_choices(tmp_path: object) -> None:
    options = ("--width", "0.0625", "--batch", "2", "--timesteps", "2", "--spikes", "0.2", "--device", "edge8")
    plain = json.loads(run("schedule", "pararevsnn21", *options, "--json").out)
    found = run("schedule", "pararevsnn21", *options, "--choices", "split,share", "--json")
    document = json.loads(found.out)
    assert any(a.startswith("choices taken: ") for a in document["assumptions"])
    assert len(document["placements"]) > len(plain["placements"])
    report = run("report", "pararevsnn21", *options, "--choices", "auto", "-o", f"{tmp_path}/r", "--json")
    assert any(r["choices"] for r in json.loads(report.out)["recommendations"])
    compared = run("compare", "pararevsnn21", *options, "--choices", "split", "--json")
    assert compared.status == 0
    refused = run("schedule", "pararevsnn21", *options, "--choices", "fuze")
    assert refused.status == 2 and "fuze" in refused.line


# ---- chosen, then run for real


@pytest.mark.parametrize(
    ("choices", "optimizer"),
    [
        ("share,split,wait", "adam"),
        ("fuse,split", "sgd"),
        ("store", "sgd"),
        ("store,share,fuse,split", "sgd"),
        ("store,share,fuse,split", "adamw-foreach"),
    ],
)
def test_lanes_that_run_a_rewritten_step_train_the_network_as_the_plain_loop_does(choices: str, optimizer: str) -> None:
    options = TraceOptions(
        batch=2, width=0.0625, timesteps=2, dtype="float64", optimizer=optimizer, granularity="block"
    )
    job = execution.prepare("pararevsnn37", options)
    rewritten = replace(job, traced=select.take(job.traced, EDGE, choices))
    assert len(rewritten.graph.ops) != len(job.graph.ops) or choices == "wait"
    data = execution.batches(job)
    exact = "fuse" not in choices and "store" not in choices
    with (
        execution.LaneRunner(rewritten, random_lanes(rewritten.graph, 2, 7)) as lanes,
        execution.LoopRunner(job) as loop,
    ):
        for _ in range(3):
            batch = next(data)
            lanes.step(batch)
            loop.step(batch)
            # Adam divides by the root of a tiny square: what is rounding in a gradient is more in its first steps
            assert execution.difference(lanes, loop) <= (0.0 if exact else 1e-9 if optimizer == "sgd" else 1e-6)
