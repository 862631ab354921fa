"""What a neuromorphic chip is: its cores' room, its mesh, and what each event takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pararev_hw.devices.parameters import BARRIER_TILES, PARAMETERS
from pararev_hw.errors import BadInput
from pararev_hw.types import Device, DeviceParameter


@dataclass(frozen=True, slots=True)
class Room:
    """What a core holds, or what a part needs of it; a limit that the device does not give is infinite."""

    neurons: float = 0
    synapse_bytes: float = 0
    axons_in: float = 0
    axons_out: float = 0

    def __add__(self, other: Room) -> Room:
        return Room(
            self.neurons + other.neurons,
            self.synapse_bytes + other.synapse_bytes,
            self.axons_in + other.axons_in,
            self.axons_out + other.axons_out,
        )

    def lacking(self, limit: Room) -> str | None:
        """The first of its sizes that is beyond the limit's."""
        names = ("neurons", "synapse_bytes", "axons_in", "axons_out")
        return next((n for n in names if getattr(self, n) > getattr(limit, n)), None)


def core_room(device: Device) -> Room:
    """The limits of one core."""
    return Room(
        device.get("neurons_per_core", math.inf),
        device.get("synapse_bytes_per_core", math.inf),
        device.get("axons_in_per_core", math.inf),
        device.get("axons_out_per_core", math.inf),
    )


def weight_bytes(device: Device) -> float:
    """Bytes of one weight in a core's memory."""
    return device.get("weight_bits", 8.0) / 8


def event_s(device: Device, convolution: bool) -> float:
    """Time of one synaptic event."""
    plain = device.value("synaptic_event_s")
    return device.get("synaptic_event_s.convolution", plain) if convolution else plain


def event_j(device: Device, convolution: bool) -> float:
    """Energy of one synaptic event."""
    plain = device.value("synaptic_event_energy_j")
    return device.get("synaptic_event_energy_j.convolution", plain) if convolution else plain


def barrier_s(device: Device, tiles: int) -> float:
    """Time of the barrier that ends a time step in which so many tiles take part."""
    tabulated = [n for n in BARRIER_TILES if n <= tiles and f"barrier_s.{n}_tiles" in device.parameters]
    return device.value(f"barrier_s.{tabulated[-1]}_tiles" if tabulated else "barrier_s")


def cores_per_tile(device: Device) -> int:
    return int(device.get("cores_per_tile", 1))


def tile_at(device: Device, slot: int) -> tuple[int, int]:
    """Column and row of the tile of a core's slot: tiles fill columns, from south to north."""
    tiles = -(-device.lanes // cores_per_tile(device))
    rows = int(device.get("mesh_rows", max(1, math.isqrt(tiles))))
    return divmod(slot // cores_per_tile(device), rows)


def several_chips(device: Device, chips: int) -> Device:
    """A device of so many chips side by side. Raises BadInput where it is no chip of that kind."""
    if device.kind != "neuromorphic":
        raise BadInput(f"device {device.name!r} is of kind {device.kind}: --chips is for neuromorphic chips")
    if chips < 1:
        raise BadInput(f"--chips is {chips}: give at least one")
    count = DeviceParameter(float(chips), "--chips: hops between chips cost as hops on a chip", "assumed")
    return replace(device, lanes=device.lanes * chips, parameters={**device.parameters, "chips": count})


def learning(device: Device, rule: str) -> Device:
    """The device with a learning rule for its training steps. Raises BadInput for a rule that it does not have."""
    rules = PARAMETERS["learning_rule"].choices
    if device.kind != "neuromorphic":
        raise BadInput(f"device {device.name!r} is of kind {device.kind}: --learning-rule is for neuromorphic chips")
    if rule not in rules[1:]:
        raise BadInput(f"--learning-rule is {rule!r}: it must be {' or '.join(rules[1:])}")
    if "synaptic_update_energy_j" not in device.parameters:
        raise BadInput(f"device {device.name!r} does not learn: it gives no synaptic_update_energy_j")
    chosen = DeviceParameter(float(rules.index(rule)), "--learning-rule", "assumed")
    return replace(device, parameters={**device.parameters, "learning_rule": chosen})
