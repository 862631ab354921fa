"""Predictions beside real steps, and beside the figures of a paper."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from pararev_hw.errors import BadInput
from pararev_hw.types.base import SCHEMA_VERSION, html_table
from pararev_hw.types.profile import Environment

_MEDIAN = math.sqrt(math.pi / 2)  # standard error of the median of normal samples over that of their mean
_ONE_IN_TEN = 1.645  # standard errors by which one difference in ten is larger


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step takes, predicted or measured. `energy_j` None: the machine has no counter, or none is modelled."""

    latency_s: float
    peak_bytes: int
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class OpError:
    """Seconds of a step in one op, or one kind of ops: predicted, and measured by torch's profiler."""

    name: str
    predicted_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class ValidationCase:
    """A network that really ran: what was predicted for a step of it, and what was measured.

    `held_out` "network": the calibration ran no whole step of this family of networks; "shape": it ran another depth or
    size of the family. `baselines` are seconds by name. `samples_s` is every measured step. A case that did not come
    to an end says why in `failed` and has no measurement.
    """

    name: str  # "pararevsnn37 train, width 0.25, batch 8, T 2, float32"
    network: str
    held_out: Literal["network", "shape"]
    mode: Literal["train", "infer"]
    launch: Literal["eager", "graph"]
    dtype: str
    batch: int
    timesteps: int
    width: float
    flops: int
    predicted: StepCost | None
    measured: StepCost | None
    baselines: Mapping[str, float] = field(default_factory=dict)
    samples_s: tuple[float, ...] = ()
    failed: str | None = None
    expected_error: float | None = None  # of the time, as it was predicted: half of the 90 % interval
    slowness: float | None = None  # of Python meanwhile, over when the profile was made; the prediction is for it
    mapped_in_bytes: int | None = None  # anew in each measured step; the prediction is for as much
    by_kind: tuple[OpError, ...] = ()  # of the user's own targets: where the error comes from
    worst_ops: tuple[OpError, ...] = ()
    by_module: tuple[OpError, ...] = ()

    def __post_init__(self) -> None:
        if (self.measured is None) != (self.failed is not None):
            raise BadInput(f"case {self.name!r}: it has a measurement, or the reason why there is none")

    def error(self, quantity: Literal["latency_s", "peak_bytes", "energy_j"]) -> float | None:
        """Predicted over measured, minus 1; None where one of the two is not known."""
        if self.predicted is None or self.measured is None:
            return None
        predicted, measured = getattr(self.predicted, quantity), getattr(self.measured, quantity)
        return None if predicted is None or not measured else predicted / measured - 1.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far predictions are from measurements over `cases` cases; shares of one. `kendall_tau` tells how well the
    ranking is predicted: None where fewer than two cases, or no two different ones, are ranked."""

    cases: int
    mape: float  # mean of |predicted / measured - 1|
    max: float
    within_10pct: float
    kendall_tau: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Validation:
    """Predictions of one profile beside real training on its device.

    `by_held_out` splits latency by what a case holds out, `by_group` by family, mode, datatype and launch; `baselines`
    is the latency of simpler predictions on the same cases. `left_out` are cases that were not tried, each with its
    reason. `interrupted`: the user stopped it, and the cases are those that had ended.
    """

    device: str
    title: str
    kind: str
    suite: str
    environment: Environment
    cases: tuple[ValidationCase, ...]
    latency: Accuracy | None
    memory: Accuracy | None
    energy: Accuracy | None
    by_held_out: Mapping[str, Accuracy]
    baselines: Mapping[str, Accuracy]
    by_group: Mapping[str, Accuracy] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        errors = ", ".join(f"{name} {a.mape:.1%}" for name, a in self._accuracies())
        return f"<Validation of {self.device}: {len(self.cases)} cases, mean error: {errors or 'nothing measured'}>"

    def _repr_html_(self) -> str:
        return html_table(
            f"predictions of {self.title} beside {len(self.cases)} measured cases",
            *((name, f"mean error {a.mape:.1%}, largest {a.max:.1%}") for name, a in self._accuracies()),
            *(("failed", f"{c.name}: {c.failed}") for c in self.cases if c.failed is not None),
        )

    def _accuracies(self) -> list[tuple[str, Accuracy]]:
        accuracies = (("latency", self.latency), ("memory", self.memory), ("energy", self.energy))
        return [(name, a) for name, a in accuracies if a is not None]

    @property
    def coverage(self) -> float | None:
        """The share of cases whose error of the time lies within the one expected beforehand; None without such."""
        inside = [
            abs(error) <= c.expected_error
            for c in self.cases
            if c.expected_error is not None and (error := c.error("latency_s")) is not None
        ]
        return sum(inside) / len(inside) if inside else None

    @property
    def kendall_tau_told_apart(self) -> float | None:
        """Kendall's tau over the pairs of cases whose median steps differ by more than their samples' spread makes of
        one in ten pairs that are alike. None without such a pair."""
        timed = [
            (c.predicted.latency_s, statistics.median(s), _MEDIAN * statistics.stdev(s) / math.sqrt(len(s)))
            for c in self.cases
            if (s := c.samples_s)[1:] and c.predicted is not None and c.measured is not None
        ]
        ranked = [
            (predicted - other) * (measured_s - other_s)
            for (predicted, measured_s, error_s), (other, other_s, other_error_s) in combinations(timed, 2)
            if abs(measured_s - other_s) > _ONE_IN_TEN * math.hypot(error_s, other_error_s)
        ]
        return sum((x > 0) - (x < 0) for x in ranked) / len(ranked) if ranked else None

    def within(self, tolerance: float) -> bool:
        """Whether every mean error that was measured is at most `tolerance`, a share of one, and no case failed."""
        errors = [a.mape for a in (self.latency, self.memory, self.energy) if a is not None]
        return bool(errors) and max(errors) <= tolerance and all(c.failed is None for c in self.cases)


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A relative figure of a paper beside our predictions of it, by way to launch."""

    quantity: str  # "training time"
    ratio: str  # "ParaRevSNN37 / RevSNN37"
    form: str  # which form of the network above the line is predicted: "2 lanes", "merged"; "" where it has but one
    source: str
    published: float
    predicted: Mapping[str, float]  # "eager", "graph", or "" where the way to launch means nothing


@dataclass(frozen=True, slots=True)
class PaperCheck:
    """Relative figures of a paper beside predictions, none of them fitted. `untraced` are published figures that no
    table of the paper gives."""

    paper: str
    device: str
    rows: tuple[PaperRow, ...]
    assumptions: tuple[str, ...]
    untraced: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION
