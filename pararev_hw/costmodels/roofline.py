"""The roofline: an op takes as long as its slowest resource, plus an overhead.

    seconds(op) = max(matrix, vector, traffic, on-chip traffic) + overhead
    matrix      = flops x spiking share / (peak x w / (w + w_half)) = (flops x share + w_half) / peak
    vector      = vector_flops / peak vector rate
    traffic     = (bytes + b_half) / bandwidth          main memory
    on-chip     = bytes / SRAM bandwidth                 accelerators only

`w_half` and `b_half` are the work at which a kernel reaches half its peak: small kernels do not fill a chip. The
spiking share is SOPs over dense MACs where zeros are skipped and the input is spikes, 1 everywhere else. The overhead
is the kernel launch on the device; on a CPU, where the host is the device, it is the dispatch of the op. What moves
nothing and computes nothing (a view, an allocation) takes no device time.

A task's time is the sum over its ops. While it runs on a chip that its lanes share it asks for

    compute_demand   = sum over ops (occupancy x (seconds - overhead)) / sum over ops (seconds)
    bandwidth_demand = main-memory bytes / (seconds x bandwidth)
    occupancy(op)    = min(1, output elements / (units x elements per unit))

Cores of CPUs and accelerators compute for themselves (compute_demand 0) and share the main memory alone.
Roofline: Williams, Waterman, Patterson, CACM 2009.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels import accelerator
from pararev_hw.costmodels.datatypes import figure_for
from pararev_hw.costmodels.gpu.model import gpu_op_costs, has_law
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.roofline_terms import Rates, Work, busy_seconds, op_parameters
from pararev_hw.costmodels.spikes import spiking_share
from pararev_hw.costmodels.traffic import Floats, Traffic, kept_on_chip, share_of_bytes
from pararev_hw.errors import BadInput
from pararev_hw.graph.liveness import lives_throughout
from pararev_hw.sizes import counted
from pararev_hw.types import BlockGraph, CommEdge, Device, OpType, SchedulingProblem, TaskCost

LAUNCHES = ("eager", "graph")

_MATRIX_KINDS = ("conv", "conv_backward", "gemm", "attention", "attention_backward")


def mixed_problem(device: Device, of_kinds: Sequence[SchedulingProblem], counts: Sequence[int]) -> SchedulingProblem:
    """The problem of a chip whose lanes are of two kinds, from those of chips of either kind alone."""
    one, two = of_kinds
    kind_of_lane = ([0] * counts[0] + [1] * counts[1])[: one.lanes]
    tasks = tuple(
        replace(
            a,
            times_s=tuple((a, b)[k].times_s[0] for k in kind_of_lane),
            lane_energy_j=tuple((a, b)[k].energy_j for k in kind_of_lane),
            bandwidth_demand=max(a.bandwidth_demand, b.bandwidth_demand),
        )
        for a, b in zip(one.tasks, two.tasks, strict=True)
    )
    whole = sum(c.static_power_w * n for c, n in zip(of_kinds, counts, strict=True)) / sum(counts)
    assumption = (f"lanes {counts[0]} to {sum(counts) - 1} of {device.name} are of its second kind",)
    more = tuple(line for line in two.assumptions if line not in one.assumptions)
    return replace(one, tasks=tasks, static_power_w=whole, assumptions=(*one.assumptions, *assumption, *more))


def problem(graph: BlockGraph, device: Device, flow: Traffic, ops: OpCosts, lanes: int | None) -> SchedulingProblem:
    """The scheduling problem of a graph whose ops cost what `ops` says."""
    lanes = device.lanes if lanes is None else lanes
    if device.kind != "gpu" and lanes > device.lanes:
        raise BadInput(f"device {device.name!r} has {counted(device.lanes, 'lane')}, not {lanes}")
    time_s, host_s, dram = map(flow.per_task, (ops.seconds, ops.host_s, ops.dram_bytes))
    occupied_s = flow.per_task(ops.occupancy * (ops.seconds - ops.overhead_s))
    unloaded_s = dram / device.get("memory_bandwidth_bytes_per_s", math.inf)
    compute = np.divide(occupied_s, time_s, out=np.zeros_like(time_s), where=time_s > 0).clip(0, 1)
    memory = np.divide(unloaded_s, time_s, out=np.zeros_like(time_s), where=time_s > 0).clip(0, 1)
    energy = {part: flow.per_task(values) for part, values in ops.energy_j.items()}
    return SchedulingProblem(
        device=device.name,
        lanes=lanes,
        tasks=tuple(
            TaskCost(
                task=task.id,
                times_s=(float(time_s[k]),) * lanes,
                compute_demand=float(compute[k]),
                bandwidth_demand=float(memory[k]),
                host_s=float(host_s[k]),
                memory_bytes=int(flow.output_bytes[k]),
                energy_j={part: float(values[k]) for part, values in energy.items()},
            )
            for k, task in enumerate(graph.tasks)
        ),
        edges=_edges(graph, device),
        memory_limit_bytes=int(device.value("memory_bytes")) if "memory_bytes" in device.parameters else None,
        static_bytes=sum(s.bytes for s in graph.storages if lives_throughout(s)),
        static_power_w=_static_power_w(device),
        assumptions=(*_assumptions(graph, device), *ops.notes),
        not_modelled=_not_modelled(graph, device),
    )


def op_costs(graph: BlockGraph, device: Device, flow: Traffic, launch: str) -> OpCosts:
    """What each op costs on a device of any kind but a neuromorphic chip, whose layers are mapped to cores."""
    check_launch(device, launch)
    if accelerator.has_cores(device):
        return accelerator.accelerator_op_costs(graph, device, flow)
    plain = _roofline(graph, device, flow, launch)
    return gpu_op_costs(graph, device, launch, plain) if has_law(device) else plain


def busy_seconds_of(types: Sequence[OpType], device: Device) -> Floats:
    """Seconds of an op of each type beside what it costs to dispatch it, on a device without cores of its own."""
    flops, vector, moved = (
        np.array(values, np.float64)
        for values in zip(
            *((t.true_flops, t.vector_flops or 0, t.read_bytes + t.write_bytes) for t in types), strict=True
        )
    )
    return busy_seconds(Work(flops, np.where(flops > 0, 1.0, 0.0), vector, moved, moved), rates_of(types, device))


def rates_of(types: Sequence[OpType], device: Device) -> Rates:
    """How fast a device computes each of the types."""
    parameters = [op_parameters(device, t) for t in types]
    bandwidth = device.value("memory_bandwidth_bytes_per_s")
    return Rates(
        matrix=np.array([device.value(p.matrix_rate) for p in parameters]),
        vector=np.array([device.value(p.vector_rate) for p in parameters]),
        bandwidth=min(bandwidth, device.get("lane_bandwidth_bytes_per_s", bandwidth)),
        sram_bandwidth=device.value("sram_bandwidth_bytes_per_s") if device.kind == "accelerator" else math.inf,
        half_flops=device.get("matrix_half_work_flops", 0.0),
        half_bytes=device.get("bandwidth_half_work_bytes", 0.0),
    )


def check_launch(device: Device, launch: str) -> None:
    """Raises BadInput for a launch that the device does not have."""
    if launch not in LAUNCHES:
        raise BadInput(f"launch is {launch!r}: it must be one of {', '.join(LAUNCHES)}")
    if launch == "graph" and device.kind != "gpu":
        raise BadInput(f"device {device.name!r} is of kind {device.kind}: launch 'graph' needs a GPU, leave it out")


def _roofline(graph: BlockGraph, device: Device, flow: Traffic, launch: str) -> OpCosts:
    type_of = np.fromiter((op.type for op in graph.ops), np.int64, len(graph.ops))

    def per_op(values: list[float]) -> Floats:  # one value per type -> one per op
        return np.array(values, np.float64)[type_of] if values else np.zeros(len(graph.ops))

    types = graph.op_types
    flops = per_op([t.true_flops for t in types])
    vector = per_op([t.vector_flops or 0 for t in types])
    read, write = per_op([t.read_bytes for t in types]), per_op([t.write_bytes for t in types])
    moved = read + write
    works = (flops > 0) | (vector > 0) | (moved > 0)

    skips = device.get("zero_skipping", 0.0) == 1.0
    share = spiking_share(graph) if skips else np.full(len(graph.ops), np.nan)
    spikes = ~np.isnan(share)
    operations = flops * np.where(spikes, share, 1.0)

    dram = moved
    if device.kind == "accelerator":
        resident = kept_on_chip(flow, device.value("sram_bytes_per_lane"))
        resident_reads, resident_writes = (
            share_of_bytes(flow.reads, flow, resident),
            share_of_bytes(flow.writes, flow, resident),
        )
        dram = read * (1 - resident_reads) + write * (1 - resident_writes)

    parameters = [op_parameters(device, t) for t in types]
    rates = rates_of(types, device)
    busy = busy_seconds(
        Work(operations, np.where(flops > 0, 1.0, 0.0), vector, dram, moved),
        replace(rates, matrix=rates.matrix[type_of], vector=rates.vector[type_of]),
    )
    dispatch = np.where(works, device.get("host_overhead_s", 0.0), device.get("host_view_overhead_s", 0.0))
    overhead = dispatch if device.kind == "cpu" else np.where(works, device.get("launch_overhead_s", 0.0), 0.0)
    macs = flops / 2
    energy = {
        "mac": np.where(spikes, 0.0, macs) * per_op([device.value(p.mac_energy) for p in parameters]),
        "ac": np.where(spikes, operations / 2, 0.0) * per_op([device.value(p.ac_energy) for p in parameters]),
        "vector": vector * device.value("energy_per_vector_flop_j"),
        "dram": dram * device.value("dram_energy_j_per_byte"),
    }
    if device.kind == "accelerator":
        energy["sram"] = moved * device.value("sram_energy_j_per_byte")
    return OpCosts(
        seconds=busy + overhead,
        overhead_s=overhead,
        host_s=dispatch if device.kind == "gpu" and launch == "eager" else np.zeros(len(graph.ops)),
        occupancy=per_op([_occupancy(device, t) for t in types]),
        dram_bytes=dram,
        energy_j=energy,
    )


def _occupancy(device: Device, t: OpType) -> float:
    if device.kind != "gpu":
        return 0.0
    per_unit = device.value("matrix_elements_per_unit" if t.kind in _MATRIX_KINDS else "vector_elements_per_unit")
    elements = sum(math.prod(shape) for shape in t.output_shapes)
    return min(1.0, elements / (device.value("parallel_units") * per_unit))


def _edges(graph: BlockGraph, device: Device) -> tuple[CommEdge, ...]:
    """Edges with what they cost between two lanes: a wait for an event, or a message over the network on chip."""
    latency_s = device.get("noc_latency_s", device.get("lane_sync_s", 0.0))
    bandwidth = device.get("noc_bandwidth_bytes_per_s", math.inf)
    per_byte_j = device.get("noc_energy_j_per_byte", 0.0)
    if accelerator.has_cores(device):
        configs = accelerator.config_table(device)
        latency_s = float(accelerator.message_delay_s(configs)[0])
        per_byte_j = float(accelerator.message_j_per_byte(configs)[0])
    return tuple(
        CommEdge(e.src, e.dst, latency_s + e.bytes / bandwidth, e.bytes, e.bytes * per_byte_j) for e in graph.edges
    )


def _static_power_w(device: Device) -> float:
    """Idle power and leakage of the whole chip, used or not."""
    if accelerator.has_cores(device):
        return float(accelerator.static_power_w(accelerator.config_table(device))[0])
    on_chip = device.lanes * device.get("sram_bytes_per_lane", 0.0) + device.get("global_buffer_bytes", 0.0)
    return device.get("static_power_w", 0.0) + on_chip * device.get("sram_leakage_w_per_byte", 0.0)


def _assumptions(graph: BlockGraph, device: Device) -> tuple[str, ...]:
    assumptions = []
    if (assumed := device.assumed_parameters()) is not None:
        assumptions.append(assumed)
    if "matrix_flops_per_s.tfloat32" in device.parameters and any(
        t.dtype == "float32" and t.kind in ("conv", "conv_backward") for t in graph.op_types
    ):
        assumptions.append(
            "float32 convolutions run in TF32, as torch.backends.cudnn.allow_tf32 lets them by default; "
            "matrix products do not"
        )
    for dtype in sorted({t.dtype for t in graph.op_types if t.flops > 0}):
        own_width = accelerator.has_cores(device) and "activation_bits" in device.parameters
        if not own_width and f"matrix_flops_per_s.{dtype}" not in device.parameters:
            assumptions.append(f"no {dtype} rate: {figure_for(device, 'matrix_flops_per_s', dtype)} stands in")
    if device.kind == "accelerator":
        if graph.spikes is None and all(t.sops is None for t in graph.tasks):
            assumptions.append("no spikes are known: every matrix operation counts as dense")
        elif graph.spikes is not None and not graph.spikes.measured:
            assumptions.append(f"spikes were not measured: {graph.spikes.source}")
    return tuple(assumptions)


_NOT_MODELLED: Mapping[str, tuple[str, ...]] = {
    "gpu": (
        "reuse of data in the cache between ops: all traffic goes to the main memory",
        "which kernel the library picks, its workspace and layout conversions",
        "clock and power states",
    ),
    "cpu": (
        "reuse of data in the caches between ops",
        "several lanes waiting for Python's global lock",
        "clock and power states",
    ),
    "accelerator": (
        "tiling: a tensor larger than a core's memory goes to main memory as a whole",
        "operand fetches inside a matrix operation beyond one read and one write of each tensor",
        "contention on the network on chip",
    ),
}


_CORES_NOT_MODELLED = (
    "contention on the network on chip and for the global buffer, conflicts between banks",
    "tensors that pass from task to task staying on chip: they go through the main memory",
    "a tiling that serves two memories at once: each level has its own best one",
    "partial sums that are skipped because all their inputs are zero: they are read and written as for a dense input",
)


def _not_modelled(graph: BlockGraph, device: Device) -> tuple[str, ...]:
    unknown = graph.unknown_ops
    not_modelled = _CORES_NOT_MODELLED if accelerator.has_cores(device) else _NOT_MODELLED[device.kind]
    if not unknown:
        return not_modelled
    names = ", ".join(f"{name} x {count}" for name, count in unknown.items())
    return (*not_modelled, f"the work of ops without a formula (their bytes count): {names}")
