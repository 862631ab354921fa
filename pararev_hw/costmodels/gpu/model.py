"""What each op of a step costs on a GPU whose file gives the law of kernel times.

    device seconds(op) = sum over its kernels (seconds(kernel) + launch overhead)
    host seconds(op)   = host overhead x factor of its role        eager steps alone
    joules(op)         = power above idle x filled seconds of its kernels, see `pararev_hw.devices.board_power`

A CUDA graph replays without a host, and with a shorter gap between kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels.datatypes import need_rate
from pararev_hw.costmodels.gpu.host import host_roles, host_seconds
from pararev_hw.costmodels.gpu.kernel_time import Card, KernelTimes, Tiles
from pararev_hw.costmodels.gpu.kernels import Kernel, kernels
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.devices.board_power import has_board_power, kernel_watts
from pararev_hw.devices.gpu_law import HOST_ROLES, NODE_ENERGY
from pararev_hw.types import BlockGraph, Device

_RATE = "matrix_flops_per_s."
_WITHOUT_TENSOR_CORES = ("float32", "float64")
# Tiles of products in float32, rows by columns of the result, as cuBLAS of CUDA 11 and 12 launches them by NeuSight's
# table: maxwell_sgemm on Pascal (16 nm), volta_sgemm on Volta and Turing (12 nm), ampere_sgemm since.
_CUBLAS_TILES: Mapping[int, Mapping[str, Tiles]] = {
    16: {"product": ((128, 32), (64, 64), (32, 128)), "batched_product": ((64, 128),)},
    12: {"batched_product": ((128, 32), (64, 64), (32, 128), (64, 128))},
}
_AMPERE_TILES: Mapping[str, Tiles] = {"batched_product": ((128, 128),)}


def has_law(device: Device) -> bool:
    """Whether a device is a GPU that gives the law of kernel times, and not peaks alone."""
    return device.kind == "gpu" and "bandwidth_share.elementwise" in device.parameters


def card_of(device: Device, *, held: bool | None = None) -> Card:
    """The card of a GPU. Datatypes of 16 bits for which it gives a rate have tensor cores, as TF32 does. `held`: the
    clocks follow the power that its board has, which the shares of a measured card hold already; default: as its file
    says."""
    rates = {n.removeprefix(_RATE): p.value for n, p in device.parameters.items() if n.startswith(_RATE)}
    node = NODE_ENERGY.get(round(device.get("process_nm", 0.0)))
    held = node is not None and ("flop_energy_j" in device.parameters if held is None else held)
    return Card(
        tensor_flops_per_s={dtype: rate for dtype, rate in rates.items() if dtype not in _WITHOUT_TENSOR_CORES},
        cuda_flops_per_s={dtype: rate for dtype, rate in rates.items() if dtype in _WITHOUT_TENSOR_CORES},
        bandwidth_bytes_per_s=device.value("memory_bandwidth_bytes_per_s"),
        multiprocessors=int(device.value("parallel_units")),
        power_w=device.get("board_power_w", math.inf) - device.get("static_power_w", 0.0) if held else math.inf,
        node_energy=node or 1.0,
        dram_energy_j_per_byte=device.value("dram_energy_j_per_byte"),
        cache_bytes=device.get("cache_bytes", math.inf),
        tiles=_CUBLAS_TILES.get(round(device.get("process_nm", 0.0)), _AMPERE_TILES),
    )


def values_of(device: Device) -> Mapping[str, float]:
    """The device's parameters by name."""
    return {name: parameter.value for name, parameter in device.parameters.items()}


def need_datatypes(graph: BlockGraph, device: Device) -> None:
    """Raises BadInput where a step multiplies matrices in bfloat16 and the GPU has no cores for it."""
    if "bfloat16" in {t.dtype for t in graph.op_types if t.true_flops}:
        need_rate(device, "bfloat16")


def gpu_op_costs(graph: BlockGraph, device: Device, launch: str, plain: OpCosts) -> OpCosts:
    """What each op costs; `plain` is what the roofline says, from which occupancy is taken, and energy where the
    device's file gives no board power."""
    need_datatypes(graph, device)
    value = values_of(device)
    type_of = np.fromiter((op.type for op in graph.ops), np.int64, len(graph.ops))
    busy, arithmetic, traffic, launches = _type_seconds(graph, device, value)
    gap = value["launch_overhead_s"]
    if launch == "graph":
        gap = value.get("graph_launch_overhead_s", gap)
    overhead: Floats = launches[type_of] * gap
    host = np.zeros(len(graph.ops))
    if launch == "eager":
        factors = {role: value.get(f"host_factor.{role}", 1.0) for role in HOST_ROLES}
        host = host_seconds(host_roles(graph), device.get("host_overhead_s", 0.0), factors)
    energy = plain.energy_j
    if has_board_power(device):
        watts = kernel_watts(device)
        energy = {"mac": arithmetic[type_of] * watts, "dram": traffic[type_of] * watts}
    return replace(plain, seconds=busy[type_of] + overhead, overhead_s=overhead, host_s=host, energy_j=energy)


def _type_seconds(graph: BlockGraph, device: Device, value: Mapping[str, float]) -> tuple[Floats, ...]:
    """Seconds of each op type without launches, those filled with arithmetic and those filled with traffic, and how
    many kernels it launches."""
    index: dict[Kernel, int] = {}
    pairs = [(k, index.setdefault(kernel, len(index))) for k, t in enumerate(graph.op_types) for kernel in kernels(t)]
    n = len(graph.op_types)
    if not pairs:
        return (np.zeros(n),) * 4
    types, inverse = np.array(pairs, np.int64).T
    times = KernelTimes(tuple(index), card_of(device))
    busy, arithmetic, traffic = (
        np.bincount(types, seconds[inverse], n).astype(np.float64)
        for seconds in (times.seconds(value), *times.filled_seconds(value))
    )
    return busy, arithmetic, traffic, np.bincount(types, minlength=n).astype(np.float64)
