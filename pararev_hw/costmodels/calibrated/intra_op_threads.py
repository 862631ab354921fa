"""What a step would take with all threads inside every operation, instead of lanes of one thread each.

    rate(threads) = threads x rate(1);  bandwidth(threads) = what all lanes get together;  overhead as before

Torch gives elementwise work to further threads only above 32768 elements (at::internal::GRAIN_SIZE); below, such an op
takes the time of one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pararev_hw.costmodels import roofline
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.errors import BadInput
from pararev_hw.types import BlockGraph, Device, DeviceParameter

GRAIN_ELEMENTS = 32768  # ATen/Parallel.h
_MATRIX_KINDS = ("conv", "conv_backward", "gemm", "attention", "attention_backward")


def intra_op_seconds(graph: BlockGraph, device: Device, threads: int, seconds: Sequence[float]) -> tuple[float, ...]:
    """Seconds of each op computed by `threads` threads together, `seconds` being those of one thread.

    The roofline of the device's figures says by how much an op gains; so `seconds` may come from any cost model.
    """
    if device.kind != "cpu":
        raise BadInput(f"{device.name} is no CPU: only there do threads compute an operation together")
    if threads < 1:
        raise BadInput(f"threads is {threads}: at least 1 is needed")
    flow = traffic(graph)
    one = roofline.op_costs(graph, device, flow, "eager").seconds
    many = roofline.op_costs(graph, _as_one(device, threads), flow, "eager").seconds
    times_s = []
    for op, calibrated_s, narrow, wide in zip(graph.ops, seconds, one, many, strict=True):
        t = graph.op_types[op.type]
        elements = max((math.prod(s) for s in (*t.output_shapes, *t.input_shapes)), default=0)
        gains = t.kind in _MATRIX_KINDS or elements >= GRAIN_ELEMENTS
        times_s.append(calibrated_s * min(1.0, wide / narrow) if gains and narrow > 0 else calibrated_s)
    return tuple(times_s)


def _as_one(device: Device, threads: int) -> Device:
    """The device as a single lane that has the rates of `threads` lanes."""
    parameters: dict[str, DeviceParameter] = {}
    for name, figure in device.parameters.items():
        faster = "flops_per_s" in name or name == "matrix_half_work_flops"
        parameters[name] = replace(figure, value=figure.value * threads) if faster else figure
    bandwidth = device.value("memory_bandwidth_bytes_per_s")
    lane = device.get("lane_bandwidth_bytes_per_s", bandwidth)
    parameters["lane_bandwidth_bytes_per_s"] = replace(
        parameters["memory_bandwidth_bytes_per_s"], value=min(bandwidth, threads * lane)
    )
    return replace(device, lanes=1, parameters=parameters)
