"""The roofline's terms as functions of arrays: one device's ops, or a sweep's rows by configurations, alike.

Arrays broadcast: `work` is [ops] beside scalars of one device, or [rows, 1] beside parameters [configurations].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.datatypes import figure_for, need_rate
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import Device, OpType


@dataclass(frozen=True, slots=True)
class OpParameters:
    """The names of the device's parameters that an op is computed with."""

    matrix_rate: str
    vector_rate: str
    mac_energy: str
    ac_energy: str


def op_parameters(device: Device, t: OpType) -> OpParameters:
    """Which of the device's parameters apply to an op. Raises BadInput where the device lacks them."""
    mac = figure_for(device, "energy_per_mac_j", computes_in(device, t))
    ac = figure_for(device, "energy_per_ac_j", t.dtype)
    return OpParameters(
        matrix_rate=_matrix_rate(device, t),
        vector_rate=figure_for(device, "vector_flops_per_s", t.dtype),
        mac_energy=mac,
        ac_energy=ac if ac in device.parameters else mac,
    )


def computes_in(device: Device, t: OpType) -> str:
    """The datatype a matrix op computes in. PyTorch lets cuDNN take TF32 for float32 convolutions by default
    (`torch.backends.cudnn.allow_tf32`), and keeps float32 for matrix products."""
    tf32 = t.dtype == "float32" and t.kind in ("conv", "conv_backward")
    return "tfloat32" if tf32 and "matrix_flops_per_s.tfloat32" in device.parameters else t.dtype


def _matrix_rate(device: Device, t: OpType) -> str:
    """Peak of a matrix op: that of its own kind where the device gives one, else that of any matrix op."""
    kinds = {"conv": ("conv",), "conv_backward": ("conv_backward", "conv")}.get(t.kind, ())
    for name in (f"{kind}_flops_per_s.{t.dtype}" for kind in kinds):
        if name in device.parameters:
            return name
    if t.dtype == "float64" and t.flops > 0:  # float32's rate would flatter it
        need_rate(device, t.dtype)
        return "matrix_flops_per_s.float64"
    return figure_for(device, "matrix_flops_per_s", computes_in(device, t))


@dataclass(frozen=True, slots=True)
class Work:
    """What ops do: flops of matrix work without skipped zeros, of vector work, bytes of main memory, all bytes."""

    flops: Floats
    has_matrix_work: Floats  # 1 where the op has matrix work, else 0
    vector_flops: Floats
    dram_bytes: Floats
    moved_bytes: Floats


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a device does it. `half_flops` and `half_bytes`: the work at which half the peak is reached."""

    matrix: Floats
    vector: Floats
    bandwidth: Floats | float
    sram_bandwidth: Floats | float
    half_flops: Floats | float
    half_bytes: Floats | float


def busy_seconds(work: Work, rates: Rates) -> Floats:
    """Seconds of each op's slowest resource."""
    busy: Floats = (work.flops + work.has_matrix_work * rates.half_flops) / rates.matrix
    np.maximum(busy, work.vector_flops / rates.vector, out=busy)
    pulled = work.dram_bytes + np.where(work.dram_bytes > 0, 1.0, 0.0) * rates.half_bytes
    np.maximum(busy, pulled / rates.bandwidth, out=busy)
    np.maximum(busy, work.moved_bytes / rates.sram_bandwidth, out=busy)
    return busy
