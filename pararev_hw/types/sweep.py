"""Many configurations of a device and a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pararev_hw.types.base import SCHEMA_VERSION, html_table


@dataclass(frozen=True, slots=True)
class SweepAxis:
    """A parameter or an objective of a sweep: the name of its column, its unit, how it is best drawn."""

    name: str
    unit: str
    log: bool = False
    maximise: bool = False
    label: str = ""  # what people call it; empty: its name


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """A configuration that works: its number, its parameters and derived quantities, its objectives.

    `alike` configurations of the front are as good as this one, itself included. The base device has row -1.
    """

    row: int
    parameters: Mapping[str, Any]
    objectives: Mapping[str, float]
    alike: int = 1


@dataclass(frozen=True, slots=True)
class WorkloadChoice:
    """What to take for one of several networks of a sweep (in one of several modes): the `best` in the first objective,
    and `recommended` over all of them. `shared`: this workload on the configuration that serves all of them best, None
    where none was evaluated with every one."""

    workload: Mapping[str, str]
    best: SweepPoint
    recommended: SweepPoint
    shared: SweepPoint | None = None


@dataclass(frozen=True, slots=True)
class LayerLimit:
    """A layer of a configuration: what sets its pace, its share of the busy time, where it lies on the roofline: by its
    multiply-accumulates, and accumulates of spikes, that are not skipped."""

    name: str
    limit: str
    share: float
    macs_per_byte: float | None  # of main memory; None: it moves none
    macs_per_s: float


@dataclass(frozen=True, slots=True)
class SweepNeighbour:
    """A configuration that differs in one parameter by one step; no objectives where it is not possible."""

    parameter: str
    value: Any
    objectives: Mapping[str, float]
    failed: str = ""


@dataclass(frozen=True, slots=True)
class PointExplanation:
    """Why a configuration costs what it costs.

    `time_shares` are shares of the time of all cores: what limits them while they are busy, and "waiting" (for another
    core, or at the end of the step). `macs_per_s_peak` and `bytes_per_s` are the roofs of one core, None where the
    device does not describe its cores.
    """

    row: int
    time_shares: Mapping[str, float]
    layers: tuple[LayerLimit, ...]
    energy_j: Mapping[str, float]
    neighbours: tuple[SweepNeighbour, ...]
    macs_per_s_peak: float | None = None
    bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class SweepResult:
    """A finished sweep.

    `parameters` are those that vary, `fixed` those that do not. `pareto` is sorted by the first objective, points that
    are alike merged; `sample` are other configurations, for pictures. `recommended` is the knee of the front, or what
    equals it with less hardware; `best` the best in the first objective, or what is as good within 1 % and costs least
    in the others; `base` the base device itself, where it could be evaluated. `warnings` say which
    ranges end where the best configurations lie. `sensitivity[objective][parameter]` is the share of the variance of
    the objective's logarithm that the parameter explains alone, None where nothing could be said, largest first;
    `interactions[objective]` what no parameter explains alone. `configs_per_s` None: nothing was computed this time.
    `combinations` None: a range without steps has no number of values. `workloads` are the answers for each network
    and mode, where several were swept.
    """

    name: str
    device: str
    scheduler: str
    method: str
    parameters: tuple[SweepAxis, ...]
    fixed: Mapping[str, Any]
    objectives: tuple[SweepAxis, ...]
    evaluated: int
    failed: int
    reasons: Mapping[str, int]
    resumed: int
    configs_per_s: float | None
    pareto: tuple[SweepPoint, ...]
    sample: tuple[SweepPoint, ...]
    sensitivity: Mapping[str, Mapping[str, float | None]]
    combinations: int | None
    recommended: SweepPoint | None = None
    best: SweepPoint | None = None
    base: SweepPoint | None = None
    warnings: tuple[str, ...] = ()
    interactions: Mapping[str, float | None] = field(default_factory=dict)
    explanations: tuple[PointExplanation, ...] = ()
    workloads: tuple[WorkloadChoice, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        return (
            f"<SweepResult {self.name} on {self.device}: {self.evaluated:,} configurations, "
            f"{self.failed:,} impossible, {len(self.pareto)} on the Pareto front>"
        )

    def _repr_html_(self) -> str:
        return html_table(
            f"sweep {self.name} on {self.device}",
            ("configurations", f"{self.evaluated:,}, of which {self.failed:,} are impossible"),
            ("Pareto front", f"{len(self.pareto)} configurations"),
            *((f"varied: {axis.name}", axis.unit) for axis in self.parameters),
        )
