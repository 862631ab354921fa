"""What tests of validation are made of: a profile of this machine that nothing was fitted for, and made-up cases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from pararev_hw.measurement import quick_cpu_device
from pararev_hw.measurement.environment import environment
from pararev_hw.types import Device, Profile, StepCost, StepSample, Validation, ValidationCase
from pararev_hw.validation.validation import summary


@functools.cache
def _device() -> Device:
    return quick_cpu_device(seconds=0.3)


def cpu_profile(held_in: Sequence[str] = ("msresnet18 train",), steps: Sequence[StepSample] | None = None) -> Profile:
    """A profile of this machine's CPU without a single fit: every op costs what the roofline says."""
    default = (StepSample("msresnet18 train", (0.2, 0.1, 0.3), 0.1, flops=10**9),)
    return Profile(
        device=_device(),
        environment=environment("cpu", 1),
        host={},
        fits=(),
        corrections={},
        curves={},
        samples=(),
        pairs=(),
        steps=default if steps is None else tuple(steps),
        held_in=tuple(held_in),
        missing=(),
        seed=0,
    )


def case(
    predicted_s: float,
    measured_s: float | None,
    *,
    name: str = "pararevsnn37",
    baselines: dict[str, float] | None = None,
    energy_j: tuple[float, float] | None = None,
    **changes: object,
) -> ValidationCase:
    """A case with these times; memory 1 MiB predicted and measured. None measured: it failed."""
    joules = energy_j or (None, None)
    made = ValidationCase(
        name=f"{name} train, width 1, batch 2, T 4, float32",
        network=name,
        held_out="network",
        mode="train",
        launch="eager",
        dtype="float32",
        batch=2,
        timesteps=4,
        width=1.0,
        flops=10**9,
        predicted=StepCost(predicted_s, 1 << 20, joules[0]),
        measured=None if measured_s is None else StepCost(measured_s, 1 << 20, joules[1]),
        baselines={"roofline": 0.5 * predicted_s} if baselines is None else baselines,
        samples_s=() if measured_s is None else (measured_s,) * 5,
        failed="RuntimeError: <out> & of memory" if measured_s is None else None,
    )
    return replace(made, **changes)


def validation(cases: Sequence[ValidationCase], **changes: object) -> Validation:
    return replace(summary(cpu_profile(), "quick", cases, ("x: not run",), ("a note",)), **changes)
