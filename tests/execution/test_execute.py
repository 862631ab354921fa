"""A traced step on lanes trains a network exactly as PyTorch's own loop does, whatever the lanes and their order."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pararev_hw import pipeline, schedulers
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, IllegalSchedule, Infeasible, StepFailed, TraceError
from pararev_hw.execution import LaneThreads, LiveBytes, bind, fresh_optimizer_state, lane_orders, network_state
from pararev_hw.execution.lane_order import lane_slots
from pararev_hw.execution.overlap import side_by_side
from pararev_hw.execution.random_numbers import seed_of
from pararev_hw.models import create
from pararev_hw.tracing import ROWS_DIFFER, Traced, trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop, MakeOptimizer
from pararev_hw.types import BlockGraph, Edge, Placement, Schedule
from tests.helpers.random_schedules import (
    batches,
    in_order,
    keeps_edges,
    never_two_at_once,
    random_lanes,
    trained_by_loop,
    trained_on_lanes,
)
from tests.helpers.real_step import assert_same
from tests.helpers.unseen_networks import STRANGERS

SHAPE = (4, 3, 8, 8)
IMAGE = (2, 3, 16, 16)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Sums in kernels are split among threads: one thread, one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def traced_double(model: nn.Module, shape: tuple[int, ...], optimizer: str = "sgd", **options: Any) -> Traced:
    return trace_step(model, torch.empty(shape), loop=Loop(optimizer=OPTIMIZERS[optimizer]), dtype="float64", **options)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create(name, width=0.0625, num_classes=10, timesteps=2).double()


# ---- equal to the plain loop


@pytest.mark.parametrize("name", ["pararevsnn21", "revsresnet21", "msresnet18"])
def test_every_scheduler_trains_a_zoo_network_as_the_plain_loop_does(name: str) -> None:
    model, data = small(name), batches(IMAGE, 2)
    traced = traced_double(model, IMAGE)
    expected = trained_by_loop(model, data)
    run = set[tuple[object, ...]]()
    for scheduler in schedulers.names():
        for lanes in (1, 2, 3, 4):
            made = pipeline.plan(traced.graph, load_device("h200"), scheduler, lanes=lanes, launch="graph")
            orders = lane_orders(traced.graph, made.schedule)
            assert len(orders) == lanes
            if tuple(map(tuple, orders)) in run:
                continue  # another scheduler's order too
            run.add(tuple(map(tuple, orders)))
            found, runs = trained_on_lanes(model, traced, orders, data)
            assert_same(found, expected)
            assert all(never_two_at_once(r) and keeps_edges(traced.graph, r) for r in runs)


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("granularity", ["block", "op"])
def test_strange_networks_train_alike_on_random_lanes(name: str, granularity: str) -> None:
    torch.manual_seed(0)
    model = STRANGERS[name]()
    data = batches(SHAPE, 2, dtype=torch.float32)
    traced = trace_step(model, torch.empty(SHAPE), granularity=granularity)
    if "target:0" not in traced.program.externals.values():
        data = [(x, None) for x, _ in data]
    expected = trained_by_loop(model, data)
    for lanes in (1, 3):
        found, _ = trained_on_lanes(model, traced, random_lanes(traced.graph, lanes, lanes), data)
        assert_same({n: t for n, t in found.items() if n in expected}, expected)


class Words(nn.Module):
    """Tables with sparse gradients: looked up twice, and added up in bags."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(40, 6, sparse=True), nn.Linear(6, 10)
        self.bags = nn.ModuleList(nn.EmbeddingBag(40, 6, mode=m, sparse=True) for m in ("sum", "mean"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole, first = self.table(x).mean(1), self.table(x[:, 0])
        return self.fc(whole * first + sum(bag(x) for bag in self.bags))


def test_sparse_gradients_train_alike_on_random_lanes() -> None:
    torch.manual_seed(0)
    model = Words()
    data = [(torch.randint(0, 40, (4, 7)), torch.randint(0, 10, (4,))) for _ in range(3)]
    traced = trace_step(model, data[0][0], loop=Loop(optimizer=OPTIMIZERS["sgd-plain"]), granularity="op")
    changed = [o for o in traced.graph.ops if traced.graph.op_types[o.type].input_shapes == ((28 + 4, 6), (28 + 4, 6))]
    assert [traced.graph.op_types[o.type].write_bytes for o in changed] == [4 * 32 * 6]  # rows looked up, not the table
    expected = trained_by_loop(model, data, optimizer="sgd-plain")
    dense = {n: t.to_dense() if t.layout is not torch.strided else t for n, t in expected.items()}
    for lanes in (1, 3):
        orders = random_lanes(traced.graph, lanes, lanes)
        got, _ = trained_on_lanes(model, traced, orders, data, optimizer="sgd-plain")
        for name, tensor in dense.items():  # rows that occur twice are added in another order
            torch.testing.assert_close(got[name].to_dense(), tensor, msg=name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (OPTIMIZERS["sgd"], "--optimizer sgd-plain"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "larger after every step"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "larger after every step"),
        (OPTIMIZERS["adam"], "Adam does not support sparse gradients"),
        (torch.optim.SparseAdam, "SparseAdam does not support dense gradients"),  # of the linear layer
    ],
)
def test_an_optimizer_that_cannot_take_sparse_gradients_is_one_line(make: MakeOptimizer, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        trace_step(Words(), torch.zeros(4, 7, dtype=torch.int64), loop=Loop(optimizer=make))


class Bags(nn.Module):
    """Tables alone, as what the optimizer for sparse gradients takes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.bag = nn.Embedding(40, 10, sparse=True), nn.EmbeddingBag(40, 10, mode="sum", sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x).mean(1) + self.bag(x)


@pytest.mark.parametrize(
    ("make", "merges"), [(torch.optim.Adagrad, 2), (partial(torch.optim.SGD, lr=0.1, maximize=True), 0)]
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_equal_rows_of_sparse_gradients_are_merged_where_the_optimizer_does(
    make: MakeOptimizer, merges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(OPTIMIZERS, "of rows", make)  # type: ignore[arg-type]
    model = Bags()
    data = [(torch.randint(0, 40, (4, 7)), torch.randint(0, 10, (4,))) for _ in range(3)]
    traced = trace_step(model, data[0][0], loop=Loop(optimizer=make), granularity="op")
    assert merged_bytes(traced.graph) == [28 * (10 * 4 + 8)] * merges  # 28 rows of 10 floats, an index each
    assert (ROWS_DIFFER in traced.graph.assumptions) == bool(merges)
    expected = trained_by_loop(model, data, optimizer="of rows")
    for lanes in (1, 3):
        orders = random_lanes(traced.graph, lanes, lanes)
        got, _ = trained_on_lanes(model, traced, orders, data, optimizer="of rows")
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name].to_dense(), tensor.to_dense(), msg=name)


def merged_bytes(graph: BlockGraph) -> list[int]:
    types = [graph.op_types[o.type] for o in graph.ops]
    return [t.write_bytes for t in types if t.name == "aten._coalesce.default"]


def test_a_step_with_an_optimizer_for_tables_and_one_for_the_rest() -> None:
    model = Words()
    of_rows = torch.optim.SparseAdam([model.table.weight, *model.bags.parameters()])
    of_layers = torch.optim.Adam(model.fc.parameters())

    def step(model: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.optim.Optimizer) -> None:
        of_rows.zero_grad()
        of_layers.zero_grad()
        model(*inputs).square().mean().backward()
        of_rows.step()
        of_layers.step()

    graph = trace_step(model, torch.zeros(4, 7, dtype=torch.int64), loop=Loop(step=step)).graph
    assert merged_bytes(graph) == [r * (6 * 4 + 8) for r in (28 + 4, 28, 28)]  # the first table is looked up twice
    # two moments of three tables [40, 6] and of the layer [10, 6] + [10]; Adam's counts of steps for weight and bias
    assert graph.memory.optimizer_bytes == 4 * (2 * (3 * 240 + 60 + 10) + 2)


class Drawn(nn.Module):
    """A small network whose layers read what the random choices say."""

    def __init__(self, choices: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.choices = choices
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(kind) for kind, _, _ in choices)
        self.fc = nn.Linear(4, 10)

    def _layer(self, kind: int) -> nn.Module:
        return (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))[kind]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [self.stem(x)]
        for (kind, a, b), layer in zip(self.choices, self.layers, strict=True):
            one, other = made[a % len(made)], made[b % len(made)]
            joined = one + other
            made.append(layer(joined) if kind != 3 else layer(joined) + joined[:, [1, 0, 3, 2]])
        return self.fc(torch.stack(made).sum(0).mean((2, 3)))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(0, 1 << 16),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_networks_train_alike_on_random_lanes(
    choices: list[tuple[int, int, int]], lanes: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model, data = Drawn(choices).double(), batches((2, 3, 6, 6), 2)
    traced = traced_double(model, (2, 3, 6, 6), granularity=("op", "module", "block")[seed % 3])
    found, _ = trained_on_lanes(model, traced, random_lanes(traced.graph, lanes, seed), data)
    assert_same(found, trained_by_loop(model, data))


def test_running_statistics_move_once_per_step() -> None:
    model, data = small("pararevsnn21"), batches(IMAGE, 3)
    traced = traced_double(model, IMAGE)
    found, _ = trained_on_lanes(model, traced, random_lanes(traced.graph, 2, 0), data)
    counts = {n: int(t) for n, t in found.items() if n.endswith("num_batches_tracked")}
    assert counts
    assert set(counts.values()) == {3}


# ---- random ops


class Dropped(nn.Module):
    """Dropout outside and inside a part that is computed again in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
        self.beside = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)
        return self.fc(nn.functional.dropout(y + self.beside(x), 0.25))


class Seeded(TorchDispatchMode):
    """Seeds every random op as the executor does: ops that find the generator in one state have one token."""

    def __init__(self, step_seed: int) -> None:
        super().__init__()
        self.step_seed, self.tokens = step_seed, dict[bytes, int]()
        torch.default_generator.manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        state = torch.default_generator.get_state().numpy().tobytes()
        token = self.tokens.setdefault(state, len(self.tokens))
        torch.default_generator.manual_seed(seed_of(self.step_seed, token))
        out = func(*args, **(kwargs or {}))
        torch.default_generator.manual_seed(token + 1)
        return out


def test_dropout_draws_by_seed_and_token_on_any_lanes() -> None:
    torch.manual_seed(0)
    model, data = Dropped().double(), batches((4, 8), 2)
    traced = traced_double(model, (4, 8), granularity="op")
    chosen = OPTIMIZERS["sgd"](list(model.parameters()))
    found = [
        trained_on_lanes(model, traced, random_lanes(traced.graph, n, n), data, seeds=(5, 6))[0] for n in (1, 2, 4)
    ]
    for n, (x, y) in enumerate(data):
        with Seeded(5 + n):
            chosen.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[arg-type]
            chosen.step()
    for own in found:
        assert_same(own, found[0])
    assert_same({n: t for n, t in found[0].items() if ":" in n and "gradient" not in n}, network_state(model))
    other, _ = trained_on_lanes(model, traced, in_order(traced.graph), data, seeds=(7, 8))
    assert not torch.equal(other["gradient:stem.weight"], found[0]["gradient:stem.weight"])


def test_without_a_seed_one_lane_draws_from_torchs_stream_as_the_plain_loop_does() -> None:
    torch.manual_seed(0)
    model, data = Dropped().double(), batches((4, 8), 3)
    traced = traced_double(model, (4, 8))
    order = (tuple(sorted(range(len(traced.graph.tasks)), key=lambda t: traced.graph.tasks[t].ops[0])),)
    torch.manual_seed(11)
    expected = trained_by_loop(model, data)
    torch.manual_seed(11)
    assert_same(trained_on_lanes(model, traced, order, data)[0], expected)


# ---- memory


def test_a_tensor_is_let_go_after_its_last_use_on_any_lane() -> None:
    """The most bytes alive at once on one lane are exactly what the life of every storage predicts."""
    model, (data,) = small("pararevsnn21"), batches(IMAGE, 1)
    traced = traced_double(model, IMAGE)
    made = pipeline.plan(traced.graph, load_device("h200"), "sequential", lanes=1)
    assert peak(model, traced, lane_orders(traced.graph, made.schedule), data) == pipeline.predict(made).peak_bytes


class LastStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.LSTM(6, 20, 2, batch_first=True, bidirectional=True), nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(x)[0][:, -1])
        return logits


