"""Prices of work from measured ops: robust, never negative, each with its uncertainty, judged on held-out shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import OptimizeResult, least_squares

from pararev_hw.costmodels.calibrated.design_matrix import (
    DesignMatrix,
    capacities,
    coordinate_count,
    corrected,
    fault_s_per_byte,
    hyperparameter_estimates,
    hyperparameters_of,
    instruction_set,
    measured_design_matrix,
    seconds_without_faults,
)
from pararev_hw.costmodels.calibrated.features import branches, coefficient_names, family, group
from pararev_hw.costmodels.calibrated.gaussian_process import fit_hyperparameters
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import Estimate, Fit, OpSample, OpType, Profile

Key = tuple[str, str]
_FEWEST = 2  # samples without which a group or a kind has no fit
_SPREAD_OF_TERMS, _SPREAD_IN_KIND = 1.5, 0.7  # of logarithms of prices, known from nothing, and from their kind
_SEEN = 0.01  # share of some sample's time below which a term is not seen
_LARGE_BYTES = 1 << 18  # of an op whose time is that of its bytes
_FILLING = 2.0  # of what a byte usually costs: the most that a byte of a constant costs, which is only written
_DEAREST_S_PER_BYTE = 2e-9  # small ops alone do not tell what bytes cost: no machine moves them as slowly as that
_DEVIATION, _LEAST_NOISE = 1.4826, 0.003  # of normal samples over their median |miss|; of logarithms of times
_OUTLIER = 0.15  # a logarithm: residuals beyond it count less and less


@dataclass(frozen=True, slots=True)
class _Machine:
    """What an op's time depends on beside the op: bytes of two caches, the price of fresh memory, instructions."""

    capacities: tuple[float, float]
    fault_s_per_byte: float
    isa: InstructionSet | None
    s_per_byte: float  # what a byte usually costs

    def rows(self, samples: Sequence[OpSample]) -> DesignMatrix:
        return measured_design_matrix(samples, self.capacities, self.isa)


def fits(
    samples: Sequence[OpSample],
    capacities: tuple[float, float],
    fault_s_per_byte: float,
    isa: InstructionSet | None = None,
    *,
    smooth: bool = True,
) -> tuple[Fit, ...]:
    """A fit for each group of ops, and one for each kind, which stands in for ops that were not measured.

    A group of few samples cannot tell what each of its terms costs: it takes what they cost its kind, all times one
    factor, which its samples tell well. `isa` is the instruction set of a CPU. `smooth`
    learns what prices leave unexplained from shapes nearby, which takes most of the time.
    """
    machine = _Machine(capacities, fault_s_per_byte, isa, _s_per_byte([s for s in samples if not s.held_out]))
    by_group: dict[Key, list[OpSample]] = defaultdict(list)
    by_kind: dict[Key, list[OpSample]] = defaultdict(list)
    for s in samples:
        by_group[group(s.op), s.op.dtype].append(s)
        if not branches(s.op):
            by_kind[family(s.op), s.op.dtype].append(s)
    of_kind = {key: _fit(*key, members, machine, smooth=False) for key, members in sorted(by_kind.items())}
    of_group = [
        _fit(name, dtype, members, machine, of_kind.get((family(members[0].op), dtype)), smooth=smooth)
        for (name, dtype), members in sorted(by_group.items())
    ]
    return tuple(f for f in (*of_group, *of_kind.values()) if f is not None)


def fitted_by_this_release(profile: Profile) -> Profile:
    """The profile itself; of a release whose fits have other terms than this one's, with fits to its samples made anew,
    which a note of its device says."""
    isa = instruction_set(profile)
    op_by_key = {(family(s.op), s.op.dtype): s.op for s in profile.samples}
    op_by_key |= {(group(s.op), s.op.dtype): s.op for s in profile.samples}
    if all(_has_terms_of(op_by_key.get((fit.group, fit.dtype)), fit, isa) for fit in profile.fits):
        return profile
    refitted = fits(profile.samples, capacities(profile), fault_s_per_byte(profile.host), isa)
    note = "Calibrated by another release, whose fits this one cannot apply: fitted anew to the samples in the profile."
    return replace(profile, fits=refitted, device=replace(profile.device, notes=(*profile.device.notes, note)))


def _has_terms_of(op: OpType | None, fit: Fit, isa: InstructionSet | None) -> bool:
    """Whether the terms of a fit and the coordinates of its residuals are those of ops like this one."""
    how = hyperparameters_of(fit)
    if op is None:  # without samples nothing can be fitted anew, and there are no residuals to smooth
        return how is None
    smoothing = set() if how is None else set(hyperparameter_estimates(how))
    return set(fit.coefficients) - smoothing <= set(coefficient_names(op)) and (
        how is None or len(how.lengths) == coordinate_count(op, isa)
    )


def _fit(
    name: str,
    dtype: str,
    samples: Sequence[OpSample],
    machine: _Machine,
    kind: Fit | None = None,
    *,
    smooth: bool,
) -> Fit | None:
    held_in = [s for s in samples if not s.held_out]
    held_out = [s for s in samples if s.held_out]
    if len(held_in) < _FEWEST:
        return None
    table, taken = machine.rows(held_in), seconds_without_faults(held_in, machine.fault_s_per_byte)
    dearest = _FILLING * machine.s_per_byte if family(samples[0].op) == "fill" else _DEAREST_S_PER_BYTE
    of_kind = None if kind is None else kind.coefficients
    coefficients = dict(fitted_coefficients(table, taken, machine.s_per_byte, dearest, of_kind))
    residual = np.log(taken / table.seconds(coefficients))
    if smooth:
        how = fit_hyperparameters(table.at, residual)
        if how is not None:
            coefficients |= hyperparameter_estimates(how)
    draft = Fit(name, dtype, coefficients, len(held_in), len(held_out), None, None, None)
    if not held_out:
        return draft
    rest = machine.rows(held_out)
    factor = corrected(table, residual, hyperparameters_of(draft), rest)
    error = rest.seconds(coefficients) * factor / seconds_without_faults(held_out, machine.fault_s_per_byte) - 1.0
    return Fit(
        name,
        dtype,
        coefficients,
        len(held_in),
        len(held_out),
        residual_median=float(np.median(np.abs(error))),
        residual_p90=float(np.quantile(np.abs(error), 0.9)),
        bias=float(np.median(error)),
    )


