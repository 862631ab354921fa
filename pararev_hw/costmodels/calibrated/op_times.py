"""The fitted model: an op takes what ops of its group were measured to take on the device of a profile.

    seconds(op) = priced(amounts of work) x correction(nearby measured shapes) + mapped memory + host

The prices and the correction come from ops measured alone (`.features`, `.gaussian_process`), where the bytes were from
the traffic of the step (`.cache_model`), and the last two from whole steps of held-in networks. An op whose group was
not measured is priced by its kind; one whose kind was not measured costs what the roofline says.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels import roofline
from pararev_hw.costmodels.allocator.workspace import rule_of
from pararev_hw.costmodels.calibrated.branch_density import mask_densities
from pararev_hw.costmodels.calibrated.cache_model import code_miss_share, miss_bytes
from pararev_hw.costmodels.calibrated.design_matrix import (
    capacities,
    corrected,
    design_matrix,
    fault_s_per_byte,
    hyperparameters_of,
    instruction_set,
    measured_design_matrix,
    seconds_without_faults,
)
from pararev_hw.costmodels.calibrated.features import branches, family, group
from pararev_hw.costmodels.calibrated.pace_response import slowed_seconds
from pararev_hw.costmodels.calibrated.page_faults import mapped_in_process
from pararev_hw.costmodels.measured_ops import host_seconds
from pararev_hw.costmodels.once import once
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Floats, Traffic
from pararev_hw.sizes import HALVES
from pararev_hw.types import BlockGraph, Fit, OpSample, OpType, Profile
from pararev_hw.types.op_names import base_name

Key = tuple[str, str]  # group or kind, and datatype
Rates = tuple[Mapping[Key, float], Mapping[Key, float], Mapping[Key, float]]
"""Most and fewest seconds per unit of work, and the most work of one op."""
_FEWEST_HELD_OUT = 2  # samples below which a fit counts as unchecked
_FEWEST_UNCHECKED = 6  # samples that an unchecked fit must be made of
_WORST_MEDIAN = 0.5  # error on held-out shapes up to which a fit is not asked whether the quick look says more
_UNCHECKED_MARGIN = 0.12  # by which a fit of few samples must be nearer to them: it was made to be
_SMALL_S = 30e-6  # an op that takes less says little of the rate of its work
_BEYOND = 1.5  # how far beyond the measured rates of its kind an op may be predicted
_REACH = 4.0  # times the most work of an op measured, up to which the fastest rate of smaller ones bounds an op's
_LEAST_S = 1e-8  # that an op takes, whatever was fitted


def op_costs(graph: BlockGraph, profile: Profile, flow: Traffic, launch: str) -> OpCosts:
    """What each op costs; ops of a kind that was not fitted cost what the roofline of the device says."""
    plain = roofline.op_costs(graph, profile.device, flow, launch)
    l2, dram = miss_bytes(graph, flow, capacities(profile))
    alone = alone_s(graph, profile, l2, dram)
    seconds = slowed_seconds(graph, profile, np.where(np.isnan(alone), plain.seconds, alone))
    seconds = seconds * step_factor(graph, profile)
    shift = host_shift_s(graph, profile)
    if profile.kind == "gpu":
        host = np.maximum(plain.host_s + shift, 0.0) if launch == "eager" else plain.host_s
        return replace(plain, seconds=seconds, dram_bytes=dram, host_s=host)
    seconds = np.maximum(seconds + shift + fault_s(graph, profile), _LEAST_S)
    # threads share the interpreter's lock: an op asks for it while it is dispatched
    held_s = profile.device.get("host_overhead_s", 0.0) + np.maximum(shift, 0.0)
    return replace(
        plain,
        seconds=seconds,
        overhead_s=np.zeros(len(graph.ops)),
        occupancy=np.minimum(held_s / seconds, 1.0),
        dram_bytes=np.minimum(dram, plain.dram_bytes),
    )


def step_factor(graph: BlockGraph, profile: Profile) -> float:
    """How much longer ops take among others than alone: they share caches, and a branch or a page is never the same."""
    names = (factor_name(graph), f"{graph.mode}_factor")  # halves that no step has shown count as float32 does
    return next((profile.corrections[n].value for n in names if n in profile.corrections), 1.0)


def factor_name(graph: BlockGraph) -> str:
    """Name of the correction that all ops of a step share: of its mode, and of halves apart, which other kernels
    compute."""
    return f"{graph.mode}_halves_factor" if graph.dtype in HALVES else f"{graph.mode}_factor"


def fault_s(graph: BlockGraph, profile: Profile) -> Floats:
    """Seconds that each op waits for memory to be mapped in."""
    dearer = profile.corrections["fault_factor"].value if "fault_factor" in profile.corrections else 1.0
    price = fault_s_per_byte(profile.host) * dearer
    return price * mapped_in_process(graph, profile, rule_of(profile))


def alone_s(graph: BlockGraph, profile: Profile, l2: Floats, dram: Floats, rates: Rates | None = None) -> Floats:
    """Seconds of each op as if it ran alone with its data where the step leaves them; NaN for kinds without a fit.
    `rates` are `measured_rates(profile)`, for who asks about many graphs."""
    fits = usable_fits(profile)
    members: dict[tuple[Key, str], list[int]] = defaultdict(list)
    for k, t in enumerate(graph.op_types):
        key = fit_key(t, fits)
        if key is not None:
            members[key, family(t)].append(k)
    type_of = np.fromiter((op.type for op in graph.ops), np.int64, len(graph.ops))
    density = mask_densities(graph)
    measured = _measured(profile, {key for key, _ in members})
    limits, isa = capacities(profile), instruction_set(profile)
    code = code_miss_share(graph) if profile.kind == "cpu" else np.zeros(len(graph.ops))
    seconds = np.full(len(graph.ops), np.nan)
    for (key, _), indices in sorted(members.items()):
        fit = fits[key]
        at = np.flatnonzero(np.isin(type_of, indices))
        if not len(at):
            continue
        types = [graph.op_types[k] for k in type_of[at]]
        unknown = design_matrix(types, l2[at], dram[at], density[at], code[at], isa)
        factor: Floats = np.ones(len(at))
        how, samples = hyperparameters_of(fit), measured.get(key, [])
        if how is not None and samples:
            measured_rows = measured_design_matrix(samples, limits, isa)
            if measured_rows.at.shape[1] == unknown.at.shape[1]:
                measured_s = seconds_without_faults(samples, fault_s_per_byte(profile.host))
                factor = corrected(
                    measured_rows, np.log(measured_s / measured_rows.seconds(fit.coefficients)), how, unknown
                )
        seconds[at] = np.maximum(unknown.seconds(fit.coefficients) * factor, _LEAST_S)
    slowest, fastest, largest = measured_rates(profile) if rates is None else rates
    for n, t in enumerate(graph.op_types):
        key = (family(t), t.dtype)
        if key in slowest:
            at = np.flatnonzero(type_of == n)
            work = work_of(t)
            most = _SMALL_S + _BEYOND * slowest[key] * work
            least = fastest.get(key, 0.0) * work / _BEYOND if work <= _REACH * largest[key] else 0.0
            seconds[at] = np.clip(seconds[at], least, most)  # NaN stays NaN
    return seconds


def work_of(t: OpType) -> float:
    """What an op's time grows with: flops of matrix kinds, else bytes."""
    return float(t.true_flops) if t.flops else float(t.read_bytes + t.write_bytes)


