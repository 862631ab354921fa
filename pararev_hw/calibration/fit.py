"""Prices of work from measured ops: robust, never negative, each with its uncertainty, judged on held-out shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import least_squares, nnls

from pararev_hw.costmodels.calibrated.design_matrix import (
    DesignMatrix,
    corrected,
    hyperparameter_estimates,
    hyperparameters_of,
    measured_design_matrix,
    seconds_without_faults,
)
from pararev_hw.costmodels.calibrated.features import branches, family, group
from pararev_hw.costmodels.calibrated.gaussian_process import fit_hyperparameters
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import Estimate, Fit, OpSample

Key = tuple[str, str]
_FEWEST = 4  # samples without which a group has no fit
_PER_COEFFICIENT = 2  # samples of a group below which its coefficients are those of its kind, at the group's level
_DEAREST_S_PER_BYTE = 2e-9  # small ops alone do not tell what bytes cost: no machine moves them as slowly as that
_OUTLIER = 0.15  # a logarithm: residuals beyond it count less and less


def fits(samples: Sequence[OpSample], capacities: tuple[float, float], fault_s_per_byte: float) -> tuple[Fit, ...]:
    """A fit for each group of ops, and one for each kind, which stands in for ops that were not measured.

    A group of few samples cannot tell what each of its terms costs: it takes what they cost its kind, all times one
    factor, which its samples tell well.
    """
    by_group: dict[Key, list[OpSample]] = defaultdict(list)
    by_kind: dict[Key, list[OpSample]] = defaultdict(list)
    for s in samples:
        by_group[group(s.op), s.op.dtype].append(s)
        if not branches(s.op):
            by_kind[family(s.op), s.op.dtype].append(s)
    of_kind = {
        key: _fit(*key, members, capacities, fault_s_per_byte, smooth=False) for key, members in sorted(by_kind.items())
    }
    of_group = [
        _fit(name, dtype, members, capacities, fault_s_per_byte, of_kind.get((family(members[0].op), dtype)))
        for (name, dtype), members in sorted(by_group.items())
    ]
    return tuple(f for f in (*of_group, *of_kind.values()) if f is not None)


def _fit(
    name: str,
    dtype: str,
    samples: Sequence[OpSample],
    capacities: tuple[float, float],
    fault_s_per_byte: float,
    kind: Fit | None = None,
    *,
    smooth: bool = True,
) -> Fit | None:
    held_in = [s for s in samples if not s.held_out]
    held_out = [s for s in samples if s.held_out]
    if len(held_in) < _FEWEST:
        return None
    table, measured_s = measured_design_matrix(held_in, capacities), seconds_without_faults(held_in, fault_s_per_byte)
    terms = int((table.work_terms > 0).any(0).sum())
    if kind is not None and kind.samples > len(held_in) and len(held_in) < _PER_COEFFICIENT * terms:
        coefficients = dict(_at_level(kind.coefficients, table, measured_s))
    else:
        coefficients = dict(fitted_coefficients(table, measured_s))
    residual = np.log(measured_s / table.seconds(coefficients))
    if smooth:
        how = fit_hyperparameters(table.at, residual)
        if how is not None:
            coefficients |= hyperparameter_estimates(how)
    draft = Fit(name, dtype, coefficients, len(held_in), len(held_out), None, None, None)
    if not held_out:
        return draft
    rest = measured_design_matrix(held_out, capacities)
    factor = corrected(table, residual, hyperparameters_of(draft), rest)
    error = rest.seconds(coefficients) * factor / seconds_without_faults(held_out, fault_s_per_byte) - 1.0
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


def _at_level(kind: Mapping[str, Estimate], table: DesignMatrix, taken_s: Floats) -> Mapping[str, Estimate]:
    """What the terms cost the kind, times the median factor by which the group's samples take longer."""
    predicted_s = table.seconds(kind)
    level = float(np.exp(np.median(np.log(taken_s / np.maximum(predicted_s, 1e-9)))))
    return {name: Estimate(min(level * kind[name].value, _most(name))) for name in table.names if name in kind}


def _most(name: str) -> float:
    """The largest value of a coefficient that a machine may have."""
    return _DEAREST_S_PER_BYTE if name.endswith("_s_per_byte") else math.inf


def fitted_coefficients(table: DesignMatrix, taken_s: Floats) -> Mapping[str, Estimate]:
    """Prices under which the amounts of `table` explain the measured seconds, in relative terms.

    Start: non-negative least squares of relative errors. Then the logarithms of times under a soft-L1 loss, which
    outliers move little. Sigma from the curvature at the solution, None for a price at its bound of 0.
    """
    scaled = table.work_terms / taken_s[:, None]
    size = scaled.max(0)
    used = np.flatnonzero(size > 0)
    columns = scaled[:, used] / size[used]
    most = np.array([_most(table.names[k]) for k in used])
    most = np.maximum(most * size[used], 2e-6)
    start, _ = nnls(columns, np.ones(len(taken_s)), maxiter=200 * columns.shape[1])
    solution = least_squares(
        lambda c: np.log(np.maximum(columns @ c, 1e-6)),
        np.clip(start, 1e-6, 0.99 * most),
        bounds=(0.0, most),
        loss="soft_l1",
        f_scale=_OUTLIER,
        max_nfev=200,
    )
    price, sigma = solution.x, _sigmas(solution.jac, solution.fun, solution.x)
    return {
        table.names[k]: Estimate(float(price[j] / size[k]), None if sigma[j] is None else float(sigma[j] / size[k]))
        for j, k in enumerate(used.tolist())
    }


def _sigmas(jacobian: Floats, residual: Floats, at: Floats) -> list[float | None]:
    """Standard deviations of the coefficients that are not at their bound."""
    free = np.flatnonzero(at > 1e-5)
    deviations: list[float | None] = [None] * len(at)
    spare = len(residual) - len(free)
    if spare < 1 or not len(free):
        return deviations
    try:
        covariance = np.linalg.inv(jacobian[:, free].T @ jacobian[:, free])
    except np.linalg.LinAlgError:
        return deviations  # amounts that always go together: their prices are not told apart
    variance = np.diag(covariance) * float(residual @ residual) / spare
    for j, v in zip(free.tolist(), variance.tolist(), strict=True):
        if 0 <= v < np.inf:
            deviations[j] = float(np.sqrt(v))
    return deviations
