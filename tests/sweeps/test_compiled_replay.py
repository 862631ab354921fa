"""Compiled loops of a sweep give what the loops over arrays give, and tables of distinct cores what no tables give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pararev_hw import compiled, pipeline, target_graph
from pararev_hw.costmodels import accelerator
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.devices import bare_device
from pararev_hw.sweeps.columns import TaskColumns
from pararev_hw.sweeps.compiled_replay import makespans_and_peaks, replay_arrays
from pararev_hw.sweeps.core_columns import CoreColumns
from pararev_hw.sweeps.front import merged, stand_ins
from pararev_hw.sweeps.memory_columns import MemoryEvents, peak_bytes
from pararev_hw.sweeps.replay import orders_with_waits, replay
from pararev_hw.trace_options import TraceOptions

EXACT = 1e-12


@pytest.fixture
def always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SMALL", 0)
    monkeypatch.setattr(compiled.Loop, "_patience", 0)


def columns(draw: np.random.Generator, n: int, count: int) -> TaskColumns:
    """Times in quarters, so that events coincide, or any; demands that together exceed one now and then."""
    quarters = draw.integers(0, 8, (n, count)) / 4
    demand = draw.choice([0.0, 0.25, 0.5, 1.0], (n, count))
    zeros = np.zeros(count)
    return TaskColumns(
        seconds=quarters if draw.random() < 0.5 else draw.random((n, count)),
        bandwidth_demand=demand if draw.random() < 0.7 else np.zeros((n, count)),
        row_of_task=draw.permutation(n),
        energy_j={},
        delay_s=draw.choice([0.0, 0.5, 2.0], count),
        delay_s_per_byte=draw.choice([0.0, 0.25], count),
        noc_j_per_byte=zeros,
        static_w=zeros,
        memory_bytes=zeros,
    )


def memory(draw: np.random.Generator, n: int) -> MemoryEvents:
    def groups() -> tuple[tuple[tuple[int, ...], int], ...]:
        some = [draw.choice(n, min(n, 3), replace=False) for _ in range(draw.integers(0, 4))]
        return tuple((tuple(sorted(tasks.tolist())), int(draw.integers(1, 9))) for tasks in some)

    return MemoryEvents(5, draw.integers(0, 9, n), draw.integers(0, 9, n), groups(), groups())


def test_each_configuration_alone_gives_what_all_at_once_give(always_compiled: None) -> None:
    for seed in range(200):
        draw = np.random.default_rng(seed)
        n, lanes = int(draw.integers(1, 25)), int(draw.integers(1, 5))
        where = draw.integers(0, lanes, n)
        pairs = [(i, j, int(draw.integers(0, 5))) for j in range(n) for i in range(j) if draw.random() < 0.15]
        apart = [(i, j) for j in range(n) for i in range(j) if where[i] != where[j] and draw.random() < 0.1]
        orders = orders_with_waits([np.flatnonzero(where == k).tolist() for k in range(lanes)], pairs, apart)
        costs, events = columns(draw, n, 7), memory(draw, n)
        starts, ends = replay(orders, costs)
        played = makespans_and_peaks(replay_arrays(orders, events), costs)
        assert played is not None
        np.testing.assert_allclose(played[0], ends.max(0), rtol=EXACT)
        np.testing.assert_array_equal(played[1], peak_bytes(events, starts, ends))


def test_an_edge_is_left_out_exactly_where_another_one_makes_it_superfluous() -> None:
    for seed in range(200):
        draw = np.random.default_rng(seed)
        n, lanes = int(draw.integers(2, 25)), int(draw.integers(2, 4))
        where = draw.integers(0, lanes, n).tolist()
        edges = [(i, j, int(draw.integers(0, 3))) for j in range(n) for i in range(j) if draw.random() < 0.4]
        crossing = [e for e in edges if where[e[0]] != where[e[1]]]

        def superfluous(e: tuple[int, int, int], others: list[tuple[int, int, int]], where: list[int]) -> bool:
            alike = [f for f in others if f != e and where[f[0]] == where[e[0]] and where[f[1]] == where[e[1]]]
            return any(f[0] >= e[0] and f[1] <= e[1] and f[2] >= e[2] for f in alike)  # orders are by number here

        orders = orders_with_waits([[i for i in range(n) if where[i] == k] for k in range(lanes)], edges)
        assert list(orders.crossing) == [e for e in crossing if not superfluous(e, crossing, where)]


@pytest.mark.parametrize("small", [0, 10**12])
def test_tables_of_distinct_cores_cost_what_each_configuration_costs(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "SMALL", small)
    monkeypatch.setattr(compiled.Loop, "_patience", 0)
    graph = target_graph.build_graph("pararevsnn21", TraceOptions(batch=2, width=0.0625, spikes="0.2"))
    device = bare_device(pipeline.find_device("edge8"))
    draw = np.random.default_rng(1)
    given = {
        "sram_bytes_per_lane": 2.0 ** draw.integers(9, 20, 40),
        "memory_bandwidth_bytes_per_s": 1e8 * 1000 ** draw.random(40),
        "pe_rows": draw.choice([8.0, 16.0], 40),
        "noc_bandwidth_bytes_per_s": 1e9 * draw.random(40) + 1e6,
    }
    model, table = CoreColumns(graph, device), accelerator.layer_table(graph, traffic(graph))
    configs = accelerator.config_table(replace(device, lanes=3), {**given, "lanes": np.full(40, 3.0)})
    costs = accelerator.layer_costs(table, configs)
    tasks = accelerator.task_costs(table, replace(costs, energy=()), configs)
    times = np.repeat(np.bincount(table.class_of_task, minlength=len(table.classes)), np.diff(table.starts))
    for at in (slice(0, 25), slice(20, 40), slice(0, 40)):  # some cores have occurred before, others have not
        part = model({name: values[at] for name, values in given.items()}, 3, at.stop - at.start)
        np.testing.assert_allclose(part.seconds, tasks.seconds[:, at], rtol=EXACT)
        np.testing.assert_allclose(part.bandwidth_demand, tasks.bandwidth_demand[:, at], rtol=EXACT)
        for name, joules in costs.total_energy_j(times.astype(float)).items():
            np.testing.assert_allclose(part.energy_j[name], joules[at], rtol=EXACT)


def test_fronts_are_sorted_out_alike_compiled_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(40):
        draw = np.random.default_rng(seed)
        n, objectives = int(draw.integers(1, 200)), int(draw.integers(1, 4))
        values = list(1 + np.round(draw.random((objectives, n)) / draw.choice([5, 50, 500]), 4))
        maximise, hardware = draw.random(objectives) < 0.5, draw.integers(0, 9, n).astype(np.float64)

        def sorted_out(
            values: list[np.ndarray] = values, maximise: np.ndarray = maximise, hardware: np.ndarray = hardware
        ) -> list[list[int]]:
            chosen, counts = merged(values, hardware)
            return [chosen.tolist(), counts.tolist(), stand_ins(values, maximise.tolist()).tolist()]

        monkeypatch.setattr(compiled, "SMALL", 10**12)
        monkeypatch.setattr(compiled, "FEW", 10**12)
        plain = sorted_out()
        monkeypatch.setattr(compiled, "SMALL", 0)
        monkeypatch.setattr(compiled.Loop, "_patience", 0)
        assert sorted_out() == plain
