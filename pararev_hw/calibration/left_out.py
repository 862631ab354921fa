"""How far a calibration is off on a kind of network that it never saw: families of drawn networks are left out in turn.

A user's network is of no family that was drawn. So a fit of all others predicts the networks of each family, by prices
alone, and what it is off is held against what it expected to be off (`pararev_hw.costmodels.expected_error`). Not by
what all are off alike, as ops among others are off beside ops alone: that is what whole steps correct in a profile. The
factor under which the expected error would have covered 90 % of them is that of conformal prediction (Vovk et al.
2005): it needs no model of where the errors come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pararev_hw.calibration.replays import Replayed
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

COVERED = 0.9
FOLDS = 3
_FEWEST = 12  # networks left out, below which nothing can be said of 90 % of them

Refitted = Callable[[Sequence[str]], Profile]


def interval_factor(replayed: Sequence[Replayed], refitted: Refitted) -> Estimate | None:
    """By what an expected error is to be multiplied, so that it covers 90 % of networks of unseen families; None where
    too few were measured. `refitted` gives the profile of replayed networks of those names."""
    predictions = tuple(_predictions(replayed, refitted))
    if len(predictions) < _FEWEST:
        return None
    over_measured, expected = np.array(predictions).T
    ratios = np.sort(np.abs(over_measured / np.median(over_measured) - 1.0) / expected).tolist()
    return Estimate(ratios[min(len(ratios), math.ceil(COVERED * (len(ratios) + 1))) - 1])


def _predictions(replayed: Sequence[Replayed], refitted: Refitted) -> Iterator[tuple[float, float]]:
    """Of each network of a family that people write, predicted over measured seconds, and the error expected."""
    families = sorted({one.network.family_name for one in replayed if not one.network.is_assorted})
    for fold in range(FOLDS):
        names = set(families[fold::FOLDS])
        left_out = [one for one in replayed if one.network.family_name in names]
        if left_out:
            profile = refitted([one.network.name for one in replayed if one.network.family_name not in names])
            rates = measured_rates(profile)
            for one in left_out:
                yield _prediction(one, profile, rates)


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


def _prediction(one: Replayed, profile: Profile, rates: Rates) -> tuple[float, float]:
    """Predicted over measured seconds of the ops of a replayed step; and the error expected."""
    graph = one.graph
    flow = traffic(graph)
    l2, dram = miss_bytes(graph, flow, capacities(profile))
    fitted = alone_s(graph, profile, l2, dram, rates)
    predicted_s = np.where(np.isnan(fitted), roofline.op_costs(graph, profile.device, flow, "eager").seconds, fitted)
    expected, _ = error_of_ops(graph, profile, predicted_s)
    return float(predicted_s.sum() / _at_own_speed(one, profile).sum()), max(expected, 1e-3)


def _at_own_speed(one: Replayed, profile: Profile) -> Floats:
    """Seconds of each op, had the machine run at its own speed."""
    powers = op_exponents(one.graph, profile.host)
    seconds: Floats = np.median(at_own_speed(one.seconds, one.slowness[:, None], powers, profile.host), axis=0)
    return seconds
