"""What is recommended: nothing beats it, it keeps the limit, and the step as PyTorch runs it stays what it is."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw import pipeline, recommendation, reports
from pararev_hw.check import check_schedule
from pararev_hw.costmodels import cost, roofline
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.recommendation import Search
from pararev_hw.reports import units
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import Traced, trace_step
from pararev_hw.types import Comparison, Device, Study

OPTIONS: dict[str, Any] = {"width": 0.0625, "batch": 2, "timesteps": 1, "input_shape": (3, 16, 16), "spikes": "0.2"}

cost_module = import_module("pararev_hw.costmodels.cost")  # the name in the package is the function


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("edge8")


@pytest.fixture(scope="module")
def step(device: Device) -> Traced:
    return recommendation.traced("pararevsnn21", device, TraceOptions(**OPTIONS))


@pytest.fixture(scope="module")
def study(step: Traced, device: Device) -> Study:
    return recommendation.study(step, device)


def test_nothing_that_was_tried_beats_what_is_recommended(study: Study) -> None:
    named = {r.name: r.prediction for r in study.recommendations}
    tried = (*study.predictions, *study.front)
    limit = study.sequential.peak_bytes
    assert study.memory_limit_bytes == limit and not study.limit_given
    assert named["fastest"].latency_s <= min(p.latency_s for p in tried) * (1 + 1e-9)
    assert named["least_memory"].peak_bytes == min(p.peak_bytes for p in tried)
    assert named["within_memory"].peak_bytes <= limit
    assert named["within_memory"].latency_s <= min(p.latency_s for p in tried if p.peak_bytes <= limit) * (1 + 1e-9)
    assert study.chosen is named["within_memory"]


@pytest.mark.parametrize("name", ["edge8", "h200"])
def test_a_study_costs_a_graph_once_for_each_launch(step: Traced, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[tuple[Any, ...]]] = {"op_costs": [], "traffic": [], "buffers": [], "planned_buffers": []}

    def watch(module: Any, work: str) -> None:
        original = getattr(module, work)

        def watched(*arguments: Any) -> Any:
            asked[work].append(arguments)
            return original(*arguments)

        monkeypatch.setattr(module, work, watched)

    watch(roofline, "op_costs")
    for work in ("traffic", "buffers", "planned_buffers"):
        watch(cost_module, work)
    studied = recommendation.study(step, load_device(name))
    launches = 2 if name == "h200" else 1
    graphs = {id(graph) for graph, *_ in asked["traffic"]}
    assert len(graphs) >= 1 + len(studied.variants)
    for work, arguments in asked.items():
        evaluated = [(id(graph), others[-1] if work == "op_costs" else "") for graph, *others in arguments]
        assert len(evaluated) == len(set(evaluated)), work
    assert len(asked["op_costs"]) == len(graphs) + launches - 1
    assert cost(step.graph, load_device(name)) is not cost(step.graph, load_device(name))  # nothing is kept afterwards


def test_of_two_that_are_as_fast_the_smaller_one_is_recommended(study: Study) -> None:
    fast = min(study.predictions, key=lambda p: p.latency_s)
    large = replace(fast, peak_bytes=2 * fast.peak_bytes)
    smaller = replace(fast, peak_bytes=fast.peak_bytes - 1)
    assert recommendation.recommended((large, fast, smaller, fast), large.peak_bytes)[0].prediction is smaller


def test_a_search_ends_with_its_budget_and_says_what_it_left_out(step: Traced, device: Device) -> None:
    spent = iter([0.0] * 2 + [9.0] * 50)  # over after the front was begun
    budget = recommendation.Budget(2.5, lambda: next(spent))
    study = recommendation.study(step, device, Search(budget=budget))
    assert all(line.endswith("the 2.5 s given for the search were over") for line in study.not_searched)
    assert [line.split(":")[0] for line in study.not_searched] == [
        "further schedules between the fastest and the smallest",
        "rewrites",
        "tasks by module",
    ]
    assert not any(p.choices for p in study.predictions)
    over = recommendation.study(step, device, Search(budget=recommendation.Budget(1.0, lambda: 1.0)))
    assert [line.split(":")[0] for line in over.not_searched] == [
        "schedules between the fastest and the smallest",
        "rewrites",
        "tasks by module",
    ]
    assert over.chosen.latency_s <= over.sequential.latency_s


def test_the_front_falls_in_latency_as_memory_grows(study: Study) -> None:
    assert len(study.front) >= 3
    for a, b in pairwise(study.front):
        assert a.peak_bytes < b.peak_bytes and a.latency_s > b.latency_s


def test_the_step_as_pytorch_runs_it_is_not_rewritten(study: Study, step: Traced, device: Device) -> None:
    eager = pipeline.predict(pipeline.plan(step.graph, device, "sequential"))
    assert study.graph is step.graph
    assert (study.sequential.latency_s, study.sequential.peak_bytes) == (eager.latency_s, eager.peak_bytes)
    assert not study.sequential.choices


def test_rewrites_are_searched_and_their_schedules_are_legal(study: Study, device: Device) -> None:
    rewritten = [r.prediction for r in study.recommendations if r.prediction.choices]
    assert rewritten, "splitting gradients shortens this step"
    for p in rewritten:
        check_schedule(cost(study.graph_of(p), device, p.launch or "eager").problem().limited_to(None), p.schedule)
    plain = recommendation.study(study.graph, device)
    assert plain.recommendations[0].prediction.latency_s > study.recommendations[0].prediction.latency_s
    assert "program" in plain.not_searched[0]


def test_a_limit_is_kept_or_refused_with_both_numbers(step: Traced, study: Study, device: Device) -> None:
    limit = study.sequential.peak_bytes + 1
    limited = recommendation.study(step, device, Search(memory_limit=limit, choices="none"))
    assert limited.chosen.peak_bytes <= limit and limited.limit_given
    assert limited.chosen.latency_s <= study.sequential.latency_s
    with pytest.raises(
        Infeasible, match=r"does not fit a memory limit of 100 KiB .*least that any schedule reached is"
    ):
        recommendation.study(step, device, Search(memory_limit=100 << 10, choices="none"))


def test_a_limit_beyond_the_device_is_the_device(step: Traced, device: Device) -> None:
    beyond = recommendation.study(step, device, Search(memory_limit=1 << 50, choices="none"))
    assert beyond.memory_limit_bytes == device.value("memory_bytes") < 1 << 50


def test_a_named_scheduler_is_what_is_shown(step: Traced, device: Device) -> None:
    asap = recommendation.study(step, device, Search(scheduler="asap", choices="none"))
    assert {p.scheduler for p in asap.predictions} == {"sequential", "asap"}


class _TwoInOne(nn.Module):
    """A block whose two halves could run side by side, between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 8, 3), nn.Conv2d(16, 2, 3)
        self.halves = nn.ModuleList([nn.Conv2d(8, 8, k, padding=k // 2) for k in (3, 3)])
        self.block = nn.ModuleList([self.halves])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(torch.cat([torch.relu(half(x)) for half in self.halves], 1))


def _two_in_one(granularity: str) -> Traced:
    torch.manual_seed(0)
    return trace_step(
        _TwoInOne(), torch.zeros(2, 2, 24, 24), loop=None, granularity=granularity, blocks=["first", "halves", "last"]
    )


def test_finer_tasks_are_taken_where_blocks_hide_what_runs_in_parallel(device: Device) -> None:
    step = _two_in_one("auto")
    study = recommendation.study(replace(step, graph=_two_in_one("block").graph, tape=step.coarse), device)
    coarse = recommendation.study(_two_in_one("block"), device)
    assert coarse.chosen.latency_s == coarse.sequential.latency_s  # blocks follow each other
    chosen, graph = study.chosen, study.chosen_graph
    assert chosen.choices[0] == "tasks by module" and graph.granularity == "module"
    assert bool(study.rewrites[chosen.choices]) is study.is_rewritten(chosen)
    assert chosen.latency_s < coarse.chosen.latency_s and chosen.peak_bytes <= coarse.sequential.peak_bytes
    assert sum(t.flops for t in graph.tasks) == sum(t.flops for t in study.graph.tasks)
    assert [t.id for t in graph.tasks] == [t.id for t in _two_in_one("module").graph.tasks]
    check_schedule(cost(graph, device, "eager").problem(None).limited_to(None), chosen.schedule)


class Halting(nn.Module):
    """Stops where its values say: the host waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x)
        return self.second(y) if y.square().sum() > 0 else y


@pytest.mark.parametrize(("model", "optimizer"), [(Halting(), "sgd"), (nn.Linear(8, 8), torch.optim.Adafactor)])
def test_a_step_that_waits_for_values_is_recommended_without_a_cuda_graph(model: nn.Module, optimizer: Any) -> None:
    gpu = load_device("rtx3090")
    graph = ph.trace(model, torch.rand(4, 8), optimizer=optimizer, device="rtx3090")
    study = recommendation.study(graph, gpu)
    assert {p.launch for p in (*study.predictions, *study.front)} == {"eager"}
    assert study.not_searched[0].startswith("CUDA graphs, which cannot wait for values (the ")
    compared = recommendation.compare_steps([graph], gpu).studies[0]
    assert {p.launch for p in compared.predictions} == {"eager"}
    with pytest.raises(BadInput, match=r"a CUDA graph cannot wait for values, and the .*; launch it op by op"):
        pipeline.plan(graph, gpu, launch="graph")
    other = ph.trace(nn.Linear(8, 8), torch.rand(4, 8), optimizer="sgd", device="rtx3090")
    assert recommendation.study(other, gpu).chosen.launch == "graph"


def test_many_finer_tasks_are_tried_with_the_first_rewrites(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendation, "MOST_TASKS_QUICK", 1)
    monkeypatch.setattr(recommendation, "LITTLE_GAIN", 1.0)  # coarse tasks gain enough here
    step = _two_in_one("auto")
    step = replace(step, graph=_two_in_one("block").graph, tape=step.coarse)
    study = recommendation.study(step, device)
    assert study.chosen.choices[0] == "tasks by module" and study.chosen.latency_s < study.sequential.latency_s
    assert len({c for c in study.variants if c[0] == "tasks by module"}) <= 2  # as traced, and rewritten once
    assert "further rewrites of tasks by module (--granularity module tries them)" in study.not_searched
    monkeypatch.setattr(recommendation, "MOST_TASKS_ONE_WAY", 1)
    beyond = recommendation.study(step, device)
    assert beyond.chosen.latency_s == beyond.sequential.latency_s
    assert any("(--granularity module takes them)" in line for line in beyond.not_searched)


def test_a_granularity_that_the_user_gave_stays(device: Device) -> None:
    study = recommendation.study(_two_in_one("block"), device)
    assert {study.graph_of(p).granularity for p in study.predictions} == {"block"} and not study.not_searched


def test_a_comparison_tells_gains_over_the_eager_step_as_a_report_does() -> None:
    gpu, step = load_device("h200"), _two_in_one("block")
    (compared,) = recommendation.compare_steps([step], gpu).studies
    eager = recommendation.study(step, gpu).sequential
    assert compared.eager is not None and compared.eager.latency_s == eager.latency_s > compared.sequential.latency_s
    assert compared.base is compared.eager and compared.sequential.launch == "graph"
    document = reports.comparison_document(Comparison(gpu, (compared,)))
    assert document["networks"][0]["eager_s"] == eager.latency_s
    gain = f"({units.times(eager.latency_s / compared.chosen.latency_s)})"
    assert "in eager PyTorch" in document["networks"][0]["answer"] and gain in document["networks"][0]["answer"]
    (asked,) = recommendation.compare_steps([step], gpu, Search(launch="graph")).studies
    assert asked.eager is None and asked.base is asked.sequential


class _Recurrent(nn.Module):
    """A cell of many small operations, of which two run side by side in each time step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(16, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[1], 24)
        for row in x:
            h = self.cell(row, h)
        return self.out(h)


def test_tasks_stay_coarse_where_starting_them_costs_more_than_lanes_gain(device: Device) -> None:
    torch.manual_seed(0)
    steps = {g: trace_step(_Recurrent(), torch.zeros(4, 2, 16), loop=None, granularity=g) for g in ("auto", "block")}
    assert steps["auto"].graph.granularity == "op"  # what work alone allows
    study = recommendation.study(steps["auto"], device)
    # every task of edge8 begins with a microsecond: an op as a task is all start, so fewer tasks take less time
    start_s = device.get("launch_overhead_s", 0.0)
    assert study.graph.granularity == "block" and [t.id for t in study.graph.tasks] == [
        t.id for t in steps["block"].graph.tasks
    ]
    fewest = pipeline.predict(pipeline.plan(steps["block"].graph, device, "sequential")).latency_s
    assert study.sequential.latency_s == pytest.approx(fewest)
    longest_by_op = start_s * 4 * 8  # eight ops at least follow one another in each call of a GRU cell
    assert study.recommendations[0].prediction.latency_s <= fewest < longest_by_op
    asked = recommendation.study(trace_step(_Recurrent(), torch.zeros(4, 2, 16), loop=None, granularity="op"), device)
    assert asked.graph.granularity == "op"  # as the user said


class _Pairs(torch.autograd.Function):
    """Two residual units side by side that keep their inputs and are run again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, f: nn.Module, g: nn.Module, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b, c, d = tensors[:4]
        with torch.no_grad():
            results = b + f(a), a.clone(), d + g(c), c.clone()
        ctx.units = f, g
        ctx.save_for_backward(a, c)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            results = [unit(x) for x, unit in zip(inputs, ctx.units, strict=True)]
        of_inputs, of_weights = [], []
        for x, y, unit, grad, passed in zip(inputs, results, ctx.units, grads[::2], grads[1::2], strict=True):
            first, *rest = torch.autograd.grad(y, [x, *unit.parameters()], grad)
            of_inputs += [passed + first, grad]
            of_weights += rest
        return (None, None, *of_inputs, *of_weights)


class _Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class _SideBySide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 10)
        self.f, self.g = (nn.ModuleList(_Unit() for _ in range(3)) for _ in "fg")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts: tuple[torch.Tensor, ...] = self.stem(x).chunk(4, 1)
        for f, g in zip(self.f, self.g, strict=True):
            parts = _Pairs.apply(f, g, *parts, *f.parameters(), *g.parameters())  # type: ignore[no-untyped-call]
        result: torch.Tensor = self.head(torch.cat(parts, 1).mean((2, 3)))
        return result


def test_finer_tasks_that_are_of_use_state_the_whole_bound() -> None:
    h200 = load_device("h200")
    step = trace_step(_SideBySide(), torch.zeros(64, 3, 64, 64), granularity="auto")
    study = recommendation.study(step, h200, Search(launch="graph"))
    (finer,) = (p for p in study.predictions if "tasks by module" in p.choices)
    bound_s, bound_by = lower_bound(cost(study.graph_of(finer), h200, "graph").problem(None))
    assert bound_by == "overlap of two lanes"
    assert (finer.schedule.lower_bound_s, finer.schedule.bound_by) == (pytest.approx(bound_s), bound_by)


def test_least_memory_is_looked_for_in_finer_tasks_too(device: Device) -> None:
    torch.manual_seed(0)
    step = trace_step(_SideBySide(), torch.zeros(2, 3, 16, 16), granularity="auto")
    least = next(r.prediction for r in recommendation.study(step, device).recommendations if r.name == "least_memory")
    finer = trace_step(_SideBySide(), torch.zeros(2, 3, 16, 16), granularity="module").graph
    assert step.graph.granularity == "block"
    assert least.peak_bytes <= pipeline.predict(pipeline.plan(finer, device, "memory-min")).peak_bytes
