"""What the prices leave unexplained, learnt from measured shapes nearby: a Gaussian process over shape coordinates.

Whether a library picks a good kernel for a shape follows no formula, but neighbouring shapes share it. The logarithm of
measured over priced time is taken as smooth in the coordinates, in each over a length of its own (Rasmussen & Williams
2006, chapters 2 and 5):

    k(a, b) = s^2 exp(-sum_d (a_d - b_d)^2 / (2 l_d^2))
    correction(a) = k(a, X) (k(X, X) + v^2 I)^-1 log(measured / priced)

Far from every measured shape the correction goes to none. s, l and v are those of maximum
posterior, with log-normal priors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.traffic import Floats

_USUAL_LENGTH, _LENGTH_SPREAD = 2.0, 1.0  # in natural logarithms of sizes, and of that
_USUAL_NOISE, _NOISE_SPREAD = 0.05, 0.7
_LENGTHS, _NOISES, _DEVIATIONS = (0.3, 30.0), (0.01, 0.4), (0.02, 1.0)
_FEWEST = 6  # measured shapes, below which nothing can be learnt
_MOST_SHAPES = 120  # from which lengths and noise are learnt: the work grows with their cube
_STEPS = 40  # of the search
_MOST = 0.7  # of a correction, as a logarithm: a factor of two


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How far a residual reaches: prior deviation, length over each coordinate, and noise of one measurement."""

    deviation: float
    lengths: tuple[float, ...]
    noise: float


def fit_hyperparameters(at: Floats, residual: Floats) -> Hyperparameters | None:
    """The hyperparameters of maximum posterior for these residuals; None where they are too few or hold nothing.

    `at` [n, d] are coordinates, `residual` [n] logarithms.
    """
    from scipy.optimize import minimize  # late: most steps are priced without any of scipy

    deviation = float(np.sqrt(np.mean(residual**2))) if len(residual) else 0.0
    if len(residual) < _FEWEST or deviation < 0.01:
        return None
    if len(residual) > _MOST_SHAPES:
        some = np.linspace(0, len(residual) - 1, _MOST_SHAPES).astype(np.int64)
        at, residual = at[some], residual[some]
    squared = (at[:, None, :] - at[None, :, :]) ** 2  # [n, n, d]
    varies = np.flatnonzero(squared.max((0, 1)) > 0)
    squared = np.ascontiguousarray(squared[:, :, varies].transpose(2, 0, 1))
    start = np.log([min(max(deviation, _DEVIATIONS[0]), 1.0), *(_USUAL_LENGTH for _ in varies), _USUAL_NOISE])
    bounds = [tuple(np.log(b)) for b in (_DEVIATIONS, *(_LENGTHS for _ in varies), _NOISES)]
    optimum = minimize(
        neg_log_posterior,
        start,
        args=(squared, residual),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _STEPS},
    )
    best = np.exp(optimum.x)
    lengths = np.full(at.shape[1], _LENGTHS[1])
    lengths[varies] = best[1:-1]
    return Hyperparameters(float(best[0]), tuple(lengths.tolist()), float(best[-1]))


def neg_log_posterior(logs: Floats, squared: Floats, residual: Floats) -> tuple[float, Floats]:
    """Minus the log of likelihood times priors, and its gradient; `logs` of deviation, lengths and noise."""
    from scipy.linalg import cho_factor, cho_solve

    deviation, lengths, noise = np.exp(logs[0]), np.exp(logs[1:-1]), np.exp(logs[-1])
    smooth = deviation**2 * np.exp(-0.5 * np.tensordot(1.0 / lengths**2, squared, 1))
    n = len(residual)
    factor = cho_factor(smooth + (noise**2 + 1e-8) * np.eye(n), lower=True)
    inverse = cho_solve(factor, np.eye(n))
    weights = inverse @ residual
    rest = np.outer(weights, weights) - inverse
    shared = rest * smooth
    gradient = [
        shared.sum(),
        *(0.5 * np.vdot(shared, s) / length**2 for s, length in zip(squared, lengths, strict=True)),
        noise**2 * np.trace(rest),
    ]
    value = -0.5 * float(residual @ weights) - float(np.log(np.diag(factor[0])).sum())
    off_length = (logs[1:-1] - np.log(_USUAL_LENGTH)) / _LENGTH_SPREAD
    off_noise = (logs[-1] - np.log(_USUAL_NOISE)) / _NOISE_SPREAD
    value -= 0.5 * float(off_length @ off_length) + 0.5 * float(off_noise**2)
    slope = np.array(gradient)
    slope[1:-1] -= off_length / _LENGTH_SPREAD
    slope[-1] -= off_noise / _NOISE_SPREAD
    return -value, -slope


def correction(sample_at: Floats, residual: Floats, how: Hyperparameters, at: Floats) -> Floats:
    """Factors by which priced times at the coordinates `at` [m, d] are to be multiplied."""
    from scipy.linalg import cho_factor, cho_solve

    scale = np.array(how.lengths)
    samples, queries = sample_at / scale, at / scale
    covariance = how.deviation**2 * _kernel(samples, samples) + (how.noise**2 + 1e-8) * np.eye(len(residual))
    weights = cho_solve(cho_factor(covariance, lower=True), residual)
    log_factor = how.deviation**2 * _kernel(queries, samples) @ weights
    factors: Floats = np.exp(np.clip(log_factor, -_MOST, _MOST))
    return factors


def _kernel(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
    kernel: Floats = np.exp(-0.5 * np.maximum(squared, 0.0))
    return kernel
