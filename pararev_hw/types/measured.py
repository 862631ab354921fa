"""A device whose operations were timed in place: what `--measure` predicts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pararev_hw.types.base import html_table, milliseconds
from pararev_hw.types.device import Device
from pararev_hw.types.profile import Environment, Estimate, Profile


@dataclass(frozen=True, slots=True)
class OpTime:
    """Mean seconds of an op of one signature inside steps, over `count` ops; `spread` is half the interquartile range
    of one op's samples over its time, `reordered` the relative difference of its time in another legal order."""

    seconds: float
    count: int
    spread: float
    reordered: float


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """A whole step as it was replayed: median seconds of so many replays, half their interquartile range over it, and
    seconds of a fixed piece of Python meanwhile (`measurement.pace`), which tell how fast the machine then was.
    `beside_s` are seconds that PyTorch's loop took once a step beside it; None where nothing told."""

    seconds: float
    replays: int
    spread: float
    pace_s: float
    beside_s: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class MeasuredDevice:
    """This machine with times of ops by signature (`Program.signatures`), and by type for graphs without a program.

    `base` gives the time of ops that were not measured. `host` are seconds per op that PyTorch's own loop spends beside
    a replay of the same ops, by phase: "forward_s", "recompute_s", "backward_s", "update_s", "infer_s"; per call into
    Python: "modules_s", "functions_s", "backwards_s", "packs_s"; and per step: "train_step_s", "backward_step_s",
    "update_step_s", "infer_step_s". With "_far" before "_s" it is what comes on top where the caches have lost it. They
    hold at the machine's speed while `step` was replayed, the step of the graph that the device was measured for.
    """

    base: Device | Profile
    environment: Environment
    ops: Mapping[str, OpTime]
    host: Mapping[str, Estimate]
    step: ReplayedStep | None = None

    def __repr__(self) -> str:
        return f"<MeasuredDevice {self.name}: {len(self.ops):,} measured ops>"

    def _repr_html_(self) -> str:
        rows = () if self.step is None else (("replayed step", milliseconds(self.step.seconds)),)
        return html_table(f"{self.device.title}, measured", ("measured ops", f"{len(self.ops):,}"), *rows)

    @property
    def device(self) -> Device:
        return self.base if isinstance(self.base, Device) else self.base.device

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def kind(self) -> str:
        return self.device.kind

    @property
    def lanes(self) -> int:
        return self.device.lanes


Hardware = Device | Profile | MeasuredDevice
