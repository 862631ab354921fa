"""How far a fitted profile is from what was measured: on held-out shapes by kind of op, and on held-in steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.calibrated.design_matrix import (
    capacities,
    corrected,
    fault_s_per_byte,
    hyperparameters_of,
    instruction_set,
    measured_design_matrix,
    seconds_without_faults,
)
from pararev_hw.costmodels.calibrated.features import family, group
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import Fit, OpSample, Profile


@dataclass(frozen=True, slots=True)
class Residual:
    """Errors (predicted over measured, minus 1) of the ops of one kind and datatype, on held-out shapes run warm."""

    kind: str
    dtype: str
    shapes: int  # that entered the fits
    held_out: int
    median: float  # of |error|
    p90: float
    bias: float  # median of the error


def held_out_errors(profile: Profile) -> Iterator[tuple[OpSample, float]]:
    """Each held-out sample that has a fit, with predicted / measured - 1."""
    return errors_of_fits(
        profile.fits, profile.samples, capacities(profile), fault_s_per_byte(profile.host), instruction_set(profile)
    )


def errors_of_fits(
    fits: Sequence[Fit],
    samples: Sequence[OpSample],
    limits: tuple[float, float],
    faults: float,
    isa: InstructionSet | None = None,
) -> Iterator[tuple[OpSample, float]]:
    """Each held-out sample of `samples` that has one of `fits`, with predicted / measured - 1; `faults` are seconds for
    each byte of a page fault, `isa` the instruction set of a CPU."""
    held_in: dict[tuple[str, str], list[OpSample]] = defaultdict(list)
    held_out: dict[tuple[str, str], list[OpSample]] = defaultdict(list)
    for s in samples:
        (held_out if s.held_out else held_in)[group(s.op), s.op.dtype].append(s)
    for fit in fits:
        key = (fit.group, fit.dtype)
        if not held_in[key] or not held_out[key]:
            continue
        table, rest = (measured_design_matrix(part[key], limits, isa) for part in (held_in, held_out))
        residual = np.log(seconds_without_faults(held_in[key], faults) / table.seconds(fit.coefficients))
        factor = corrected(table, residual, hyperparameters_of(fit), rest)
        errors = rest.seconds(fit.coefficients) * factor / seconds_without_faults(held_out[key], faults) - 1.0
        yield from zip(held_out[key], errors.tolist(), strict=True)


def typical_error(errors: Iterable[tuple[OpSample, float]]) -> float | None:
    """The |error| that half of the measured time stays within, None where nothing was held out."""
    by_size = sorted((abs(error), float(np.median(sample.seconds))) for sample, error in errors)
    if not by_size:
        return None
    share_of_time = np.cumsum([seconds for _, seconds in by_size])
    return by_size[int(np.searchsorted(share_of_time, share_of_time[-1] / 2))][0]


def kind_residuals(profile: Profile) -> tuple[Residual, ...]:
    """A line per kind and datatype."""
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    shapes: dict[tuple[str, str], int] = defaultdict(int)
    for s in profile.samples:
        if not s.held_out and not s.cold:
            shapes[family(s.op), s.op.dtype] += 1
    for s, error in held_out_errors(profile):
        if not s.cold:
            errors[family(s.op), s.op.dtype].append(error)
    return tuple(
        Residual(
            kind,
            dtype,
            shapes[kind, dtype],
            len(shares),
            float(np.median(np.abs(shares))),
            float(np.quantile(np.abs(shares), 0.9)),
            float(np.median(shares)),
        )
        for (kind, dtype), shares in sorted(errors.items())
    )


def step_residuals(profile: Profile) -> tuple[tuple[str, float, float], ...]:
    """Held-in steps: name, median seconds, and what the ops alone were predicted to take over that."""
    residuals = []
    for s in profile.steps:
        seconds = sorted(s.seconds)[len(s.seconds) // 2]
        residuals.append((s.network, seconds, s.ops_s / seconds))
    return tuple(residuals)