def test_what_a_recurrent_layer_keeps_for_its_gradient_is_alive_until_then() -> None:
    model, (data,) = LastStep(), batches((4, 9, 6), 1)
    data = (data[0].float(), data[1])
    traced = trace_step(model, data[0], loop=Loop(optimizer=OPTIMIZERS["sgd"]))
    made = pipeline.plan(traced.graph, load_device("h200"), "sequential", lanes=1)
    assert peak(model, traced, lane_orders(traced.graph, made.schedule), data) == pipeline.predict(made).peak_bytes


def test_lanes_hold_nothing_but_results_after_a_step() -> None:
    model, (data,) = small("pararevsnn21"), batches(IMAGE, 1)
    traced = traced_double(model, IMAGE)
    seen = LiveBytes()
    peak(model, traced, random_lanes(traced.graph, 3, 1), data, seen)
    gc.collect()
    assert seen.live_bytes == 0


def peak(model: nn.Module, traced: Traced, orders: Any, data: Any, seen: LiveBytes | None = None) -> int:
    seen = LiveBytes() if seen is None else seen
    state = network_state(model) | fresh_optimizer_state(model, OPTIMIZERS["sgd"])
    state |= {"input:0": data[0], "target:0": data[1]}
    step = bind(traced.graph, traced.program, state, orders, note=seen)
    there = LiveBytes(step.static.values()).live_bytes
    with LaneThreads(step) as lanes:
        lanes.run(1)
    results = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in step.results().values()}
    assert seen.live_bytes == sum(results.values())
    step.begin()
    return seen.peak_bytes + there


