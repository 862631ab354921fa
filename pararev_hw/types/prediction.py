"""What a schedule costs when it is played on its device, and what reports show of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pararev_hw.errors import BadInput
from pararev_hw.keywords import exact
from pararev_hw.types.base import SCHEMA_VERSION, Provenance, html_table, mebibytes, milliseconds
from pararev_hw.types.chip import ChipRun
from pararev_hw.types.device import Device
from pararev_hw.types.energy import ModelEnergy
from pararev_hw.types.graph import BlockGraph, CriticalPath, Layer
from pararev_hw.types.problem import EnergyParts
from pararev_hw.types.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, repr=False)
class MemoryCurve:
    """Live bytes by role over time: `bytes[role][k]` is alive from `times_s[k]` to `times_s[k + 1]`."""

    times_s: tuple[float, ...]
    bytes: Mapping[str, tuple[int, ...]]

    @property
    def total(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*self.bytes.values(), strict=True))) if self.bytes else ()

    @property
    def peak_bytes(self) -> int:
        return max(self.total, default=0)

    def __repr__(self) -> str:
        return f"<MemoryCurve of {len(self.times_s)} points, peak {mebibytes(self.peak_bytes)}>"


POOR_ERROR = 0.3  # an expected error of the time above which too little is known


@dataclass(frozen=True, slots=True)
class ExpectedError:
    """Half of the 90 % interval of a prediction, as a share of it; None where nothing was ever measured.

    `unmeasured_share` is the share of the time in operations whose kind or shape was never measured, None where the
    device has no measured operations at all.
    """

    latency: float | None
    peak: float | None
    energy: float | None
    unmeasured_share: float | None
    power: float | None = None

    @property
    def poor(self) -> bool:
        """Whether so little is known that a report says so in its first line."""
        return self.latency is not None and self.latency > POOR_ERROR


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What a schedule costs when it is played on its device."""

    device: str
    scheduler: str
    launch: str  # "eager": a host launches every op; "graph": replayed as one graph, no host clock; "" where no host
    schedule: Schedule
    latency_s: float
    host_s: float  # time the launching host is busy; 0 where there is no host clock
    lane_busy_s: tuple[float, ...]
    peak_bytes: int
    memory: MemoryCurve
    energy_j: EnergyParts  # with "total"
    energy_by_phase_j: Mapping[str, EnergyParts]
    time_by_phase_s: Mapping[str, float]  # lane time spent in each phase
    provenance: Provenance
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    # of the step in program order as PyTorch's own allocator counts it, library workspaces included, where that is what
    # runs: a sequential schedule, launched eagerly, on a CPU or a GPU; `peak_bytes` is the tensors alone, as scheduled
    eager_peak_bytes: int | None = None
    expected_error: ExpectedError | None = None
    choices: tuple[str, ...] = ()  # rewrites of the step that it was made for, in words; none: the step as traced
    schema_version: int = SCHEMA_VERSION

    @property
    def power_w(self) -> float | None:
        """Average power over the step; None where no energy is known."""
        total = self.energy_j.get("total")
        return None if total is None or self.latency_s <= 0 else total / self.latency_s

    def __repr__(self) -> str:
        return (
            f"<Prediction of {self.scheduler} on {self.device}: {milliseconds(self.latency_s)}, "
            f"peak {mebibytes(self.peak_bytes)}, {self.provenance} parameters>"
        )

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.scheduler} on {self.device} ({self.provenance} parameters)",
            ("latency", milliseconds(self.latency_s)),
            ("peak memory", mebibytes(self.peak_bytes)),
            ("energy", f"{self.energy_j['total'] * 1e3:,.4g} mJ" if "total" in self.energy_j else "not modelled"),
            ("launched", self.launch or "by the device itself"),
        )

    def plot_memory(self, ax: Axes | None = None) -> Axes:
        """Draw what is alive over time, by role.

        Args:
            ax: The matplotlib axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Example:
            >>> import pararev_hw as ph
            >>> graph = ph.trace("pararevsnn21", width=0.1, batch=1)
            >>> ph.schedule(graph, "h200").predict().plot_memory().get_ylabel()
            'memory (MiB)'
        """
        from pararev_hw.types.plots import memory_axes  # draws with matplotlib: heavy, and only asked for here

        return memory_axes(self.memory.times_s, self.memory.bytes, f"{self.scheduler} on {self.device}", ax)


