"""Cost models: closed forms on single ops, and what every registered model must keep on every device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import pipeline
from pararev_hw.costmodels import roofline, sop_energy_popular_j
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Traffic, kept_on_chip, traffic
from pararev_hw.devices import load_device, needed_parameters
from pararev_hw.devices.gpu_law import CARD, HOST, LAW
from pararev_hw.errors import BadInput
from pararev_hw.types import BlockGraph, Device, DeviceParameter, Op, OpType, StepMemory, Task
from tests.helpers.costing import costs, op_seconds
from tests.helpers.hand_built_graphs import Step, chain, pararev_stage


def with_figures(device: Device, **values: float) -> Device:
    """The device with some figures replaced; `__` stands for the dot in a name."""
    changed = {
        name.replace("__", "."): DeviceParameter(v, "made up for a test", "assumed") for name, v in values.items()
    }
    return replace(device, parameters={**device.parameters, **changed})


def plain_accelerator() -> Device:
    """An accelerator that does not describe its cores, and so follows the roofline."""
    edge8 = load_device("edge8")
    return replace(edge8, parameters={n: f for n, f in edge8.parameters.items() if n != "pe_rows"})


def made_up_cpu(lanes: int = 2) -> Device:
    figures = {name: DeviceParameter(1e9, "made up for a test", "measured") for name in needed_parameters("cpu")}
    cpu = Device("cpu", "cpu", "made up", lanes, figures)
    return with_figures(cpu, host_overhead_s=2e-6, host_view_overhead_s=1e-6, energy_per_mac_j__float32=1e-10,
                        energy_per_vector_flop_j=1e-10, dram_energy_j_per_byte=1e-10, static_power_w=10.0)  # fmt: skip


def peaks_alone() -> Device:
    """A GPU whose file gives peaks and no law of kernel times: it follows the roofline."""
    h200 = load_device("h200")
    law = {*LAW, *CARD, *HOST}
    peaks = replace(h200, parameters={n: p for n, p in h200.parameters.items() if n not in law})
    return with_figures(peaks, matrix_half_work_flops=2.5e8, bandwidth_half_work_bytes=3.4e6, launch_overhead_s=2e-6,
                        host_overhead_s=6e-6, host_view_overhead_s=2e-6)  # fmt: skip


DEVICES: dict[str, Callable[[], Device]] = {
    "h200": lambda: load_device("h200"),
    "GPU of peaks": peaks_alone,
    "edge8": lambda: load_device("edge8"),
    "plain accelerator": plain_accelerator,
    "cpu": made_up_cpu,
}
GRAPHS: dict[str, Callable[[int], BlockGraph]] = {
    "chain": lambda batch: chain(3, batch=batch),
    "chain with spikes": lambda batch: chain(3, 0.2, batch=batch),
    "pararev stage": lambda batch: pararev_stage(3, 0.2, batch=batch),
}

every_device = pytest.mark.parametrize("device", [pytest.param(make(), id=name) for name, make in DEVICES.items()])
every_graph = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in GRAPHS.items()])


# What every cost model keeps


@every_device
@every_graph
def test_costs_belong_to_the_graph_and_are_finite_and_in_range(
    device: Device, make: Callable[[int], BlockGraph]
) -> None:
    graph = make(2)
    c = costs(graph, device)
    assert c.lanes == device.lanes
    assert [t.task for t in c.tasks] == [t.id for t in graph.tasks]
    assert [(e.src, e.dst, e.bytes) for e in c.edges] == [(e.src, e.dst, e.bytes) for e in graph.edges]
    for task in c.tasks:
        assert all(0 <= t < math.inf for t in task.times_s)
        assert 0 <= task.compute_demand <= 1 and 0 <= task.bandwidth_demand <= 1
        assert 0 <= task.host_s < math.inf
        assert all(0 <= joule < math.inf for joule in task.energy_j.values())
    assert all(0 <= e.delay_s < math.inf and e.energy_j >= 0 for e in c.edges)
    assert c.not_modelled and c.assumptions


@every_device
@every_graph
def test_a_larger_batch_never_costs_less(device: Device, make: Callable[[int], BlockGraph]) -> None:
    small, large = (costs(make(batch), device) for batch in (2, 16))
    for a, b in zip(small.tasks, large.tasks, strict=True):
        assert a.best_s <= b.best_s
        assert all(joule <= b.energy_j[part] * (1 + 1e-12) for part, joule in a.energy_j.items())
        assert a.memory_bytes <= b.memory_bytes
    assert sum(c.best_s for c in small.tasks) < sum(c.best_s for c in large.tasks)


@every_device
def test_costs_are_the_same_every_time(device: Device) -> None:
    graph = pararev_stage(3, 0.2)
    assert costs(graph, device) == costs(graph, device)


@every_device
@every_graph
def test_a_task_takes_as_long_as_its_ops(device: Device, make: Callable[[int], BlockGraph]) -> None:
    graph = make(2)
    seconds = op_seconds(graph, device)
    assert len(seconds) == len(graph.ops)
    for task, cost in zip(graph.tasks, costs(graph, device).tasks, strict=True):
        assert cost.best_s == pytest.approx(sum(seconds[i] for i in task.ops), rel=1e-12)


@pytest.mark.parametrize("name", ["h200", "edge8", "cpu"])
def test_a_slower_memory_never_makes_a_task_faster(name: str) -> None:
    device = DEVICES[name]()
    half = with_figures(device, memory_bandwidth_bytes_per_s=device.value("memory_bandwidth_bytes_per_s") / 2)
    graph = chain(3, 0.2, batch=16)
    fast, slow = op_seconds(graph, device), op_seconds(graph, half)
    assert all(a <= b for a, b in zip(fast, slow, strict=True)) and sum(fast) < sum(slow)


@every_device
def test_op_of_no_task_costs_no_task_anything(device: Device) -> None:
    graph = chain(3, 0.2)
    (view,) = (i for i in graph.tasks[0].ops if graph.op_types[graph.ops[i].type].kind == "view")
    first = replace(graph.tasks[0], ops=tuple(i for i in graph.tasks[0].ops if i != view))
    without = costs(replace(graph, tasks=(first, *graph.tasks[1:])), device)
    whole = costs(graph, device)
    assert without.tasks[1:] == whole.tasks[1:]
    assert without.tasks[0].energy_j == whole.tasks[0].energy_j
    view_s = device.get(
        "host_view_overhead_s", device.get("host_overhead_s", 0.0) * device.get("host_factor.view", 0.0)
    )
    assert without.tasks[0].host_s == pytest.approx(whole.tasks[0].host_s - (view_s if device.kind == "gpu" else 0))


# Closed forms


def one_op(kind: str = "conv", **shape: object) -> tuple[Step, BlockGraph]:
    step = Step(**shape)  # type: ignore[arg-type]
    x, w = step.storage(step.image, "input"), step.weight()
    step.task("only", "", "forward")
    if kind == "conv":
        step.conv(x, w, "conv")
    elif kind == "gemm":
        step.new("gemm", (x, w), flops=step.conv_flops)
    elif kind == "view":
        step.view(x)
    else:
        step.neuron(x)
    return step, step.graph(kind)


def test_compute_bound_convolution_on_a_gpu_of_peaks_takes_flops_over_the_tf32_rate() -> None:
    step, graph = one_op(batch=64, channels=512, size=16)
    # 2 x 9 x 512 x (4 x 64 x 512 x 16 x 16) flops, fill and drain of 2.5e8 flops, 2 us launch
    flops = 2 * 9 * 512 * (4 * 64 * 512 * 16 * 16)
    assert step.conv_flops == flops
    assert op_seconds(graph, peaks_alone()) == pytest.approx(((flops + 2.5e8) / 494.5e12 + 2e-6,))


def test_float32_matrix_product_on_a_gpu_of_peaks_does_not_use_tf32() -> None:
    step, graph = one_op("gemm", batch=64, channels=512, size=16)
    assert op_seconds(graph, peaks_alone()) == pytest.approx(((step.conv_flops + 2.5e8) / 67e12 + 2e-6,))


def test_bfloat16_convolution_uses_the_bfloat16_rate() -> None:
    step, graph = one_op(batch=64, channels=512, size=16, dtype="bfloat16")
    assert op_seconds(graph, peaks_alone()) == pytest.approx(((step.conv_flops + 2.5e8) / 990e12 + 2e-6,))


def test_tf32_is_stated_as_an_assumption_only_where_it_is_used() -> None:
    def says_tf32(graph: BlockGraph, device: str) -> bool:
        return any("TF32" in line for line in costs(graph, load_device(device)).assumptions)

    assert says_tf32(chain(1), "h200")
    assert not says_tf32(chain(1, dtype="bfloat16"), "h200")
    assert not says_tf32(chain(1), "edge8")


def test_elementwise_op_on_a_gpu_of_peaks_takes_bytes_over_bandwidth() -> None:
    step, graph = one_op("neuron", batch=64, channels=512, size=16)
    moved = 2 * 4 * math.prod(step.image)  # 1 read + 1 write of float32
    assert op_seconds(graph, peaks_alone()) == pytest.approx(((moved + 3.4e6) / 4.8e12 + 2e-6,))


def test_view_takes_no_device_time_and_its_own_host_time() -> None:
    _, graph = one_op("view")
    (task,) = costs(graph, peaks_alone()).tasks
    assert task.best_s == 0
    assert task.host_s == 2e-6
    assert sum(task.energy_j.values()) == 0


def test_eager_gpu_pays_the_host_per_op_and_a_graph_replay_does_not() -> None:
    graph, device = chain(3), peaks_alone()
    eager, replay = costs(graph, device), costs(graph, device, launch="graph")
    views = sum(graph.op_types[op.type].kind == "view" for op in graph.ops)
    assert sum(c.host_s for c in eager.tasks) == pytest.approx(6e-6 * (len(graph.ops) - views) + 2e-6 * views)
    assert sum(c.host_s for c in replay.tasks) == 0
    assert [c.times_s for c in eager.tasks] == [c.times_s for c in replay.tasks]


def test_cpu_pays_for_dispatch_inside_the_op() -> None:
    _, graph = one_op("neuron")
    cpu = made_up_cpu()
    moved = 2 * 4 * 4 * 2 * 8 * 8 * 8
    assert op_seconds(graph, cpu) == pytest.approx((moved / 1e9 + 2e-6,))
    assert costs(graph, cpu).tasks[0].host_s == 0
    _, view = one_op("view")
    assert op_seconds(view, cpu) == (1e-6,)


def test_convolution_rate_of_its_own_takes_precedence() -> None:
    step, graph = one_op("conv", channels=64)
    cpu = with_figures(made_up_cpu(), conv_flops_per_s__float32=5e8)
    assert op_seconds(graph, cpu) == pytest.approx((step.conv_flops / 5e8 + 2e-6,))


def test_cpu_lane_cannot_take_more_than_its_own_bandwidth() -> None:
    _, graph = one_op("neuron", batch=64)
    cpu = with_figures(made_up_cpu(), lane_bandwidth_bytes_per_s=2.5e8, host_overhead_s=0.0)
    (task,) = costs(graph, cpu).tasks
    assert task.bandwidth_demand == pytest.approx(0.25)
    assert task.compute_demand == 0


def test_kernel_that_fills_the_gpu_asks_for_all_of_it_and_a_small_one_for_its_part() -> None:
    device = with_figures(peaks_alone(), launch_overhead_s=0.0)
    _, large = one_op("conv", batch=64, channels=512, size=16)
    step, small = one_op("conv", batch=8, channels=64, size=8)
    assert costs(large, device).tasks[0].compute_demand == 1
    elements = math.prod(step.image)
    assert costs(small, device).tasks[0].compute_demand == pytest.approx(elements / (132 * 16384))
    # launch overhead leaves the chip to others
    overhead = with_figures(device, launch_overhead_s=op_seconds(small, device)[0])
    assert costs(small, overhead).tasks[0].compute_demand == pytest.approx(elements / (132 * 16384) / 2)


# Spikes and energy


def test_popular_figure_is_0_9_picojoule_per_synaptic_operation() -> None:
    assert sop_energy_popular_j(1e12) == pytest.approx(0.9)


def test_spiking_forward_work_becomes_accumulates_where_zeros_are_skipped() -> None:
    graph, device = chain(3, 0.2), plain_accelerator()
    assert {task.phase for task in graph.tasks} >= {"forward", "backward"}
    for task, cost in zip(graph.tasks, costs(graph, device).tasks, strict=True):
        if task.phase == "forward":
            assert task.sops is not None
            assert cost.energy_j["ac"] == pytest.approx(task.sops * 0.9e-12, rel=1e-5)
            assert cost.energy_j["mac"] == 0
        else:  # gradients are dense
            assert cost.energy_j["ac"] == 0
            assert cost.energy_j["mac"] == pytest.approx(task.macs * 4.6e-12)


def test_sparser_spikes_take_less_time_on_a_compute_bound_core() -> None:
    device = plain_accelerator()
    fast_memory = with_figures(device, memory_bandwidth_bytes_per_s=1e15, sram_bandwidth_bytes_per_s=1e15)

    def forward_s(rate: float | None) -> float:
        graph = chain(1, rate, channels=64)
        return costs(graph, fast_memory).tasks[0].best_s - 2e-6  # conv and neuron: 1 us overhead each

    neuron_s = 4 * (4 * 2 * 64 * 8 * 8) / 51.2e9
    assert forward_s(0.25) - neuron_s == pytest.approx(0.25 * (forward_s(None) - neuron_s), rel=1e-4)


def test_dense_device_gains_nothing_from_spikes() -> None:
    for device in (load_device("h200"), with_figures(plain_accelerator(), zero_skipping=0.0)):
        assert costs(chain(3, 0.1), device).tasks == costs(chain(3), device).tasks


def test_analog_layer_counts_as_macs() -> None:
    graph = chain(2, 0.2)
    assert graph.spikes is not None
    first = replace(graph.spikes.layers[0], spiking=False)
    graph = replace(graph, spikes=replace(graph.spikes, layers=(first, *graph.spikes.layers[1:])))
    analog, spiking = costs(graph, plain_accelerator()).tasks[:2]
    assert analog.energy_j["ac"] == 0 and analog.energy_j["mac"] > 0
    assert spiking.energy_j["ac"] > 0 and spiking.energy_j["mac"] == 0


def test_task_with_sops_but_no_layers_shares_them_over_its_matrix_work() -> None:
    with_layers = chain(2, 0.2)
    without = replace(with_layers, spikes=None)
    a, b = costs(with_layers, plain_accelerator()), costs(without, plain_accelerator())
    for x, y in zip(a.tasks, b.tasks, strict=True):
        assert x.best_s == pytest.approx(y.best_s, rel=1e-4)
        assert x.energy_j["ac"] == pytest.approx(y.energy_j["ac"], rel=1e-4)


def test_unknown_spikes_are_said_to_be_unknown() -> None:
    assert any("no spikes are known" in a for a in costs(chain(1), load_device("edge8")).assumptions)
    assert not any("no spikes are known" in a for a in costs(chain(1, 0.2), load_device("edge8")).assumptions)


# Memory


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 20), st.booleans(), st.booleans())
def test_what_is_kept_on_chip_fits_at_every_op_and_stays_inside_its_task(
    n: int, images: int, stage: bool, merged: bool
) -> None:
    graph = pararev_stage(n) if stage else chain(n)
    if merged:  # one task of all ops, in which much is alive at once
        whole = replace(graph.tasks[0], id="all", ops=tuple(i for t in graph.tasks for i in t.ops))
        graph = replace(graph, tasks=(whole,), edges=())
    capacity = images * 4 * 2 * 8 * 8 * 8 * 2  # half images
    flow = traffic(graph)
    kept = np.flatnonzero(kept_on_chip(flow, capacity)).tolist()
    users = {
        s: [i for i, op in enumerate(graph.ops) if s in (*op.reads, *op.writes)] for s in range(len(graph.storages))
    }
    task_of = {i: k for k, t in enumerate(graph.tasks) for i in t.ops}
    for i in range(len(graph.ops)):
        live = [s for s in kept if users[s][0] <= i <= users[s][-1]]
        assert sum(graph.storages[s].bytes for s in live) <= capacity
        # and nothing is turned away for which there was room from its first op to its last
        for s in set(range(len(graph.storages))) - set(kept):
            if flow.internal[s] and users[s][0] == i:
                assert sum(graph.storages[k].bytes for k in live if k != s) + graph.storages[s].bytes > capacity
    for s in kept:
        assert graph.storages[s].born >= 0 and graph.storages[s].freed < len(graph.ops)
        assert len({task_of[i] for i in users[s]}) == 1


def test_values_that_stay_inside_a_task_do_not_reach_the_main_memory() -> None:
    graph, device = pararev_stage(1), plain_accelerator()
    image, weight = 4 * 2 * 8 * 8 * 8 * 4, 8 * 8 * 9 * 4
    per_byte = device.value("dram_energy_j_per_byte")
    f = costs(graph, device).tasks[0]
    # x and the weight are read, the convolution's result leaves; the spikes between stay
    assert f.energy_j["dram"] == pytest.approx((2 * image + weight) * per_byte)
    assert f.energy_j["sram"] == pytest.approx((4 * image + weight) * device.value("sram_energy_j_per_byte"))
    tiny = with_figures(device, sram_bytes_per_lane=image - 1)
    assert costs(graph, tiny).tasks[0].energy_j["dram"] == pytest.approx((4 * image + weight) * per_byte)


@pytest.mark.parametrize("graph", [chain(3), pararev_stage(3)], ids=["chain", "stage"])
def test_output_of_a_task_is_what_it_makes_and_others_read(graph: BlockGraph) -> None:
    task_of = {i: k for k, t in enumerate(graph.tasks) for i in t.ops}
    for k, cost in enumerate(costs(graph, load_device("h200")).tasks):
        expected = sum(
            s.bytes
            for n, s in enumerate(graph.storages)
            if task_of.get(s.born) == k and any(n in op.reads and task_of[i] != k for i, op in enumerate(graph.ops))
        )
        assert cost.memory_bytes == expected


def test_static_memory_is_parameters_and_input() -> None:
    # 3 weights of 8 x 8 x 3 x 3 and one image of T x B x C x H x W, float32
    assert costs(chain(3), load_device("h200")).static_bytes == 3 * 8 * 8 * 9 * 4 + 4 * 2 * 8 * 8 * 8 * 4


def test_edges_between_cores_pay_latency_and_bytes() -> None:
    graph, device = pararev_stage(2), plain_accelerator()
    for e in costs(graph, device).edges:
        assert e.delay_s == pytest.approx(12.5e-9 + e.bytes / 12.8e9)
        assert e.energy_j == pytest.approx(e.bytes * 1.15e-12)


def test_memory_on_chip_leaks_where_cores_are_not_described() -> None:
    device = plain_accelerator()
    figures = {"static_power_w": 0.2, "sram_bytes_per_lane": 262144.0, "sram_leakage_w_per_byte": 1e-7}
    changed = {n: replace(device.parameters[n], value=v) for n, v in figures.items()}
    buffer = {"global_buffer_bytes": replace(device.parameters["memory_bytes"], value=1e6)}
    leaking = replace(device, parameters={**device.parameters, **changed, **buffer})
    # 0.2 W, and 1e-7 W for each byte of 8 cores' 256 KiB and of 1 MB
    assert device.lanes == 8
    assert costs(chain(3), leaking).static_power_w == pytest.approx(0.2 + 1e-7 * (8 * 262144 + 1e6))


# What is refused, and what is said


def test_impossible_requests_are_refused_with_the_reason() -> None:
    graph = chain(1)
    with pytest.raises(BadInput, match="has 8 lanes, not 9"):
        costs(graph, load_device("edge8"), lanes=9)
    with pytest.raises(BadInput, match="must be one of eager, graph"):
        costs(graph, load_device("h200"), launch="grpah")
    with pytest.raises(BadInput, match="needs a GPU"):
        costs(graph, made_up_cpu(), launch="graph")
    with pytest.raises(BadInput, match="'edge8' has no float64: its matrix rates are for bfloat16, float16, float32"):
        costs(chain(1, dtype="float64"), load_device("edge8"))
    with pytest.raises(BadInput, match="'t4' has no float64: its matrix rates are for float16, float32"):
        costs(chain(1, dtype="float64"), load_device("t4"))


def test_ops_without_a_formula_are_named() -> None:
    step = Step()
    x = step.storage(step.image, "input")
    step.task("only", "", "forward")
    step.op("mystery", (x,), (x,), vector_flops=None)
    assert any("aten.mystery.default x 1" in line for line in costs(step.graph("m"), load_device("h200")).not_modelled)


def test_rate_that_stands_in_for_a_missing_one_is_named() -> None:
    said = costs(chain(1, dtype="bfloat16"), made_up_cpu()).assumptions
    assert "no bfloat16 rate: matrix_flops_per_s.float32 stands in" in said


@pytest.mark.parametrize("name", ["h200", "edge8"])
def test_a_step_of_50_000_ops_is_costed_task_by_task(name: str) -> None:
    n = 50_000
    types = tuple(
        OpType(f"aten.a{k}.default", "elementwise", "float32", ((k,),), ((k,),), (), 0, k, 8 * k, 4 * k)
        for k in range(1, 201)
    )
    base = chain(1)
    storages = tuple(replace(base.storages[-1], role="transient", born=i, freed=min(i + 2, n - 1)) for i in range(n))
    ops = tuple(Op(i % 200, "", "forward", tuple(range(max(0, i - 2), i)), (i,), ()) for i in range(n))
    tasks = tuple(Task(f"t{a}", f"t{a}", "", "forward", tuple(range(a, a + 50)), 0, 0, 0, 0) for a in range(0, n, 50))
    graph = replace(
        base,
        op_types=types,
        ops=ops,
        storages=storages,
        tasks=tasks,
        edges=(),
        memory=StepMemory(0, 0, 0, 0, 0, 0, 0, 0),
    )
    found = costs(graph, load_device(name))
    one = costs(replace(graph, tasks=tasks[:1]), load_device(name))
    assert len(found.tasks) == len(tasks)
    assert found.tasks[0].best_s == pytest.approx(one.tasks[0].best_s)


def test_a_study_computes_what_its_ops_cost_once_for_each_way_to_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    op_costs = roofline.op_costs

    def counting(graph: BlockGraph, device: Device, flow: Traffic, launch: str) -> OpCosts:
        computed.append(launch)
        return op_costs(graph, device, flow, launch)

    monkeypatch.setattr(roofline, "op_costs", counting)
    pipeline.study(pararev_stage(3, 0.2), load_device("h200"))
    assert computed == ["eager", "graph"]
    computed.clear()
    pipeline.study(pararev_stage(3, 0.2), load_device("edge8"))
    assert computed == ["eager"]