def test_live_bytes_count_a_storage_once_and_until_it_dies() -> None:
    seen = LiveBytes()
    a = torch.empty(100)
    seen(a)
    seen(a[10:20])
    assert (seen.live_bytes, seen.peak_bytes) == (400, 400)
    part = a[3:]
    del a
    assert seen.live_bytes == 400
    del part
    assert (seen.live_bytes, seen.peak_bytes) == (0, 400)


# ---- lanes and waits


def chain(*edges: tuple[int, int], tasks: int) -> BlockGraph:
    """A graph of tasks that do nothing."""
    graph = trace_step(nn.Linear(2, 10), torch.empty(2, 2)).graph
    made = tuple(replace(graph.tasks[0], id=f"t{k}", ops=()) for k in range(tasks))
    return replace(graph, tasks=made, edges=tuple(Edge(a, b, 0) for a, b in edges))


def test_a_lane_waits_only_where_an_edge_crosses_lanes_and_no_other_wait_implies_it() -> None:
    # lane 0: 0 1; lane 1: 2 3 4. 1 -> 3 implies 0 -> 4; 0 -> 1 is on one lane
    graph = chain((0, 1), (1, 3), (0, 4), (2, 3), tasks=5)
    lanes = lane_slots(graph, [(0, 1), (2, 3, 4)])
    assert [(t.task, t.waits, t.signals) for own in lanes for t in own] == [
        (0, (), ()),
        (1, (), (1,)),
        (2, (), ()),
        (3, (1,), ()),
        (4, (), ()),
    ]