RecommendationName = Literal["fastest", "within_memory", "least_memory"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one question: which way to run the step is the fastest, the fastest within the memory limit, or
    the one that needs the least memory."""

    name: RecommendationName
    prediction: Prediction


@dataclass(frozen=True, slots=True, repr=False)
class Study:
    """One network on one device: the step as PyTorch runs it and the schedules that were tried.

    `predictions[0]` is the sequential one that the others are compared with; `best` is the index of the recommended
    one. `critical_path` is that of the recommended one's graph, weighted by time on the device.

    `front` holds, least memory first, the predictions of which none is both faster and smaller than another.
    `memory_limit_bytes` is what the recommendation "within_memory" keeps to: the user's limit (`limit_given`), or the
    memory of the sequential step. `variants` are steps that were rewritten or taken in finer tasks, by the `choices` of
    the predictions made for them, and `rewrites` the names of what was rewritten there.
    `not_searched` says in words which possibilities were left out.
    """

    graph: BlockGraph
    device: Device
    predictions: tuple[Prediction, ...]
    best: int
    critical_path: CriticalPath
    recommendations: tuple[Recommendation, ...] = ()
    front: tuple[Prediction, ...] = ()
    memory_limit_bytes: int | None = None
    limit_given: bool = False
    variants: Mapping[tuple[str, ...], BlockGraph] = field(default_factory=dict)
    rewrites: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    not_searched: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()  # of the step as traced, each op alone on one lane
    op_parallelism: float | None = None  # the most that lanes could give the step as traced if each op were a task
    chip: ChipRun | None = None  # of a neuromorphic chip: which layers are on which cores
    forward_j_by_model: Mapping[str, float] = field(default_factory=dict)  # energy models of the literature
    energy_model: ModelEnergy | None = None  # the one of them that was asked for
    eager: Prediction | None = None  # the sequential step in eager PyTorch, where `predictions` launch it otherwise

    def __post_init__(self) -> None:
        if not 0 <= self.best < len(self.predictions):
            raise BadInput(f"best is {self.best}: it must name one of {len(self.predictions)} predictions")

    @exact
    def graph_of(self, prediction: Prediction) -> BlockGraph:
        """The step that a prediction was made for: as traced, or rewritten."""
        return self.variants.get(prediction.choices, self.graph)

    @exact
    def is_rewritten(self, prediction: Prediction) -> bool:
        """Whether it was made for a step that does other work than the traced one; tasks of another size are the same
        work."""
        same_tasks = self.graph_of(prediction).granularity == self.graph.granularity
        return bool(self.rewrites.get(prediction.choices)) or (bool(prediction.choices) and same_tasks)

    @exact
    def recommended(self, name: str) -> Prediction | None:
        """The prediction of the recommendation of that name."""
        return next((r.prediction for r in self.recommendations if r.name == name), None)

    @property
    def chosen_graph(self) -> BlockGraph:
        return self.graph_of(self.chosen)

    @property
    def sequential(self) -> Prediction:
        return self.predictions[0]

    @property
    def base(self) -> Prediction:
        """The step as it runs without any of this, of which gains are told: in eager PyTorch where there is one."""
        return self.predictions[0] if self.eager is None else self.eager

    @property
    def chosen(self) -> Prediction:
        return self.predictions[self.best]

    def __repr__(self) -> str:
        return (
            f"<Study of {self.graph.model} on {self.device.name}: {len(self.predictions)} schedules, "
            f"{milliseconds(self.sequential.latency_s)} sequential, {milliseconds(self.chosen.latency_s)} with "
            f"{self.chosen.scheduler}>"
        )

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.graph.model} on {self.device.title}",
            *(
                (
                    " ".join(filter(None, (p.scheduler, p.launch))),
                    f"{milliseconds(p.latency_s)}, peak {mebibytes(p.peak_bytes)}"
                    + (", recommended" if k == self.best else ""),
                )
                for k, p in enumerate(self.predictions)
            ),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Several networks on one device, in the order the user named them."""

    device: Device
    studies: tuple[Study, ...]

    def __repr__(self) -> str:
        names = ", ".join(s.graph.model for s in self.studies)
        return f"<Comparison of {names} on {self.device.name}>"

    def _repr_html_(self) -> str:
        return html_table(
            f"on {self.device.title}",
            *(
                (
                    s.graph.model,
                    f"{milliseconds(s.sequential.latency_s)} sequential, {milliseconds(s.chosen.latency_s)} with "
                    f"{s.chosen.scheduler}, peak {mebibytes(s.chosen.peak_bytes)}",
                )
                for s in self.studies
            ),
        )
