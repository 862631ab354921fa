"""The accelerator model on whole steps: closed forms, one path for one configuration and many, and what must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararev_hw as ph
from pararev_hw import graph as graphs
from pararev_hw.costmodels.accelerator import (
    DATAFLOWS,
    TOPOLOGIES,
    config_table,
    layer_costs,
    layer_table,
    message_delay_s,
    static_power_w,
    task_costs,
)
from pararev_hw.costmodels.accelerator.network import mean_links
from pararev_hw.costmodels.accelerator.residency import thresholds
from pararev_hw.devices import PARAMETERS, load_device
from pararev_hw.errors import BadInput, Infeasible, UnknownName
from pararev_hw.models import create
from pararev_hw.types import BlockGraph, Device, DeviceParameter, LayerSpikes, Op, Spikes, StepMemory, Storage, Task
from tests.helpers.costing import costs, op_seconds
from tests.helpers.hand_built_graphs import chain, pararev_stage
from tests.helpers.hand_built_ops import conv

PRESETS = ("edge8", "eyeriss-like", "sata-like", "edge-tpu-like")


def changed(device: Device, **values: float) -> Device:
    """The device with figures replaced; `__` stands for the dot in a name."""
    made = {n.replace("__", "."): DeviceParameter(float(v), "made up for a test", "assumed") for n, v in values.items()}
    return replace(device, parameters={**device.parameters, **made})


def without(device: Device, *names: str) -> Device:
    return replace(device, parameters={n: f for n, f in device.parameters.items() if n not in names})


def bare_core(**values: float) -> Device:
    """One 16 x 16 core at 1 GHz with nothing that adds to its array's time unless it is asked for."""
    base = changed(
        load_device("edge8"), clock_hz=1e9, launch_overhead_s=0, dram_latency_s=0, event_overhead_cycles=0,
        sram_bytes_per_lane=2**40, sram_energy_at_bytes=0, sram_bank_read_bytes=1e6, sram_bank_write_bytes=1e6,
        sram_weight_share=0, memory_bandwidth_bytes_per_s=1e18,
    )  # fmt: skip
    return replace(changed(base, **values), lanes=1)


