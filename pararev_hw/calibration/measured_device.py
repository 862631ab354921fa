"""The device under the profile: the figures that a datasheet would give, measured here."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pararev_hw.costmodels.allocator.observed import with_observed_allocations
from pararev_hw.devices import load_device
from pararev_hw.measurement import cuda_clock, cuda_step_clock, measure, quick_cpu_device
from pararev_hw.measurement.environment import cores
from pararev_hw.types import Device, DeviceParameter

_QUICK_S = 2.0
_MATRIX = 8192  # of a product at a GPU's peak
_COPY_ELEMENTS = 1 << 28  # 1 GiB of float32
_TAKEN_OVER = (  # what no short measurement tells: of the H200's file, and assumed here
    "matrix_elements_per_unit",
    "vector_elements_per_unit",
    "lane_sync_s",
    "static_power_w",
    "energy_per_mac_j.float32",
    "energy_per_vector_flop_j",
    "dram_energy_j_per_byte",
)


def measured_device(device: str) -> Device:
    """This machine's CPU, a lane per core, or its GPU, quickly measured."""
    if device == "cpu":
        return with_observed_allocations(quick_cpu_device(cores(), _QUICK_S))
    return _gpu()


def _gpu() -> Device:
    properties = torch.cuda.get_device_properties(0)
    model = load_device("h200")
    source = f"torch {torch.__version__}, {properties.name}"
    parameters = {
        name: DeviceParameter(value, f"{meaning}; {source}", "measured") for name, value, meaning in _probes()
    }
    parameters["memory_bytes"] = DeviceParameter(
        float(properties.total_memory), f"as the driver reports it; {source}", "measured"
    )
    parameters["parallel_units"] = DeviceParameter(float(properties.multi_processor_count), source, "measured")
    for name in _TAKEN_OVER:
        if name in model.parameters:
            parameters[name] = DeviceParameter(model.value(name), f"not measured here: that of {model.name}", "assumed")
    return Device(
        name=properties.name.lower().replace(" ", "-"),
        kind="gpu",
        title=properties.name,
        lanes=model.lanes,
        parameters=dict(sorted(parameters.items())),
        notes=("A lane is a stream.",),
    )


def _probes() -> list[tuple[str, float, str]]:
    """Name, value and what was run."""

    def seconds(run: Callable[[], object]) -> float:
        return measure(run, cuda_clock, limit_s=0.3).median_s

    probes = []
    allowed = torch.backends.cuda.matmul.allow_tf32
    try:
        for name, dtype, tf32 in (
            ("float32", torch.float32, False),
            ("tfloat32", torch.float32, True),
            ("bfloat16", torch.bfloat16, False),
            ("float16", torch.float16, False),
        ):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a = torch.randn(_MATRIX, _MATRIX, device="cuda").to(dtype)
            rate = 2 * _MATRIX**3 / seconds(lambda a=a: a @ a)  # type: ignore[misc]
            probes.append((f"matrix_flops_per_s.{name}", rate, f"{_MATRIX}^3 matmul"))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    big = torch.empty(_COPY_ELEMENTS, device="cuda")
    bandwidth = 8 * _COPY_ELEMENTS / seconds(big.clone)
    cached = torch.ones(1 << 20, device="cuda")
    tiny = torch.ones(4, device="cuda")
    launch_s = seconds(lambda: tiny.mul_(1.0))
    vector_s = max(seconds(lambda: cached.mul_(1.0)) - launch_s, 1e-9)
    host_s = measure(lambda: tiny.mul_(1.0), cuda_step_clock, limit_s=0.2, batch_s=5e-3).median_s
    view_s = measure(lambda: tiny.view(2, 2), cuda_step_clock, limit_s=0.2, batch_s=5e-3).median_s
    probes += [
        ("memory_bandwidth_bytes_per_s", bandwidth, "1 GiB clone, read + write"),
        ("vector_flops_per_s.float32", cached.numel() / vector_s, "product of 2^20 elements in the cache"),
        ("launch_overhead_s", launch_s, "a kernel of 4 elements, back to back"),
        ("host_overhead_s", host_s, "launches of a kernel of 4 elements"),
        ("host_view_overhead_s", view_s, "views of 4 elements"),
    ]
    return probes
