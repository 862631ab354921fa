"""Who runs where and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pararev_hw.sizes import counted
from pararev_hw.types.base import SCHEMA_VERSION, html_table, mebibytes, milliseconds
from pararev_hw.types.problem import EnergyParts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Placement:
    """Task `task` runs on `lane` from `start_s` to `end_s`."""

    task: str
    lane: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, repr=False)
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

    def __repr__(self) -> str:
        return (
            f"<Schedule by {self.scheduler} on {self.device}: {len(self.placements):,} tasks on "
            f"{counted(self.lanes, 'lane')}, {milliseconds(self.makespan_s)}, {self._bound()}>"
        )

    def _bound(self) -> str:
        return "optimal" if self.optimal else f"{self.gap:.2%} above the lower bound"

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.scheduler} on {self.device}",
            ("makespan", milliseconds(self.makespan_s)),
            ("speed-up over sequential", f"{self.speedup:.3f}"),
            ("lower bound", f"{milliseconds(self.lower_bound_s)} ({self.bound_by})"),
            ("optimality gap", f"{self.gap:.2%}" + (", proved optimal" if self.optimal else "")),
            *([] if self.peak_bytes is None else [("peak memory", mebibytes(self.peak_bytes))]),
        )

    def plot_timeline(self, ax: Axes | None = None) -> Axes:
        """Draw which task runs on which lane and when.

        Args:
            ax: The matplotlib axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Example:
            >>> import pararev_hw as ph
            >>> problem = ph.load_problem("examples/task_graph.json", lanes=2)
            >>> ph.schedule_problem(problem).plot_timeline().get_xlabel()
            'time (ms)'
        """
        from pararev_hw.types.plots import timeline_axes  # draws with matplotlib: heavy, and only asked for here

        return timeline_axes(self.placements, self.lanes, f"{self.scheduler} on {self.device}", ax)

    @property
    def speedup(self) -> float:
        """Time on one lane over this schedule's time."""
        return self.sequential_s / self.makespan_s if self.makespan_s > 0 else 1.0

    @property
    def gap(self) -> float:
        """How far above the lower bound, relative: 0 is proved optimal."""
        return self.makespan_s / self.lower_bound_s - 1.0 if self.lower_bound_s > 0 else 0.0
