"""Which of a device's figures holds for a datatype."""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.errors import BadInput
from pararev_hw.types import Device

_RATE = "matrix_flops_per_s."

# Nearest datatype that a device may give a figure for; what is not listed falls back on float32.
STAND_IN: Mapping[str, tuple[str, ...]] = {"bfloat16": ("float16",), "float16": ("bfloat16",)}


def figure_for(device: Device, stem: str, dtype: str) -> str:
    """Name of the figure of that stem for a datatype, or for the nearest one that the device has."""
    for d in (dtype, *STAND_IN.get(dtype, ()), "float32"):
        if f"{stem}.{d}" in device.parameters:
            return f"{stem}.{d}"
    return f"{stem}.float32"  # which `Device.value` names as missing


def need_rate(device: Device, dtype: str) -> None:
    """Raises BadInput, with the datatypes that the device has, where its file gives no rate of matrix work in one that
    no other rate may stand in for."""
    rates = sorted(name.removeprefix(_RATE) for name in device.parameters if name.startswith(_RATE))
    if dtype not in rates:
        datatypes = ", ".join(rate for rate in rates if "tfloat" not in rate)
        raise BadInput(f"device {device.name!r} has no {dtype}: its matrix rates are for {datatypes}")
