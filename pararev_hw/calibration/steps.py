"""The second level: what whole steps of held-in networks show that ops alone do not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from pararev_hw.calibration import held_in
from pararev_hw.calibration.failures import reason_missed
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.calibration.ops import Missed, rounded
from pararev_hw.calibration.subprocess_steps import Timed, timed_here, timed_in_subprocess
from pararev_hw.costmodels.allocator.workspace import LibraryRule, rule_of
from pararev_hw.costmodels.calibrated import op_times
from pararev_hw.costmodels.calibrated.cache_model import MMAP_BYTES
from pararev_hw.costmodels.calibrated.design_matrix import fault_s_per_byte
from pararev_hw.costmodels.calibrated.pace_response import slowed
from pararev_hw.costmodels.calibrated.page_faults import mapped_block_bytes, mapped_bytes
from pararev_hw.costmodels.traffic import Floats, traffic
from pararev_hw.types import BlockGraph, Estimate, Profile, StepSample

STEP_LIMIT_S = 4.0
USUAL_S = 3e-6  # of a correction per op
_WEAK, _FIRM = 0.02, 0.1  # how strongly corrections are drawn to none: those per op, and what was measured already
_REPLAYED = 2.0  # the same of ops timed in their place, whose sum is that of the step within 5 %; a step is 10 % off
OUTLIER = 0.05
# M_TRIM_THRESHOLD is twice the largest block that was ever let go, mallopt(3), and what is free seldom lies at the top
# of the heap in one piece: judged by steps that let go of 115 MiB and mapped in next to nothing
_SETTLED_BYTES = 4 * MMAP_BYTES


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A measured step, the same step traced, and how many times as slowly as at its own speed the machine ran."""

    sample: StepSample
    graph: BlockGraph
    slowness: float = 1.0


def measured_steps(
    networks: Sequence[HeldIn],
    device: str,
    seed: int,
    until: Callable[[], bool],
    limit_s: float = STEP_LIMIT_S,
    pace_s: float | None = None,
) -> Iterator[MeasuredStep | Missed]:
    """Steps in turn while the time lasts, each for at most `limit_s`, on a CPU at the pace of `pace_s`.

    One that raises is missed. Raises DeviceLost where the device is gone.
    """
    graphs = (held_in.traced(one, device) for one in networks)
    timings = (
        timed_in_subprocess(networks, seed, limit_s, until, pace_s)
        if device == "cpu"
        else _timed_on_gpu(networks, seed, until, limit_s)
    )
    for one, graph, timed in zip(networks, graphs, timings, strict=False):
        if timed.timing is None:
            yield Missed(one.name, timed.failed)
            continue
        flops = sum(t.flops for t in graph.tasks)
        sample = StepSample(one.name, rounded(timed.timing), 0.0, timed.timing.faulted_bytes, flops)
        yield MeasuredStep(sample, graph, timed.slowness)


def _timed_on_gpu(networks: Sequence[HeldIn], seed: int, until: Callable[[], bool], limit_s: float) -> Iterator[Timed]:
    """Timings in this process: a GPU's allocator keeps what it has, whoever had it before."""
    for one in networks:
        if until():
            return
        try:
            yield timed_here(one, "cuda", seed, limit_s)
        except Exception as error:
            # a step may fail in as many ways as a network: the other steps still count
            yield Timed(None, reason_missed(error))


