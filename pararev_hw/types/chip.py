"""A network on a neuromorphic chip: which cores hold which neurons, how full they are, and what a time step takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MappedLayer:
    """A population of neurons and the layers whose weights lead to it. Counts and energies are of one sample."""

    name: str
    layers: tuple[str, ...]
    neurons: int
    channel_groups: int  # ways it is split over output channels
    tiles: tuple[int, ...]  # and over places
    cores: tuple[int, ...]
    spikes: float
    messages: float  # that its cores receive: one for each core that a spike goes to
    events: float
    energy_j: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MappedCore:
    """One core; `use` is the share of its room that is taken, None where the chip gives no limit."""

    core: int
    column: int
    row: int
    populations: tuple[str, ...]
    neurons: int
    synapse_bytes: int
    axons_in: int
    axons_out: int
    use: Mapping[str, float | None]
    busy_s: float  # in one time step


@dataclass(frozen=True, slots=True)
class ChipRun:
    """A network's run on a chip: the mapping, one time step, and counts of one sample."""

    device: str
    chips: int
    cores_available: int
    cores_used: int
    tiles_used: int
    timesteps: int
    batch: int
    time_step_s: float  # with its barrier
    barrier_s: float
    bound_by: str  # what sets the length of a time step
    fill_s: float  # until the last layer has seen the first time step: what the first sample waits longer
    packets: float
    hops: float
    busiest_link: float  # messages over the busiest link in a time step
    limits: Mapping[str, float | None]  # of one core
    layers: tuple[MappedLayer, ...]
    cores: tuple[MappedCore, ...]

    def document(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)