def one_conv(rate: float | None = None, *, backward: bool = False, **shape: int) -> BlockGraph:
    """A step of one convolution, or of its two gradients: input 0, weight 1, output 2 (backward: gradients too)."""
    t = conv(**shape, backward=backward)  # type: ignore[arg-type]
    shapes = [*t.input_shapes, *t.output_shapes]
    roles = (
        ("cotangent", "saved", "parameter", "cotangent", "gradient") if backward else ("input", "parameter", "saved")
    )
    made = len(t.output_shapes)
    storages = tuple(
        Storage(4 * int(np.prod(s)), r, 0 if k >= len(shapes) - made else -1, 9)  # type: ignore[arg-type]
        for k, (s, r) in enumerate(zip(shapes, roles, strict=True))
    )
    n = len(storages)
    phase = "backward" if backward else "forward"
    op = Op(0, "c", phase, tuple(range(n - made)), tuple(range(n - made, n)), ())
    macs = t.macs / shape["images"]
    layer = LayerSpikes("c", rate or 0.0, (rate or 0.0) * macs, macs, True)
    spikes = None if rate is None else Spikes(True, "made by hand", rate, (layer,))
    return BlockGraph(
        "one", "train", shape["images"], 1, "float32", "op", (), 0, (t,), (op,), storages,
        (Task("t", "t", "", phase, (0,), t.flops, 0, 0, 0),), (), StepMemory(0, 0, 0, 0, 0, 0, 0, 0), spikes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> BlockGraph:
    """A training step of a reversible network with measured-like spikes: channels fire at different rates."""
    made = create("pararevsnn21", width=0.0625, num_classes=10, timesteps=2)
    import torch

    graph = ph.trace(made, torch.rand(2, 3, 16, 16), timesteps=2)
    found = graphs.assumed(graph, 0.2)
    assert found is not None
    rng = np.random.default_rng(0)
    layers = tuple(replace(s, channel_density=tuple(rng.uniform(0, 0.4, 7).tolist())) for s in found.layers)
    return graphs.attach(graph, replace(found, layers=layers))


# Closed forms


def test_a_convolution_that_fits_takes_its_macs_over_its_elements_and_moves_each_tensor_once() -> None:
    graph = one_conv(images=2, inputs=32, outputs=48, size=8)
    device = bare_core()
    macs = 2 * 48 * 8 * 8 * 32 * 9
    assert op_seconds(graph, device) == pytest.approx((macs / 256 * 1e-9,))
    (cost,) = costs(graph, device).tasks
    words = 2 * 32 * 64 + 48 * 32 * 9 + 2 * 48 * 64
    assert cost.energy_j["dram"] == pytest.approx(4 * words * device.value("dram_energy_j_per_byte"))
    assert cost.energy_j["mac"] == pytest.approx(macs * 4.6e-12)


def test_gradients_take_as_long_as_the_convolution_each_and_their_energy_is_of_the_backward_phase() -> None:
    shape = dict(images=2, inputs=32, outputs=48, size=8)  # noqa: C408
    device = bare_core()
    forward, backward = op_seconds(one_conv(**shape), device), op_seconds(one_conv(backward=True, **shape), device)
    assert backward[0] == pytest.approx(2 * forward[0])


def test_words_narrower_on_the_chip_move_fewer_bytes() -> None:
    graph = one_conv(0.25, images=2, inputs=32, outputs=48, size=8)
    table = layer_table(graph)
    wide, narrow = (
        layer_costs(table, config_table(bare_core(**bits))).dram_bytes[0, 0]
        for bits in ({}, {"activation_bits": 16, "weight_bits": 8, "spike_bits": 1})
    )
    x, w, y = 2 * 32 * 64, 48 * 32 * 9, 2 * 48 * 64
    # the network's input is no storage that spikes are read from: it keeps an activation's width
    assert (wide, narrow) == (4 * (x + w + y), 2 * x + w + 2 * y)


def test_skipping_zeros_takes_accumulates_in_proportion_to_spikes() -> None:
    shape = dict(images=2, inputs=32, outputs=48, size=8)  # noqa: C408
    dense, sparse = (costs(one_conv(r, **shape), bare_core(zero_skipping=1)).tasks[0] for r in (None, 0.25))
    assert sparse.best_s == pytest.approx(0.25 * dense.best_s)
    assert sparse.energy_j["mac"] == 0
    assert sparse.energy_j["ac"] == pytest.approx(0.25 * dense.energy_j["mac"] * 0.9 / 4.6)


def test_the_busiest_channel_slows_a_core_that_skips_zeros() -> None:
    graph = one_conv(0.25, images=2, inputs=32, outputs=48, size=8)
    assert graph.spikes is not None
    uneven = replace(graph.spikes.layers[0], channel_density=(0.5, 0.0) * 16)
    other = replace(graph, spikes=replace(graph.spikes, layers=(uneven,)))
    even_s, uneven_s = (costs(g, bare_core(zero_skipping=1)).tasks[0].best_s for g in (graph, other))
    assert uneven_s == pytest.approx(2 * even_s)  # rows wait for channels that fire twice as often as the mean


def test_the_weight_gradient_skips_zeros_only_on_a_chip_that_can() -> None:
    step = chain(2, 0.2)
    table = layer_table(step)
    plain, skipping = (
        layer_costs(table, config_table(bare_core(zero_skipping=1, weight_gradient_skipping=w))) for w in (0, 1)
    )
    assert np.all(skipping.array_s <= plain.array_s)


def test_resident_weights_are_not_fetched() -> None:
    graph = one_conv(images=2, inputs=32, outputs=48, size=8)
    table = layer_table(graph)
    fetched, half, kept = (
        layer_costs(table, config_table(bare_core(global_buffer_bytes=b, global_buffer_weight_share=1))).dram_bytes
        for b in (0.0, 4 * 48 * 32 * 9 / 2, 4 * 48 * 32 * 9)
    )
    assert fetched - kept == 4 * 48 * 32 * 9
    assert fetched - half == 2 * 48 * 32 * 9


def test_one_layer_waits_for_its_slowest_part() -> None:
    graph = one_conv(images=2, inputs=32, outputs=48, size=8)
    words = 4 * (2 * 32 * 64 + 48 * 32 * 9 + 2 * 48 * 64)
    slow = bare_core(memory_bandwidth_bytes_per_s=1e6, dram_latency_s=0.5, launch_overhead_s=0.25)
    assert op_seconds(graph, slow) == pytest.approx((words / 1e6 + 0.75,))
    (cost,) = costs(graph, slow).tasks
    assert cost.bandwidth_demand == pytest.approx((words / 1e6) / (words / 1e6 + 0.75))


# One path


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_many_configurations_cost_what_each_costs_alone(network: BlockGraph, data: st.DataObject) -> None:
    base = load_device("edge8")
    n = data.draw(st.integers(1, 6))
    draw = {
        "lanes": st.integers(1, 16),
        "pe_rows": st.integers(1, 40),
        "pe_columns": st.integers(1, 40),
        "dataflow": st.integers(0, len(DATAFLOWS) - 1),
        "systolic": st.integers(0, 1),
        "zero_skipping": st.integers(0, 1),
        "weight_gradient_skipping": st.integers(0, 1),
        "sram_bytes_per_lane": st.floats(1e4, 1e7),
        "global_buffer_bytes": st.sampled_from([0.0, 1e5, 1e6]),
        "activation_bits": st.sampled_from([0, 8, 16]),
        "spike_bits": st.sampled_from([0, 1]),
        "memory_bandwidth_bytes_per_s": st.floats(1e8, 1e12),
        "noc_topology": st.integers(0, len(TOPOLOGIES) - 1),
    }
    names = data.draw(st.sets(st.sampled_from(sorted(draw)), min_size=1))
    columns = {k: np.array(data.draw(st.lists(draw[k], min_size=n, max_size=n)), np.float64) for k in sorted(names)}
    table, configs = layer_table(network), config_table(base, columns)
    many = task_costs(table, layer_costs(table, configs), configs)
    for k in range(n):
        one = {name: float(v[k]) for name, v in columns.items()}
        lanes = int(one.pop("lanes", base.lanes))
        alone = costs(network, replace(changed(base, **one), lanes=lanes))
        seconds = many.seconds[table.class_of_task, k]
        assert seconds == pytest.approx([c.best_s for c in alone.tasks], rel=1e-9)
        demand = many.bandwidth_demand[table.class_of_task, k]
        assert demand == pytest.approx([c.bandwidth_demand for c in alone.tasks], rel=1e-9, abs=1e-12)
        for part, joules in many.energy_j.items():
            assert joules[table.class_of_task, k] == pytest.approx(
                [c.energy_j[part] for c in alone.tasks], rel=1e-9, abs=1e-30
            )
        assert alone.static_power_w == pytest.approx(float(static_power_w(configs)[k]), rel=1e-12)
        e = alone.edges[0]
        wait = float(message_delay_s(configs)[k]) + e.bytes / base.value("noc_bandwidth_bytes_per_s")
        assert e.delay_s == pytest.approx(wait, rel=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_ops_add_up_to_their_tasks_in_every_phase(name: str, network: BlockGraph) -> None:
    device = load_device(name)
    seconds = op_seconds(network, device)
    by_task = [sum(seconds[i] for i in t.ops) for t in network.tasks]
    found = costs(network, device)
    assert by_task == pytest.approx([c.best_s for c in found.tasks], rel=1e-9)
    prediction = ph.predict(ph.schedule(network, device, "sequential"))
    assert {"forward", "recompute", "backward", "update"} <= set(prediction.energy_by_phase_j)
    assert all(parts["total"] > 0 for parts in prediction.energy_by_phase_j.values())
    assert sum(p["total"] for p in prediction.energy_by_phase_j.values()) == pytest.approx(prediction.energy_j["total"])


# What must hold


@settings(max_examples=30, deadline=None)
@given(st.floats(2e4, 1e6), st.floats(1.0, 50.0), st.sampled_from([0.0, 5e4, 1e6]), st.integers(0, 3))
def test_more_memory_never_moves_more(
    network: BlockGraph, sram: float, times: float, buffer: float, dataflow: int
) -> None:
    columns = {"sram_bytes_per_lane": np.array([sram, sram * times]), "dataflow": np.full(2, float(dataflow)),
               "global_buffer_bytes": np.full(2, buffer)}  # fmt: skip
    table = layer_table(network)
    found = layer_costs(table, config_table(load_device("edge8"), columns))
    assert np.all(found.dram_bytes[:, 1] <= found.dram_bytes[:, 0] * (1 + 1e-12))
    assert np.all(found.seconds[:, 1] <= found.seconds[:, 0] * (1 + 1e-12))


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.integers(0, 2))
def test_more_elements_never_take_longer_where_they_divide(rows: int, times: int, dataflow: int) -> None:
    graph = one_conv(images=2, inputs=32, outputs=32, size=8)
    less, more = (
        op_seconds(graph, bare_core(pe_rows=r, pe_columns=8, dataflow=dataflow))[0] for r in (rows, rows * times)
    )
    assert more == pytest.approx(less / times)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.floats(0.1, 60.0))
