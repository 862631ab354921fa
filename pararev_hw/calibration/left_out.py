"""How far a calibration is off on a kind of network that it never saw: families of drawn networks are left out in turn.

A user's network is of no family that was drawn. So a fit of all others predicts the networks of each family, and what
it is off is held against what it expected to be off (`pararev_hw.costmodels.expected_error`). Not by what the others
are off alike, a factor and seconds per op: small ops that follow one another take less than alone, and that is what
whole steps correct in a profile. Three quarters of them tell the factor under which the expected error covers 90 %,
were errors normal: the tail of a few dozen networks tells it worse. It is drawn to none the more, the fewer they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.optimize import least_squares

from pararev_hw.calibration.replays import Replayed
from pararev_hw.calibration.steps import OUTLIER, USUAL_S
from pararev_hw.costmodels import roofline
from pararev_hw.costmodels.calibrated.cache_model import miss_bytes
from pararev_hw.costmodels.calibrated.design_matrix import capacities
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.costmodels.calibrated.op_times import Rates, alone_s, measured_rates
from pararev_hw.costmodels.calibrated.pace_response import at_own_speed, op_exponents, work_seconds
from pararev_hw.costmodels.expected_error import error_of_ops
from pararev_hw.costmodels.traffic import Floats, traffic
from pararev_hw.measurement.pace import PACE, call_s
from pararev_hw.types import Estimate, Profile

FOLDS = 3
_TOLD_BY, _TO_NINE_TENTHS = 0.75, 1.645 / 1.150  # of errors, and how many times as far 90 % of normal ones reach
_WORTH = 30  # judged: networks left out that say as much as that what is expected is right
_OF_PEOPLES = 0.7  # judged: what covers 90 % of the networks that people wrote, of what covers 90 % of drawn ones
_FEWEST = 12  # networks left out, below which nothing can be said of 90 % of them
_LEAST_LEFT = 0.1  # of the predicted seconds, whatever each op is to take less

Refitted = Callable[[Sequence[str]], Profile]


@dataclass(frozen=True, slots=True)
class Unseen:
    """A replayed step of a family that the fit had not seen: seconds of its ops, and the error expected."""

    predicted_s: float
    measured_s: float
    op_count: int
    expected: float


def interval_factor(replayed: Sequence[Replayed], refitted: Refitted) -> Estimate | None:
    """By what an expected error is to be multiplied, so that it covers 90 % of networks of unseen families, as people
    write them; None where too few were measured. `refitted` gives the profile of replayed networks of those names."""
    folds = tuple(_folds(replayed, refitted))
    if sum(map(len, folds)) < _FEWEST:
        return None
    ratios = [
        abs(error) / one.expected
        for n, fold in enumerate(folds)
        for one, error in zip(fold, errors_beside(fold, [*chain(*folds[:n], *folds[n + 1 :])]), strict=True)
    ]
    factor = _TO_NINE_TENTHS * float(np.quantile(ratios, _TOLD_BY))
    return Estimate(_OF_PEOPLES * factor ** (len(ratios) / (len(ratios) + _WORTH)))


def errors_beside(steps: Sequence[Unseen], others: Sequence[Unseen]) -> Sequence[float]:
    """Predicted over measured seconds, minus 1, of steps, corrected as whole steps correct those of a profile: by the
    factor and the seconds per op that make those of the others right."""
    if not others:
        return [one.predicted_s / one.measured_s - 1.0 for one in steps]
    predicted_s, measured_s, op_counts = _columns(others)

    def misses(p: Floats) -> Floats:
        errors: Floats = np.log(_corrected(predicted_s, op_counts, p) / measured_s)
        return errors

    best = least_squares(misses, np.zeros(2), loss="soft_l1", f_scale=OUTLIER).x
    predicted_s, measured_s, op_counts = _columns(steps)
    return [float(e) for e in _corrected(predicted_s, op_counts, best) / measured_s - 1.0]


def _columns(steps: Sequence[Unseen]) -> Floats:
    return np.array([(s.predicted_s, s.measured_s, s.op_count) for s in steps]).reshape(-1, 3).T


def _corrected(predicted_s: Floats, op_counts: Floats, p: Floats) -> Floats:
    """Seconds times the exponential of p[0], and p[1] of the usual correction for each op."""
    least_s = _LEAST_LEFT * predicted_s
    seconds: Floats = np.maximum(np.exp(p[0]) * predicted_s + p[1] * USUAL_S * op_counts, least_s)
    return seconds


def _folds(replayed: Sequence[Replayed], refitted: Refitted) -> Iterator[Sequence[Unseen]]:
    """The networks of each third of the families that people write, as a fit of all others predicts them."""
    families = sorted({one.network.family_name for one in replayed if not one.network.is_assorted})
    for fold in range(FOLDS):
        names = set(families[fold::FOLDS])
        left_out = [one for one in replayed if one.network.family_name in names]
        if left_out:
            profile = refitted([one.network.name for one in replayed if one.network.family_name not in names])
            rates = measured_rates(profile)
            yield [_prediction(one, profile, rates) for one in left_out]


def seconds_beside_fit(
    replayed: Sequence[Replayed], profile: Profile
) -> Iterator[tuple[Mapping[str, tuple[float, float]], float]]:
    """Of each replayed step: by kind of op, measured and predicted seconds of the work of what has a fit; and its
    slowness."""
    call = call_s(profile.host[PACE].value) if PACE in profile.host else 0.0
    rates = measured_rates(profile)
    for one in replayed:
        l2, dram = miss_bytes(one.graph, traffic(one.graph), capacities(profile))
        fitted = alone_s(one.graph, profile, l2, dram, rates)
        taken = np.median(one.seconds, axis=0)
        kinds = np.array([family(one.graph.op_types[op.type]) for op in one.graph.ops])
        has = ~np.isnan(fitted) & (taken > 0)
        slowness = float(np.median(one.slowness))
        sums: dict[str, tuple[float, float]] = {}
        for k in np.unique(kinds[has]):
            own_s, seconds = fitted[has & (kinds == k)], taken[has & (kinds == k)]
            works = work_seconds(seconds, slowness, own_s, call), work_seconds(own_s, 1.0, own_s, call)
            if works[0] is not None and works[1] is not None:
                sums[str(k)] = float(works[0]), float(works[1])
        yield sums, slowness


def _prediction(one: Replayed, profile: Profile, rates: Rates) -> Unseen:
    graph = one.graph
    flow = traffic(graph)
    l2, dram = miss_bytes(graph, flow, capacities(profile))
    fitted = alone_s(graph, profile, l2, dram, rates)
    predicted_s = np.where(np.isnan(fitted), roofline.op_costs(graph, profile.device, flow, "eager").seconds, fitted)
    expected, _ = error_of_ops(graph, profile, predicted_s)
    measured_s = float(_at_own_speed(one, profile).sum())
    return Unseen(float(predicted_s.sum()), measured_s, len(graph.ops), expected)


def _at_own_speed(one: Replayed, profile: Profile) -> Floats:
    """Seconds of each op, had the machine run at its own speed."""
    powers = op_exponents(one.graph, profile.host)
    seconds: Floats = np.median(at_own_speed(one.seconds, one.slowness[:, None], powers, profile.host), axis=0)
    return seconds
