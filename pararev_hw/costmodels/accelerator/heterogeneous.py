"""Chips whose cores are of two kinds: each kind as a device whose cores are all alike."""

from __future__ import annotations

from dataclasses import replace

from pararev_hw.devices.parameters import SECOND_KIND
from pararev_hw.errors import BadInput
from pararev_hw.types import Device


def core_kinds(device: Device) -> tuple[tuple[Device, int], ...]:
    """(device, lanes of that kind): the first lanes are of the first kind, the last `second_kind_lanes` of the second.

    The second kind's figures are those that end in `.second`, and the first kind's where there is none. Raises BadInput
    where as many or more cores are of the second kind as there are, or where a figure of a second kind has no such
    cores.
    """
    second_kind = {n.removesuffix(SECOND_KIND): f for n, f in device.parameters.items() if n.endswith(SECOND_KIND)}
    second = int(device.get("second_kind_lanes", 0.0))
    if second_kind and not second:
        raise BadInput(
            f"device {device.name!r} gives {min(second_kind)}{SECOND_KIND}, but no second_kind_lanes: say how many"
        )
    if not second:
        return ((device, device.lanes),)
    if second >= device.lanes:
        raise BadInput(
            f"device {device.name!r} has {device.lanes} lanes, {second} of a second kind: leave one of the first"
        )
    first = {n: f for n, f in device.parameters.items() if not n.endswith(SECOND_KIND) and n != "second_kind_lanes"}
    return (
        (replace(device, parameters=first), device.lanes - second),
        (replace(device, parameters={**first, **second_kind}), second),
    )
