"""Which of a device's figures holds for a datatype."""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.types import Device

# Nearest datatype that a device may give a figure for; what is not listed falls back on float32.
STAND_IN: Mapping[str, tuple[str, ...]] = {"bfloat16": ("float16",), "float16": ("bfloat16",)}


def figure_for(device: Device, stem: str, dtype: str) -> str:
    """Name of the figure of that stem for a datatype, or for the nearest one that the device has."""
    for d in (dtype, *STAND_IN.get(dtype, ()), "float32"):
        if f"{stem}.{d}" in device.parameters:
            return f"{stem}.{d}"
    return f"{stem}.float32"  # which `Device.value` names as missing
