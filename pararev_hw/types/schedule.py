"""Who runs where and when."""

from __future__ import annotations

from dataclasses import dataclass, field

from pararev_hw.types.base import SCHEMA_VERSION, html_table
from pararev_hw.types.problem import EnergyParts


@dataclass(frozen=True, slots=True)
class Placement:
    """Task `task` runs on `lane` from `start_s` to `end_s`."""

    task: str
    lane: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who runs where and when. Placements are sorted by start, then lane, then task id.

    `lower_bound_s` is a time that no schedule of the same problem can beat, `bound_by` says what sets it
    ("critical path", "work over lanes", ...). `optimal` is True only where the schedule is proved to be.

    `waits` are pairs (before, after) of task ids on different lanes: beyond what the edges ask for, `after` starts when
    `before` has ended. Whoever keeps lane orders, edges and waits stays within the memory limit, however long tasks
    take. `chosen` names the alternatives that were taken, `notes` what the scheduler has to say about its result.
    `front` are schedules of which none is both faster and smaller than another, where a scheduler was asked for those.
    """

    device: str
    scheduler: str
    lanes: int
    placements: tuple[Placement, ...]
    makespan_s: float
    sequential_s: float
    lower_bound_s: float
    bound_by: str
    optimal: bool
    peak_bytes: int | None = None
    energy_j: EnergyParts = field(default_factory=dict)
    waits: tuple[tuple[str, str], ...] = ()
    chosen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    front: tuple[Schedule, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.scheduler} on {self.device}",
            ("makespan", f"{self.makespan_s * 1e3:,.4g} ms"),
            ("speed-up over one lane", f"{self.speedup:.3f}"),
            ("lower bound", f"{self.lower_bound_s * 1e3:,.4g} ms ({self.bound_by})"),
            ("above the bound", f"{self.gap:.2%}"),
        )

    @property
    def speedup(self) -> float:
        """Time on one lane over this schedule's time."""
        return self.sequential_s / self.makespan_s if self.makespan_s > 0 else 1.0

    @property
    def gap(self) -> float:
        """How far above the lower bound, relative: 0 is proved optimal."""
        return self.makespan_s / self.lower_bound_s - 1.0 if self.lower_bound_s > 0 else 0.0