def measured_rates(profile: Profile) -> Rates:
    """Most and fewest seconds per unit of work that any op of a kind and datatype was measured to take, and its most
    work.

    Of a kind that was measured in ops alone that end at once, the largest one's whole time bounds the rate from above,
    and nothing does from below. Where some took longer, the fewest are those of all: a small op that was interrupted
    once would say that nothing of its kind is fast.
    """
    slowest: dict[Key, float] = {}
    fastest: dict[Key, float] = {}
    largest: dict[Key, float] = {}
    measured = sorted(
        ((work_of(s.op), s.low_s, (family(s.op), s.op.dtype)) for s in profile.samples), key=lambda m: m[0]
    )
    measured = [m for m in measured if m[0] > 0]
    for work, low_s, key in measured:
        slowest[key], largest[key] = low_s / work, work
    small = dict.fromkeys(slowest, True)
    for work, low_s, key in measured:
        if low_s > _SMALL_S:  # below it the time is the overhead, not the work
            rate = (low_s - _SMALL_S) / work
            slowest[key] = rate if small.pop(key, False) else max(slowest[key], rate)
            fastest[key] = math.inf
    for work, low_s, key in measured:
        if key in fastest:
            fastest[key] = min(fastest[key], low_s / work)
    return slowest, fastest, largest


def usable_fits(profile: Profile) -> Mapping[Key, Fit]:
    """The fits that know more than what else would stand in for them: the fit of their kind, or the quick look."""
    return once(_usable_fits, (profile,))


