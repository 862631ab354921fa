"""How ops slow down where the machine does: a core that shares its units with a neighbour's thread, a lower clock.

A fixed piece of Python tells how slow the machine is (`pararev_hw.measurement.pace`). What it runs slows down less,
each kind of op to a power of its own:

    seconds(op) = seconds at the machine's own speed x slowness ^ exponent(kind)

The exponents are seen in replays of one step, some of which met a slower machine than others: the slopes of
log(seconds of a kind) over log(slowness), drawn to the usual one where the machine never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels.calibrated.features import family, group
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import Estimate, Fit, Profile

_USUAL, _PRIOR = 0.4, 0.3  # an exponent, and how much squared logarithm of slowness speaks as loudly
_STEEPEST = 1.2


def fitted_exponents(replays: Iterable[tuple[Mapping[str, Floats], Floats]]) -> Mapping[str, Estimate]:
    """Exponents by kind, named as a profile's host figures. Of each step: seconds by kind, [replays], and slowness."""
    products: dict[str, float] = {}
    squares: dict[str, float] = {}
    for seconds_of, slowness in replays:
        x = np.log(slowness) - np.log(slowness).mean()
        for kind, seconds in seconds_of.items():
            if seconds.min() > 0:
                y = np.log(seconds) - np.log(seconds).mean()
                products[kind] = products.get(kind, 0.0) + float(x @ y)
                squares[kind] = squares.get(kind, 0.0) + float(x @ x)
    return {
        exponent_name(kind): Estimate(
            float(np.clip((products[kind] + _PRIOR * _USUAL) / (squares[kind] + _PRIOR), 0.0, _STEEPEST)), None
        )
        for kind in sorted(products)
    }


def exponent_name(kind: str) -> str:
    """Name of a kind's exponent among the host figures of a profile."""
    return f"pace_{kind}_power"


def exponent(host: Mapping[str, Estimate], kind: str) -> float:
    """To which power of the machine's slowness ops of a kind slow down."""
    name = exponent_name(kind)
    return host[name].value if name in host else _USUAL


def slowed(profile: Profile, slowness: float) -> Profile:
    """The profile of the same machine while it runs Python so many times as slowly as when it was calibrated."""
    kind_of = {group(s.op): family(s.op) for s in profile.samples}

    def factor(kind: str) -> float:
        return float(slowness ** exponent(profile.host, kind))

    def slowed_fit(fit: Fit) -> Fit:
        by = factor(kind_of.get(fit.group, fit.group))
        return replace(fit, coefficients={n: _times(e, by) if _is_time(n) else e for n, e in fit.coefficients.items()})

    return replace(
        profile,
        host={n: _times(e, slowness) if n.endswith("_s") else e for n, e in profile.host.items()},
        corrections={n: _times(e, slowness) if n.endswith("_s") else e for n, e in profile.corrections.items()},
        fits=tuple(map(slowed_fit, profile.fits)),
        samples=tuple(
            replace(s, seconds=tuple(t * by for t in s.seconds))
            for s, by in ((s, factor(family(s.op))) for s in profile.samples)
        ),
    )


def _is_time(coefficient: str) -> bool:
    return coefficient.endswith("_s") or "_s_per_" in coefficient


def _times(estimate: Estimate, factor: float) -> Estimate:
    sigma = estimate.sigma
    return Estimate(estimate.value * factor, None if sigma is None else sigma * factor)