def corrections(
    profile: Profile, steps: Sequence[MeasuredStep]
) -> tuple[Mapping[str, Estimate], tuple[StepSample, ...]]:
    """What steps spend beyond their ops: seconds per op by phase, a factor by mode and datatype, and fresh memory.

    Least squares of log(predicted / measured) over the held-in steps under a loss that outliers move little, each
    correction drawn weakly to none. The steps come back with what their ops alone were predicted to take.
    """
    if not steps:
        return {}, ()
    on_cpu = profile.kind == "cpu"
    bares = [slowed(replace(profile, corrections={}), s.slowness) for s in steps]
    ops_s = np.array(
        [
            op_times.op_costs(s.graph, bare, traffic(s.graph), "eager").seconds.sum()
            for s, bare in zip(steps, bares, strict=True)
        ]
    )
    samples = tuple(replace(s.sample, ops_s=float(f"{t:.6g}")) for s, t in zip(steps, ops_s.tolist(), strict=True))
    taken_s = np.array([(statistics.median if on_cpu else _low)(s.sample.seconds) for s in steps])
    shifts = sorted({op_times.shift_name(s.graph, op.phase) for s in steps for op in s.graph.ops})
    shift_weight = _FIRM if on_cpu and op_times.is_python_measured(profile) else _WEAK
    counts = np.array([[_count(s.graph, name) for name in shifts] for s in steps], np.float64)
    factors = sorted({op_times.factor_name(s.graph) for s in steps})
    modes = np.array([[op_times.factor_name(s.graph) == name for name in factors] for s in steps], np.float64)
    replayed = any(s.fetched_bytes is not None for s in profile.samples)  # float32 steps of training, and no others
    factor_weights = np.array([_REPLAYED if replayed and name == "train_factor" else _FIRM for name in factors])
    if on_cpu:
        beside_s = [op_times.host_shift_s(s.graph, bare).sum() for s, bare in zip(steps, bares, strict=True)]
        mapping_s = [op_times.fault_s(s.graph, bare).sum() for s, bare in zip(steps, bares, strict=True)]
        host_s, ops_s = np.array(beside_s), ops_s - beside_s - mapping_s
    else:
        host_s = np.array([_host_s(s.graph, bare) for s, bare in zip(steps, bares, strict=True)])
    price = fault_s_per_byte(profile.host) if on_cpu else 0.0
    faults_s = price * np.array([float(s.sample.faulted_bytes) for s in steps])
    n, m = len(shifts), len(factors)

    def residual(p: Floats) -> Floats:
        device = ops_s * np.exp(modes @ p[n : n + m]) + faults_s * np.exp(p[-1])
        launched = counts @ (p[:n] * USUAL_S) + host_s
        # a CPU does both one after the other; a GPU's host runs ahead of it
        predicted_s = device + launched if on_cpu else np.maximum(device, launched)
        weak = np.concatenate((shift_weight * p[:n], factor_weights * p[n : n + m], _FIRM * p[n + m :]))
        misses: Floats = np.concatenate((np.log(np.maximum(predicted_s, 1e-4 * taken_s) / taken_s), weak))
        return misses

    solution = least_squares(residual, np.zeros(n + m + 1), loss="soft_l1", f_scale=OUTLIER)
    curvature = np.linalg.inv(solution.jac.T @ solution.jac)
    scale = float(np.sqrt(2 * solution.cost / max(1, len(steps) - 1)))
    sigmas = (scale * np.sqrt(np.diag(curvature))).tolist()
    values = solution.x.tolist()
    estimates = {
        name: Estimate(float(np.clip(x * USUAL_S, -1e-3, 1e-2)), sigma * USUAL_S)
        for name, x, sigma in zip(shifts, values, sigmas, strict=False)
    }
    logs = dict(zip((*factors, "fault_factor"), zip(values[n:], sigmas[n:], strict=True), strict=True))
    if price == 0:
        logs.pop("fault_factor")
    for name, (x, sigma) in logs.items():
        value = float(np.exp(np.clip(x, -3.0, 3.0)))
        estimates[name] = Estimate(value, value * sigma)
    if on_cpu:
        estimates["kept_bytes"] = kept_bytes(steps, rule_of(profile), mapped_block_bytes(profile))
    return estimates, samples


def kept_bytes(steps: Sequence[MeasuredStep], rule: LibraryRule, block_bytes: float | None = None) -> Estimate:
    """How much free memory the allocator keeps: under which the bytes that steps map in come nearest to those seen; of
    several that explain them alike, what glibc usually keeps once a large block was let go."""
    candidates = (1 << 20) * np.geomspace(4, 256, 49)

    def misfit(threshold_bytes: float) -> float:
        predicted_bytes = (float(mapped_bytes(s.graph, threshold_bytes, rule, block_bytes).sum()) for s in steps)
        return sum(abs(b - s.sample.faulted_bytes) for b, s in zip(predicted_bytes, steps, strict=True))

    return Estimate(float(min(candidates, key=lambda b: (misfit(b), abs(math.log(b / _SETTLED_BYTES))))))


def _host_s(graph: BlockGraph, profile: Profile) -> float:
    return float(op_times.op_costs(graph, profile, traffic(graph), "eager").host_s.sum())


def _count(graph: BlockGraph, name: str) -> int:
    return sum(op_times.shift_name(graph, op.phase) == name for op in graph.ops)


def _low(seconds: Sequence[float]) -> float:
    """The lower quartile: a busy neighbour only ever adds."""
    return sorted(seconds)[len(seconds) // 4]