def test_what_stays_fits_at_every_operation(n: int, stage: bool, images: float) -> None:
    graph = pararev_stage(n) if stage else chain(n)
    whole = replace(graph.tasks[0], id="all", ops=tuple(i for t in graph.tasks for i in t.ops))
    table = layer_table(replace(graph, tasks=(whole,), edges=()))
    (made,) = table.classes
    capacity = images * 4 * 2 * 8 * 8 * 8
    stays = thresholds(made.storages, [1.0] * 5)
    kept = [s for s, t in zip(made.storages, stays, strict=True) if t <= capacity]
    for at in range(len(whole.ops)):
        assert sum(s.bytes / s.slices for s in kept if s.first <= at <= s.last) <= capacity * (1 + 1e-12)
    assert all(s.inside for s in kept)


@pytest.mark.parametrize("cores", [2, 3, 5, 8, 16, 30])
def test_mean_links_are_those_of_all_pairs(cores: int) -> None:
    device = load_device("edge8")
    found = mean_links(config_table(device, {"lanes": np.full(3, float(cores)), "noc_topology": np.arange(3.0)}))
    pairs = [(a, b) for a in range(cores) for b in range(cores) if a != b]
    side = int(np.ceil(np.sqrt(cores)))
    ring = np.mean([min((a - b) % cores, (b - a) % cores) for a, b in pairs])
    mesh = np.mean([abs(a // side - b // side) + abs(a % side - b % side) for a, b in pairs])
    assert found == pytest.approx([1.0, ring, mesh])


def test_leakage_grows_with_what_leaks() -> None:
    device = changed(load_device("edge8"), sram_leakage_w_per_byte=1e-8, pe_leakage_w=1e-5, static_power_w=0.1)
    columns = {"lanes": np.array([1.0, 4.0]), "sram_bytes_per_lane": np.array([1e6, 2e6])}
    assert static_power_w(config_table(device, columns)) == pytest.approx(
        [0.1 + 0.01 + 256e-5, 0.1 + 4 * (0.02 + 256e-5)]
    )


# Two kinds of core


def two_kinds() -> Device:
    """Four cores of edge8, and four of half the rows, at twice the energy per MAC."""
    return changed(
        load_device("edge8"), second_kind_lanes=4, pe_rows__second=8, energy_per_mac_j__float32__second=9.2e-12
    )


def test_each_lane_costs_what_its_kind_of_core_does(network: BlockGraph) -> None:
    mixed = costs(network, two_kinds())
    first = costs(network, load_device("edge8"))
    second = costs(network, changed(load_device("edge8"), pe_rows=8, energy_per_mac_j__float32=9.2e-12))
    for m, a, b in zip(mixed.tasks, first.tasks, second.tasks, strict=True):
        assert m.times_s == a.times_s[:4] + b.times_s[4:]
        assert m.energy_on(3) == a.energy_j and m.energy_on(4) == b.energy_j
    assert any("lanes 4 to 7 of edge8 are of its second kind" in line for line in mixed.assumptions)


def test_a_schedule_pays_for_the_cores_it_uses(network: BlockGraph) -> None:
    plan = ph.schedule(network, two_kinds(), "heft")
    lane = {p.task: p.lane for p in plan.schedule.placements}
    paid = sum(c.energy_on(lane[c.task])["mac"] for c in plan.costs.tasks)
    assert ph.predict(plan).energy_j["mac"] == pytest.approx(paid)
    assert plan.schedule.energy_j["mac"] == pytest.approx(paid)


def test_a_second_kind_of_core_is_counted() -> None:
    graph = one_conv(images=2, inputs=32, outputs=48, size=8)
    with pytest.raises(BadInput, match="no second_kind_lanes: say how many"):
        costs(graph, changed(load_device("edge8"), pe_rows__second=8))
    with pytest.raises(BadInput, match="leave one of the first"):
        costs(graph, changed(load_device("edge8"), second_kind_lanes=8))


# What is said and refused


def test_the_report_says_what_is_split_and_what_spills(network: BlockGraph) -> None:
    small = changed(load_device("edge8"), sram_bytes_per_lane=16384)
    said = " ".join(costs(network, small).assumptions)
    assert "products do not fit a core and move something more than once, split " in said
    assert " over samples and time steps" in said
    assert "tensors that live inside one task" in said and "of the weights stay" in said
    large = " ".join(costs(network, bare_core()).assumptions)
    assert "products move each of their tensors to and from the core once" in large
    assert "split" not in large and "spill" not in large
    assert any("contention" in line for line in costs(network, small).not_modelled)


def test_a_core_too_small_for_the_smallest_tile_is_refused_with_numbers(network: BlockGraph) -> None:
    tiny = changed(load_device("edge8"), sram_bytes_per_lane=64)
    with pytest.raises(Infeasible, match="layers do not fit a core of edge8: 32 bytes of its memory hold tiles"):
        costs(network, tiny)
    table = layer_table(network)
    found = layer_costs(table, config_table(tiny))
    assert np.isinf(found.seconds).any() and np.isfinite(found.dram_bytes).all()


def test_columns_that_no_chip_can_have_are_refused() -> None:
    device = load_device("edge8")
    with pytest.raises(UnknownName, match="did you mean pe_rows"):
        config_table(device, {"pe_row": np.ones(1)})
    for name, value, said in (
        ("pe_rows", 2.5, "a whole number between 1 and"),
        ("pe_rows", 0.0, "between 1 and"),
        ("dataflow", 4.0, "a whole number between 0 and 3"),
        ("sram_tile_share", 0.9, "exceed 1 together"),
        ("clock_hz", float("nan"), "clock_hz is nan"),
    ):
        with pytest.raises(BadInput, match=said):
            config_table(device, {name: np.array([value])})
    with pytest.raises(BadInput, match="all must have as many"):
        config_table(device, {"pe_rows": np.ones(2), "pe_columns": np.ones(3)})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_agrees_with_itself(name: str) -> None:
    device = load_device(name)
    per_cycle = device.value("pe_rows") * device.value("pe_columns")
    assert device.value("matrix_flops_per_s.float32") == pytest.approx(2 * per_cycle * device.value("clock_hz"))
    ports = device.value("sram_banks") * device.value("sram_bank_read_bytes") * device.value("clock_hz")
    assert device.value("sram_bandwidth_bytes_per_s") == pytest.approx(ports)
    assert PARAMETERS["dataflow"].choices == DATAFLOWS and PARAMETERS["noc_topology"].choices == TOPOLOGIES