def _s_per_byte(samples: Sequence[OpSample]) -> float:
    """What a byte costs the ops that only move it, as far as large ones were measured."""
    rates = [s.low_s / (s.op.read_bytes + s.op.write_bytes) for s in samples if _moves(s.op)]
    return float(np.median(rates)) if rates else _DEAREST_S_PER_BYTE


def _moves(t: OpType) -> bool:
    return family(t) in ("elementwise", "copy", "fill") and t.read_bytes + t.write_bytes > _LARGE_BYTES


def fitted_coefficients(
    table: DesignMatrix,
    taken_s: Floats,
    s_per_byte: float = _DEAREST_S_PER_BYTE,
    dearest_s_per_byte: float = _DEAREST_S_PER_BYTE,
    of_kind: Mapping[str, Estimate] | None = None,
) -> Mapping[str, Estimate]:
    """Prices under which the amounts of `table` explain the measured seconds, in relative terms.

    The logarithms of times under a soft-L1 loss, which outliers move little, and of prices under a prior, which tells
    what the samples do not: that a term costs what it costs the kind, times a factor that all terms of the group
    share; without a kind, an equal part of the most that it could cost. Sigma from the curvature at the solution, None
    for a price that the samples do not see.
    """
    scaled = table.work_terms / taken_s[:, None]
    used = np.flatnonzero(scaled.max(0) > 0)
    columns = scaled[:, used]
    per_byte = [table.names[k].endswith("_s_per_byte") for k in used]
    most = np.where(per_byte, math.log(dearest_s_per_byte), np.inf)
    usual, spread = _prior([table.names[k] for k in used], columns, s_per_byte, of_kind)
    usual = np.minimum(usual, most - 0.1)

    noise = _OUTLIER
    for _ in range(2):  # how much the samples scatter says how much they count beside the prior
        solution = _most_likely(columns, usual, spread, most, noise)
        noise = float(np.clip(_DEVIATION * np.median(np.abs(solution.fun[: len(columns)])), _LEAST_NOISE, _OUTLIER))
    price, sigma = np.exp(solution.x), _sigmas(solution.jac, solution.fun, len(columns))
    return {
        table.names[k]: Estimate(float(price[j]), None if sigma[j] is None else float(sigma[j] * price[j]))
        for j, k in enumerate(used.tolist())
    }


def _most_likely(columns: Floats, usual: Floats, spread: Floats, most: Floats, noise: float) -> OptimizeResult:
    """Logarithms of prices of maximum posterior, `columns` being amounts over seconds."""

    def misses(logs: Floats) -> Floats:
        explained = np.log(np.maximum(columns @ np.exp(logs), 1e-6))
        return np.concatenate((explained, noise * (logs - usual) / spread))

    def slopes(logs: Floats) -> Floats:
        parts = columns * np.exp(logs)
        return np.concatenate((parts / np.maximum(parts.sum(1), 1e-6)[:, None], np.diag(noise / spread)))

    return least_squares(
        misses, usual, jac=slopes, bounds=(-np.inf, most), loss="soft_l1", f_scale=_OUTLIER, max_nfev=100
    )


def _prior(
    names: Sequence[str], columns: Floats, s_per_byte: float, of_kind: Mapping[str, Estimate] | None
) -> tuple[Floats, Floats]:
    """Logarithms of the prices that are likeliest beforehand, and how far they may be off."""
    with np.errstate(divide="ignore"):
        dearest = -np.log(np.array([np.quantile(c[c > 0], 0.9) for c in columns.T]))  # it alone explains most times
    usually = np.log([s_per_byte if name.endswith("_s_per_byte") else math.inf for name in names])
    alone = np.minimum(dearest, usually) - math.log(len(names))
    if of_kind is None:
        return alone, np.full(len(names), _SPREAD_OF_TERMS)
    has = np.array([name in of_kind for name in names])
    usual = np.where(has, np.log([max(of_kind[n].value, 1e-30) if n in of_kind else 1.0 for n in names]), alone)
    level = float(np.median(-np.log(np.maximum(columns @ np.exp(usual), 1e-9))))
    return usual + level, np.where(has, _SPREAD_IN_KIND, _SPREAD_OF_TERMS)


def _sigmas(jacobian: Floats, residual: Floats, samples: int) -> list[float | None]:
    """Standard deviations of the logarithms of prices, of those that the samples see."""
    seen = np.abs(jacobian[:samples]).max(0) > _SEEN
    deviations: list[float | None] = [None] * len(seen)
    spare = samples - int(seen.sum())
    if spare < 1:
        return deviations
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    variance = np.diag(covariance) * float(residual[:samples] @ residual[:samples]) / spare
    for j in np.flatnonzero(seen).tolist():
        if 0 <= variance[j] < np.inf:
            deviations[j] = float(np.sqrt(variance[j]))
    return deviations
