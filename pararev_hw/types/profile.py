"""A device as it was measured: fitted times with their uncertainties, and the raw samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pararev_hw.errors import BadInput
from pararev_hw.types.base import SCHEMA_VERSION, html_table
from pararev_hw.types.device import Device
from pararev_hw.types.graph import OpType


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted number and its standard deviation, None where the data do not say. Its name carries the unit."""

    value: float
    sigma: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or not (self.sigma is None or 0 <= self.sigma < math.inf):
            raise BadInput(f"an estimate is {self.value!r} +- {self.sigma!r}: both must be finite, the second >= 0")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and how something was measured. `clocks_hz` and `driver` are what the machine tells, empty where it does
    not."""

    machine: str  # "AMD EPYC, 2 cores, Linux 6.1"
    device: str  # "NVIDIA H200"; of a CPU its model
    driver: str
    torch: str
    threads: int
    clocks_hz: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OpSample:
    """One op measured alone, every sample kept: seconds per call. Held-out samples never enter a fit.

    `cold`: its inputs were out of the caches. `noisy`: the spread stayed above the limit however often it was repeated.
    `faulted_bytes`: memory that the operating system had to map in per call, a cost of the allocator, not of the op.
    `density`: the share of its mask that was set, of an op whose time depends on it. `fetched_bytes`: of an op measured
    in its place in a step, what it had to fetch from beyond the second-level cache and from beyond the last one;
    `fetched_code`: whether its code had to be fetched as well, from 0 (it ran just before) to 1.
    """

    op: OpType
    cold: bool
    held_out: bool
    noisy: bool
    seconds: tuple[float, ...]
    faulted_bytes: int = 0
    density: float | None = None
    fetched_bytes: tuple[float, float] | None = None
    fetched_code: float | None = None

    def __post_init__(self) -> None:
        if not self.seconds or not all(0 <= s < math.inf for s in self.seconds):
            raise BadInput(f"{self.op.name} was measured as {self.seconds[:3]}: at least one finite time is needed")

    @property
    def median_s(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2]

    @property
    def low_s(self) -> float:
        """The lower quartile: a busy neighbour only ever adds to a sample."""
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 4]

    @property
    def min_s(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True, slots=True)
class Fit:
    """The fitted time of one group of ops; pararev_hw.costmodels.calibrated.op_times says what each coefficient does.

    `group` is an op's name ("aten.convolution.default"), or a kind ("elementwise"), which stands in for the ops of
    that kind that were not measured. Residuals are |predicted / measured - 1| over the held-out samples; `bias` is
    the median of the signed ones. None: nothing was held out.
    """

    group: str
    dtype: str
    coefficients: Mapping[str, Estimate]
    samples: int
    held_out: int
    residual_median: float | None
    residual_p90: float | None
    bias: float | None


@dataclass(frozen=True, slots=True)
class PairSample:
    """Two ops, each again and again (`counts` times), on two threads or streams: seconds of each loop alone, and until
    both were done together; medians."""

    ops: tuple[OpType, OpType]
    alone_s: tuple[float, float]
    together_s: float
    counts: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class StepSample:
    """A whole step of a held-in network: every measured step, and what the ops alone predicted for it.

    `network` begins with the network's name and says which step it was ("revsresnet21 train, width 0.25, batch 8").
    """

    network: str
    seconds: tuple[float, ...]
    ops_s: float
    faulted_bytes: int = 0  # memory that the operating system had to map in
    flops: int = 0  # of the step's matrix operations; 0: not recorded


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """A device as it was measured: fitted times by kind of op, with uncertainties, residuals and the raw samples.

    `host` are overheads per op ("dispatch_s", "view_s", "autograd_s", ...), `curves` measured (size, rate) points by
    name, `corrections` what whole steps of the `held_in` networks showed beyond their ops (seconds per op by phase, as
    "backward_shift_s", what the allocator keeps, "kept_bytes", and what fresh memory costs). `missing` lists what was
    not measured, each with its reason: an interrupted calibration is a valid profile with something missing.
    """

    device: Device
    environment: Environment
    host: Mapping[str, Estimate]
    fits: tuple[Fit, ...]
    corrections: Mapping[str, Estimate]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    samples: tuple[OpSample, ...]
    pairs: tuple[PairSample, ...]
    steps: tuple[StepSample, ...]
    held_in: tuple[str, ...]
    missing: tuple[str, ...]
    seed: int
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        return (
            f"<Profile of {self.device.title}: {len(self.samples):,} measured ops, {len(self.fits)} fits, "
            f"{len(self.steps)} whole steps>"
        )

    def _repr_html_(self) -> str:
        return html_table(
            f"profile of {self.device.title}",
            ("measured on", f"{self.environment.machine}, torch {self.environment.torch}"),
            ("operations measured", f"{len(self.samples):,}"),
            *(
                (
                    f"{fit.group}, {fit.dtype}",
                    "nothing was held out"
                    if fit.residual_median is None
                    else f"median error {fit.residual_median:.1%} on {fit.held_out} held-out samples",
                )
                for fit in self.fits
            ),
            *(("not measured", reason) for reason in self.missing),
        )

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def kind(self) -> str:
        return self.device.kind

    @property
    def lanes(self) -> int:
        return self.device.lanes