def test_lanes_that_would_wait_for_ever_are_refused() -> None:
    graph = chain((0, 1), (2, 3), tasks=4)
    with pytest.raises(IllegalSchedule, match="wait for each other for ever: 't1', 't3'"):
        lane_slots(graph, [(1, 2), (3, 0)])


def test_a_schedule_of_another_graph_is_refused() -> None:
    graph = chain((0, 1), tasks=2)
    made = Schedule("toy", "test", 1, (Placement("t0", 0, 0.0, 1.0),), 1.0, 1.0, 0.0, "none", False)
    with pytest.raises(IllegalSchedule, match="does not place 't1'"):
        lane_orders(graph, made)
    with pytest.raises(IllegalSchedule, match="'b9'"):
        lane_orders(graph, replace(made, placements=(Placement("b9", 0, 0.0, 1.0),)))


def test_tasks_of_no_length_keep_the_order_of_the_graph() -> None:
    graph = chain((0, 1), (1, 2), tasks=3)
    placed = (Placement("t1", 0, 1.0, 1.0), Placement("t2", 0, 1.0, 2.0), Placement("t0", 0, 1.0, 1.0))
    made = Schedule("toy", "test", 1, placed, 2.0, 2.0, 0.0, "none", False)
    assert lane_orders(graph, made) == ((0, 1, 2),)


def test_time_side_by_side_is_counted_by_hand() -> None:
    assert side_by_side([[(0, 2), (2, 3)], [(1, 4)], [(1.5, 2)]]) == (4, 2)
    assert side_by_side([[(0, 1), (0.5, 2)]]) == (2, 0)
    assert side_by_side([]) == (0, 0)


# ---- threads


