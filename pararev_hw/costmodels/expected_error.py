"""How far a prediction may be off, said beforehand: half of its 90 % interval, as a share of the prediction.

Of an operation's time the error is that which held-out shapes of its kind showed (a profile), or the spread of its own
samples (measured in place). Operations of one kind err together, kinds err apart, and what lies beside the operations
(Python, autograd, caches, fresh memory) adds its own:

    error^2 = sum over kinds (share of the time x error of the kind)^2 + (error of the composition)^2

Of a CPU's profile all kinds err together as well. That and the kinds' own terms count times a factor, by which they
cover 90 % of the networks of families that a fit of the others had not seen (`pararev_hw.calibration.left_out`).
Of a GPU that was not measured here, what fits to published steps showed on unseen networks. Nothing is said of a device
of which nothing was measured.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from pararev_hw.costmodels.calibrated.features import family, group
from pararev_hw.costmodels.calibrated.op_times import fit_key, usable_fits
from pararev_hw.costmodels.measured_ops import host_seconds, is_measured, op_keys
from pararev_hw.types import BlockGraph, Device, ExpectedError, Hardware, MeasuredDevice, Profile

QUICK_LOOK = 0.6  # of the time: few probes stand for every kind of operation (benchmarks/bench_machines.py)
NEVER_MEASURED = 1.0  # of an operation of a kind that was not measured
STAND_IN = 0.6  # of an operation that the fit of its kind stands in for
NO_HELD_OUT = 0.3  # of a fit that was checked on no held-out shape
REPLAYED = 0.07  # of a replayed step as a whole, beside PyTorch's own loop (benchmarks/bench_machines.py)
BESIDE_OPS = 0.2  # of what PyTorch's loop spends beside its operations: networks told from one measurement to the next
NOISE = 2.44  # 1.645 / 0.6745: half of a 90 % interval over half of the interquartile range of normal samples
MEDIANS = 1.77  # 1.2533 x sqrt(2): standard error of the difference of two medians of n samples, x sqrt(n) / deviation
TOGETHER = 0.1  # of a network's ops on a CPU: judged, what unseen families were off whose kinds are all well known
UNJUDGED = 1.5  # times what is expected of ops where no families were left out: judged, the most that was seen
COMPOSED = 0.06  # of a sum of fitted operations that was checked on whole steps
COMPOSED_UNCHECKED = 0.3  # where no whole step was measured
PEAK = 0.01  # of the peak memory of an eager step, beside torch's own count
FITTED_ENERGY = 0.15  # of a board whose power was fitted to its counter


def expected_error(graph: BlockGraph, hardware: Hardware, seconds: tuple[float, ...]) -> ExpectedError:
    """The expected error of a step of the graph whose ops take those seconds."""
    peak = PEAK if hardware.kind in ("cpu", "gpu") else None
    if isinstance(hardware, MeasuredDevice):
        latency, unmeasured = _of_measured(graph, hardware, np.array(seconds))
        return ExpectedError(latency, peak, None, unmeasured)
    if isinstance(hardware, Profile):
        latency, unmeasured = _of_profile(graph, hardware, np.array(seconds))
        fitted = "fitted" in getattr(hardware.device.parameters.get("static_power_w"), "source", "")
        return ExpectedError(latency, peak, FITTED_ENERGY if hardware.kind == "gpu" and fitted else None, unmeasured)
    published = _published(hardware, f"expected_error.{graph.mode}")
    energy = _published(hardware, "expected_error.energy")
    power = _published(hardware, "expected_error.power")
    if energy is None and published is not None and power is not None:
        energy = math.hypot(published, power)  # joules are watts x seconds
    return ExpectedError(QUICK_LOOK if _quick_look(hardware) else published, peak, energy, None, power)


def _published(device: Device, name: str) -> float | None:
    """What published measurements, of this card or of others, say of the error."""
    return device.parameters[name].value if name in device.parameters else None


def _quick_look(device: Device) -> bool:
    return device.kind == "cpu" and any(p.provenance == "measured" for p in device.parameters.values())


def _of_measured(
    graph: BlockGraph, device: MeasuredDevice, seconds: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[float, float]:
    total = float(seconds.sum()) or 1.0
    is_timed = is_measured(graph, device)
    unmeasured = float(seconds[~is_timed].sum()) / total
    beside = float(host_seconds(graph, device.host)[is_timed].sum()) / total
    if device.step is None:
        spreads = np.array([device.ops[k].spread if k in device.ops else 0.0 for k in op_keys(graph)])
        noise = NOISE * float((spreads * seconds).sum()) / total
    else:
        noise = NOISE * device.step.spread * MEDIANS / math.sqrt(device.step.replays)
    return math.hypot(REPLAYED, BESIDE_OPS * beside, QUICK_LOOK * unmeasured, noise), unmeasured


def _of_profile(
    graph: BlockGraph, profile: Profile, seconds: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[float, float]:
    of_ops, unmeasured = error_of_ops(graph, profile, seconds)
    usual = UNJUDGED if profile.kind == "cpu" else 1.0
    factor = profile.corrections["interval_factor"].value if "interval_factor" in profile.corrections else usual
    composed = COMPOSED if profile.steps else COMPOSED_UNCHECKED
    return math.hypot(composed, factor * of_ops), unmeasured


def error_of_ops(
    graph: BlockGraph, profile: Profile, seconds: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[float, float]:
    """The error of the sum of ops that take those seconds, by the errors of the fits that say so, and which share of
    the time stems from ops of groups that were not measured."""
    total = float(seconds.sum()) or 1.0
    fits = usable_fits(profile)
    errors: dict[int, tuple[str, float]] = {}
    for n, t in enumerate(graph.op_types):
        key = fit_key(t, fits)
        if key is None:
            errors[n] = (f"unmeasured {family(t)}", NEVER_MEASURED)
        elif key != (group(t), t.dtype):
            errors[n] = (f"{key[0]} {key[1]}, standing in", STAND_IN)
        else:
            p90 = fits[key].residual_p90
            errors[n] = (f"{key[0]} {key[1]}", NO_HELD_OUT if p90 is None else min(p90, NEVER_MEASURED))
    share: dict[tuple[str, float], float] = defaultdict(float)
    for op, s in zip(graph.ops, seconds.tolist(), strict=True):
        share[errors[op.type]] += s / total
    unmeasured = sum(s for (_, error), s in share.items() if error >= STAND_IN)
    together = TOGETHER if profile.kind == "cpu" else 0.0
    return math.hypot(together, *(s * error for (_, error), s in share.items())), unmeasured
