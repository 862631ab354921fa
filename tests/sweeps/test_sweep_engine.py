"""Many configurations at once give what the pipeline gives for each: latency, energy, peak memory."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import pipeline, target_graph
from pararev_hw.devices import bare_device
from pararev_hw.errors import Infeasible
from pararev_hw.simulate import play, play_sequential
from pararev_hw.sweeps.columns import FAILURES, NO_CORE, NO_ROOM, TaskColumns
from pararev_hw.sweeps.engine import Engine
from pararev_hw.sweeps.replay import orders_with_waits, replay, sequential_seconds
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, CommEdge, Device, SchedulingProblem, TaskCost

CLOSE = 1e-9


@cache
def graph(network: str = "pararevsnn21", mode: str = "train") -> BlockGraph:
    found = "train" if mode == "train" else "infer"
    return target_graph.build_graph(network, TraceOptions(batch=2, width=0.0625, mode=found, spikes="0.2"))  # type: ignore[arg-type]


@cache
def device(cores: bool) -> Device:
    """edge8 as it describes its cores, or as the plain roofline of its rates."""
    found = bare_device(pipeline.find_device("edge8"))
    if cores:
        return found
    kept = {n: f for n, f in found.parameters.items() if not n.startswith("pe_")}
    return replace(found, parameters=kept)


@cache
def engine(network: str, mode: str, cores: bool, scheduler: str) -> Engine:
    return Engine(graph(network, mode), device(cores), scheduler)


FACTORS = st.floats(-4, 4).map(lambda k: 2.0**k)


@settings(max_examples=15, deadline=None)
@given(
    network=st.sampled_from(["pararevsnn21", "revsresnet21"]),
    mode=st.sampled_from(["train", "infer"]),
    cores=st.booleans(),
    scheduler=st.sampled_from(["heft", "asap", "sequential"]),
    lanes=st.integers(1, 9),
    sram=st.integers(13, 23).map(lambda k: 2.0**k),
    factors=st.lists(FACTORS, min_size=5, max_size=5),
)
def test_a_configuration_among_others_costs_what_the_pipeline_says(
    network: str, mode: str, cores: bool, scheduler: str, lanes: int, sram: float, factors: list[float]
) -> None:
    e = engine(network, mode, cores, scheduler)
    names = ["memory_bandwidth_bytes_per_s", "noc_bandwidth_bytes_per_s", "sram_bandwidth_bytes_per_s"]
    names += ["vector_flops_per_s.float32", "noc_latency_s"]
    values = {n: e.device.value(n) * f for n, f in zip(names, factors, strict=True)} | {"sram_bytes_per_lane": sram}
    rng = np.random.default_rng(3)
    columns = {n: np.append(v * 2.0 ** rng.integers(-2, 3, 4), v) for n, v in values.items()}
    found = e(columns, lanes, 5)
    try:
        study = e.study(values, lanes)
    except Infeasible:
        assert found.failure[-1] in (NO_ROOM, NO_CORE)
        return
    assert found.failure[-1] == 0
    assert found.latency_s[-1] == pytest.approx(study.chosen.latency_s, rel=CLOSE)
    assert found.sequential_s[-1] == pytest.approx(study.sequential.latency_s, rel=CLOSE)
    assert found.peak_bytes[-1] == study.chosen.peak_bytes
    for part, joule in study.chosen.energy_j.items():
        assert found.energy_j[part][-1] == pytest.approx(joule, rel=CLOSE, abs=1e-30), part


def test_a_step_that_the_memory_does_not_hold_is_said_to_be_so() -> None:
    e = engine("pararevsnn21", "train", True, "heft")
    need = e.study({}, 2).sequential.peak_bytes
    found = e({"memory_bytes": np.array([need - 1.0, float(need)])}, 2, 2)
    assert [FAILURES[k] for k in found.failure] == ["the main memory does not hold the step", ""]
    # with room for the sequential step alone, that is what is chosen
    assert found.peak_bytes[1] == need
    assert e.study({"memory_bytes": float(need)}, 2).chosen.scheduler == "sequential"


def test_a_memory_limit_is_kept_by_every_configuration_and_by_its_report() -> None:
    free = engine("pararevsnn21", "train", True, "heft")
    sequential = free.study({}, 2).sequential.peak_bytes
    parallel = free({}, 2, 1).peak_bytes[0]
    assert sequential < parallel, "without a limit lanes are bought with memory"
    limit = int(sequential + 0.5 * (parallel - sequential))
    limited = Engine(graph(), device(True), "heft", limit)
    outcome, study = limited({}, 2, 1), limited.study({}, 2)
    assert outcome.failure[0] == 0 and outcome.peak_bytes[0] <= limit
    assert outcome.peak_bytes[0] == study.chosen.peak_bytes
    assert outcome.latency_s[0] == pytest.approx(study.chosen.latency_s, rel=CLOSE)
    # lanes help within the limit too: the order is decided for it
    assert outcome.latency_s[0] < outcome.sequential_s[0]
    none = Engine(graph(), device(True), "heft", sequential - 1)({}, 2, 1)
    assert FAILURES[none.failure[0]] == "the step needs more than the memory limit"


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[SchedulingProblem], list[list[int]], list[tuple[int, int]]]:
    """Problems that differ in numbers alone, lane orders for all of them, and waits between the lanes."""
    n, lanes, count = draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pairs = [(i, j) for j in range(n) for i in range(j) if draw(st.integers(0, 3)) == 0]
    where = [draw(st.integers(0, lanes - 1)) for _ in range(n)]
    orders = [[i for i in range(n) if where[i] == k] for k in range(lanes)]
    sizes = [draw(st.integers(0, 5)) for _ in pairs]
    time_s = st.integers(0, 6).map(float) | st.floats(0.1, 5)
    found = []
    for _ in range(count):
        tasks = [
            TaskCost(
                f"t{i}", (draw(time_s),) * lanes, bandwidth_demand=draw(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
            )
            for i in range(n)
        ]
        latency, slow = draw(st.sampled_from([0.0, 0.5, 2.0])), draw(st.sampled_from([0.0, 0.25]))
        edges = tuple(CommEdge(i, j, latency + slow * s, s) for (i, j), s in zip(pairs, sizes, strict=True))
        found.append(SchedulingProblem("d", lanes, tuple(tasks), edges))
    across = [(i, j) for j in range(n) for i in range(j) if where[i] != where[j]]
    return found, orders, [pair for pair in across if draw(st.integers(0, 5)) == 0]


@settings(max_examples=100, deadline=None)
@given(problems())
def test_replay_is_the_simulator_with_a_last_axis(
    case: tuple[list[SchedulingProblem], list[list[int]], list[tuple[int, int]]],
) -> None:
    found, orders, waits = case
    n = len(found[0].tasks)
    columns = _columns(found)
    edges = [(e.src, e.dst, e.bytes) for e in found[0].edges]
    starts, ends = replay(orders_with_waits(orders, edges, waits), columns)
    for b, costs in enumerate(found):
        played = {p.task: p for p in play(costs, orders, waits)}
        for i in range(n):
            assert starts[i, b] == pytest.approx(played[f"t{i}"].start_s, rel=CLOSE, abs=1e-12)
            assert ends[i, b] == pytest.approx(played[f"t{i}"].end_s, rel=CLOSE, abs=1e-12)
        one_lane = max(p.end_s for p in play_sequential(costs))
        assert sequential_seconds(columns)[b] == pytest.approx(one_lane, rel=CLOSE)


def _columns(found: list[SchedulingProblem]) -> TaskColumns:
    """The problems as columns; delays are latency + bytes x time per byte, recovered from the edges."""
    slow, latency = [], []
    for costs in found:
        sized = [e for e in costs.edges if e.bytes]
        pairs = {(e.bytes, e.delay_s) for e in costs.edges}
        per_byte = 0.0
        for a in sized:
            for b in costs.edges:
                if a.bytes != b.bytes:
                    per_byte = (a.delay_s - b.delay_s) / (a.bytes - b.bytes)
        some = next(iter(pairs), (0, 0.0))
        slow.append(per_byte)
        latency.append(some[1] - per_byte * some[0])
    zeros = np.zeros(len(found))
    return TaskColumns(
        seconds=np.array([[c.times_s[0] for c in costs.tasks] for costs in found]).T,
        bandwidth_demand=np.array([[c.bandwidth_demand for c in costs.tasks] for costs in found]).T,
        row_of_task=np.arange(len(found[0].tasks)),
        energy_j={},
        delay_s=np.array(latency),
        delay_s_per_byte=np.array(slow),
        noc_j_per_byte=zeros,
        static_w=zeros,
        memory_bytes=zeros,
    )


@pytest.mark.parametrize("cores", [True, False])
def test_what_is_explained_is_what_a_study_chooses(cores: bool) -> None:
    engine = Engine(graph(), device(cores), "heft")
    for lanes, rate in ((1, 1e9), (2, 1e9), (8, 1e12)):
        values = {"memory_bandwidth_bytes_per_s": rate}
        assert engine.chosen(values, lanes) == engine.study(values, lanes).chosen