class Counting(nn.Module):
    """Multiplies; `torch.get_num_threads` is asked in each thread that runs it, by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.a(x) + self.b(x))


def counted(traced: Traced, seen: dict[str, int], fails_in: str = "") -> Traced:
    """The step with every matrix product telling in which thread it runs and with how many threads it computes."""

    def told(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            name = threading.current_thread().name
            seen[name] = torch.get_num_threads()
            if fails_in and fails_in in name:
                raise ValueError("no such luck\nsecond line")
            return function(*args, **kwargs)

        return call

    calls = tuple(
        replace(c, function=told(c.function)) if "addmm" in str(c.function) else c for c in traced.program.calls
    )
    return traced.with_program(replace(traced.program, calls=calls))


def test_lanes_compute_with_their_own_number_of_threads_and_leave_the_callers_alone() -> None:
    model, data = Counting().double(), batches((4, 8), 2)
    traced = traced_double(model, (4, 8), granularity="module")
    seen: dict[str, int] = {}
    torch.set_num_threads(2)
    trained_on_lanes(model, counted(traced, seen), spread_out(traced.graph), data)
    assert set(seen.values()) == {1}
    assert len(seen) == 2
    assert torch.get_num_threads() == 2


def spread_out(graph: BlockGraph) -> tuple[tuple[int, ...], ...]:
    """Layer b on lane 1, everything else on lane 0."""
    lanes: tuple[list[int], list[int]] = ([], [])
    for k, t in enumerate(graph.tasks):
        lanes[t.block == "b"].append(k)
    return tuple(map(tuple, lanes))


@pytest.mark.parametrize("fails_in", ["MainThread", "lane 1"])
def test_an_op_that_raises_ends_the_step_on_all_lanes_and_is_named(fails_in: str) -> None:
    model, data = Counting().double(), batches((4, 8), 1)
    traced = traced_double(model, (4, 8), granularity="module")
    before = threading.active_count()
    module = "b" if fails_in == "lane 1" else "a"
    with pytest.raises(StepFailed, match=rf"Counting: ValueError while its step ran in .* of {module}: no such luck$"):
        trained_on_lanes(model, counted(traced, {}, fails_in), spread_out(traced.graph), data)
    assert threading.active_count() == before


def test_running_out_of_memory_is_an_answer_that_names_the_op() -> None:
    model, data = Counting().double(), batches((4, 8), 1)
    traced = traced_double(model, (4, 8), granularity="module")

    def greedy(*_: Any) -> Any:
        return torch.empty(1 << 55)

    calls = tuple(replace(c, function=greedy) if "addmm" in str(c.function) else c for c in traced.program.calls)
    hungry = traced.with_program(replace(traced.program, calls=calls))
    with pytest.raises(Infeasible, match=r"memory ran out in .* of (a|b): .*lower the batch"):
        trained_on_lanes(model, hungry, in_order(traced.graph), data)


def test_an_interrupt_ends_all_lanes() -> None:
    model, ((x, y),) = Counting().double(), batches((4, 8), 1)
    traced = traced_double(model, (4, 8), granularity="module")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    calls = tuple(replace(c, function=interrupted) if "addmm" in str(c.function) else c for c in traced.program.calls)
    state = network_state(model) | fresh_optimizer_state(model, OPTIMIZERS["sgd"]) | {"input:0": x, "target:0": y}
    step = bind(traced.graph, replace(traced.program, calls=calls), state, spread_out(traced.graph))
    before = threading.active_count()
    with LaneThreads(step) as lanes:
        with pytest.raises(KeyboardInterrupt):
            lanes.run()
        with pytest.raises(BadInput, match="the lanes of this step have stopped"):
            lanes.run()
    assert threading.active_count() == before


def test_a_step_needs_every_tensor_it_starts_from() -> None:
    model = Counting()
    traced = trace_step(model, torch.empty(4, 8))
    with pytest.raises(BadInput, match="starts from 'input:0', which the given state lacks"):
        bind(traced.graph, traced.program, network_state(model) | fresh_optimizer_state(model, OPTIMIZERS["sgd"]), [()])


def test_a_fresh_optimizer_state_is_that_of_a_new_optimizer() -> None:
    model = Counting()
    before = {n: p.clone() for n, p in model.named_parameters()}
    state = fresh_optimizer_state(model, OPTIMIZERS["adam"])
    assert {n.rpartition(":")[2] for n in state} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(not t.any() for t in state.values())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_bound_step_dies_with_its_tensors() -> None:
    model, (data,) = Counting().double(), batches((4, 8), 1)
    traced = traced_double(model, (4, 8))
    x = data[0].clone()
    state = network_state(model) | fresh_optimizer_state(model, OPTIMIZERS["sgd"])
    step = bind(traced.graph, traced.program, state | {"input:0": x, "target:0": data[1]}, in_order(traced.graph))
    ref = weakref.ref(x)
    del step, x
    gc.collect()
    assert ref() is None