def _usable_fits(profile: Profile) -> Mapping[Key, Fit]:
    usable = {(f.group, f.dtype): f for f in profile.fits if _is_proven(f)}
    doubtful = {(f.group, f.dtype): f for f in profile.fits if (f.group, f.dtype) not in usable}
    samples: dict[Key, list[OpSample]] = defaultdict(list)
    for s in profile.samples:
        for key in {(group(s.op), s.op.dtype), (family(s.op), s.op.dtype)} & doubtful.keys():
            samples[key].append(s)
    for key, fit in sorted(doubtful.items(), key=lambda item: "." in item[0][0]):  # kinds, then groups
        seen = samples[key]
        if not seen:
            continue
        held_out = [s for s in seen if s.held_out]
        margin = 0.0 if len(held_out) >= _FEWEST_HELD_OUT else _UNCHECKED_MARGIN
        judges = held_out if len(held_out) >= _FEWEST_HELD_OUT else seen
        instead = usable.get((family(seen[0].op), seen[0].op.dtype))
        if _miss(judges, profile, fit) + margin < _miss(judges, profile, instead):
            usable[key] = fit
    return usable


def _is_proven(fit: Fit) -> bool:
    """Whether held-out shapes, or many samples, speak for a fit."""
    if fit.residual_median is None or fit.held_out < _FEWEST_HELD_OUT:
        return fit.samples >= _FEWEST_UNCHECKED
    return fit.residual_median <= _WORST_MEDIAN


def _miss(samples: Sequence[OpSample], profile: Profile, fit: Fit | None) -> float:
    """How far the prices of a fit, or without one the quick look, are from what was measured: the median of the
    logarithms."""
    if fit is None:
        types = [s.op for s in samples]
        predicted = roofline.busy_seconds_of(types, profile.device) + profile.device.get("host_overhead_s", 0.0)
    else:
        predicted = measured_design_matrix(samples, capacities(profile), instruction_set(profile)).seconds(
            fit.coefficients
        )
    taken = seconds_without_faults(samples, fault_s_per_byte(profile.host))
    return float(np.median(np.abs(np.log(np.maximum(predicted, _LEAST_S) / taken))))


# functions of series of terms, an element of which takes ten times as long as one of a sum; and which stand in for them
_FUNCTIONS = frozenset(
    "sin cos tan asin acos atan sinh cosh asinh acosh atanh exp exp2 expm1 log log2 log10 log1p erf erfc erfinv lgamma "
    "digamma logit softplus softplus_backward log_sigmoid_forward log_sigmoid_backward mish mish_backward xlogy "
    "atan2 logaddexp".split()
)
_ALIKE = ("aten.sin.default", "aten.tanh.default", "aten.exp.default", "aten.log.default")


def fit_key(t: OpType, fits: Mapping[Key, Fit]) -> Key | None:
    """The fit that gives an op's time: its group's, of a function beyond arithmetic the slowest alike that was
    measured, its kind's, or its kind's in float32; None where there is none."""
    branching = branches(t)
    is_function = family(t) == "elementwise" and base_name(t.name).rstrip("_") in _FUNCTIONS
    alike = [(name, t.dtype) for name in _ALIKE] if is_function else []
    for key in ((group(t), t.dtype), *alike, (family(t), t.dtype), (family(t), "float32")):
        if key in fits and (not branching or key[0] == group(t)):
            return key
    return None


def host_shift_s(graph: BlockGraph, profile: Profile) -> Floats:
    """Seconds per op that a step spends beyond the ops themselves: Python, autograd, the optimizer's loop.

    On a CPU they were measured, by what the step calls; whole steps correct them by phase (to less than none where
    calling an op alone costs more than in the step).
    """
    measured = host_seconds(graph, profile.host) if is_python_measured(profile) else 0.0
    shifts = [
        profile.corrections[name].value if name in profile.corrections else 0.0
        for name in (shift_name(graph, op.phase) for op in graph.ops)
    ]
    return np.array(shifts, np.float64) + measured


def is_python_measured(profile: Profile) -> bool:
    """Whether the profile tells what PyTorch's own loop spends beside its ops."""
    return "modules_s" in profile.host


def shift_name(graph: BlockGraph, phase: str) -> str:
    """Name of the correction for the ops of a phase."""
    return "infer_shift_s" if graph.mode == "infer" else f"{phase}_shift_s"


def _measured(profile: Profile, keys: set[Key]) -> dict[Key, list[OpSample]]:
    """The samples of each group that entered its fit."""
    samples: dict[Key, list[OpSample]] = defaultdict(list)
    for s in profile.samples:
        if not s.held_out:
            key = (group(s.op), s.op.dtype)
            if key in keys:
                samples[key].append(s)
    return samples
