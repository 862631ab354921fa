"""How ops slow down where the machine does: a core that shares its units with a neighbour's thread, a lower clock.

A fixed piece of Python tells how slow the machine is (`pararev_hw.measurement.pace`). Calling an op slows down as it
does. The work of an op slows down less, each kind to a power of its own:

    seconds(op) = call x slowness + (seconds at the machine's own speed - call) x slowness ^ exponent(kind)

so that an op which does next to nothing slows down as Python does, and a large one as its arithmetic. The exponents are
seen in replays of one step, some of which met a slower machine than others: the slopes of log(seconds of a kind's work)
over log(slowness), drawn to the usual one where the machine never changed. Where it changed more slowly than that, they
are seen between steps, in seconds over what a fit predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.measurement.pace import PACE, call_s
from pararev_hw.types import BlockGraph, Estimate, Profile

_USUAL, _PRIOR = 0.4, 0.3  # an exponent, and how much squared logarithm of slowness speaks as loudly
_STEEPEST = 1.2
_ROUNDS = 10  # of weighting down what is far off
_LEAST_WORK = 0.1  # of the time of a kind's ops, below which they are calls alone
_SLOWNESS = "slowness_factor"  # its name among the host figures of a slowed profile


def fitted_exponents(replays: Iterable[tuple[Mapping[str, Floats], Floats]]) -> Mapping[str, Estimate]:
    """Exponents by kind, named as a profile's host figures. Of each step: seconds of work by kind, [replays], and
    slowness."""
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


def exponents_between(
    steps: Sequence[tuple[Mapping[str, tuple[float, float]], float]], host: Mapping[str, Estimate]
) -> Mapping[str, Estimate]:
    """Exponents by kind, from seconds of each kind's work over what a fit predicts at the machine's own speed, and
    slowness, of each step; drawn to those of `host`. A step that is far off says little."""
    kinds = sorted({kind for seconds_of, _ in steps for kind in seconds_of})
    exponents: dict[str, Estimate] = {}
    for kind in kinds:
        of_kind = [(*seconds_of[kind], slowness) for seconds_of, slowness in steps if kind in seconds_of]
        taken, predicted, slowness = np.log(np.array(of_kind).T)
        off, within_steps = taken - predicted, exponent(host, kind)
        weight = np.ones(len(off))
        slope = within_steps
        for _ in range(_ROUNDS):
            x, y = slowness - np.average(slowness, weights=weight), off - np.average(off, weights=weight)
            slope = (weight @ (x * y) + _PRIOR * within_steps) / (weight @ x**2 + _PRIOR)
            miss = np.abs(y - slope * x)
            weight = 1.0 / np.maximum(miss, max(float(np.median(miss)), 1e-3))
            weight /= weight.max()
        exponents[exponent_name(kind)] = Estimate(float(np.clip(slope, 0.0, _STEEPEST)), None)
    return exponents


def work_seconds(seconds: Floats, slowness: Floats | float, own_s: Floats, call_seconds: float) -> Floats | None:
    """What is left of the sum of ops' seconds [..., ops] beside their calls, where the ops take `own_s` at the
    machine's own speed; None where they are calls alone."""
    whole = seconds.sum(-1)
    work: Floats = whole - slowness * np.minimum(own_s, call_seconds).sum()
    return work if np.all(work > _LEAST_WORK * whole) else None


def exponent_name(kind: str) -> str:
    """Name of a kind's exponent among the host figures of a profile."""
    return f"pace_{kind}_power"


def exponent(host: Mapping[str, Estimate], kind: str) -> float:
    """To which power of the machine's slowness the work of ops of a kind slows down."""
    name = exponent_name(kind)
    return host[name].value if name in host else _USUAL


def op_exponents(graph: BlockGraph, host: Mapping[str, Estimate]) -> Floats:
    """The exponent of each op of a graph."""
    of_type = np.array([exponent(host, family(t)) for t in graph.op_types])
    powers: Floats = of_type[[op.type for op in graph.ops]]
    return powers


def at_slowness(own_s: Floats, slowness: float, powers: Floats | float, host: Mapping[str, Estimate]) -> Floats:
    """Seconds of ops that take `own_s` at the machine's own speed; `powers` are the exponents of their work."""
    call = np.minimum(own_s, _call_s(host))
    seconds: Floats = call * slowness + (own_s - call) * slowness**powers
    return seconds


def at_own_speed(
    seconds: Floats, slowness: Floats | float, powers: Floats | float, host: Mapping[str, Estimate]
) -> Floats:
    """Seconds of ops, had the machine run at its own speed: the inverse of `at_slowness`."""
    call = _call_s(host)
    work = (seconds - call * slowness) / slowness**powers
    own_s: Floats = np.where(work > 0, call + work, seconds / slowness)
    return own_s


def _call_s(host: Mapping[str, Estimate]) -> float:
    return call_s(host[PACE].value) if PACE in host else 0.0


def slowed(profile: Profile, slowness: float) -> Profile:
    """The profile of the same machine while it runs Python so many times as slowly as when it was calibrated."""
    if slowness == 1.0:
        return profile
    return replace(
        profile,
        host={n: _times(e, slowness) if n.endswith("_s") else e for n, e in profile.host.items()}
        | {_SLOWNESS: Estimate(slowness)},
        corrections={n: _times(e, slowness) if n.endswith("_s") else e for n, e in profile.corrections.items()},
    )


def slowed_seconds(graph: BlockGraph, profile: Profile, own_s: Floats) -> Floats:
    """Seconds of a graph's ops, which take `own_s` at the machine's own speed, as slowly as the profile says that it
    runs."""
    if _SLOWNESS not in profile.host:
        return own_s
    slowness = profile.host[_SLOWNESS].value
    own_pace = {PACE: Estimate(profile.host[PACE].value / slowness)} if PACE in profile.host else {}
    return at_slowness(own_s, slowness, op_exponents(graph, profile.host), own_pace)


def _times(estimate: Estimate, factor: float) -> Estimate:
    sigma = estimate.sigma
    return Estimate(estimate.value * factor, None if sigma is None else sigma * factor)
