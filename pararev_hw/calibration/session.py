"""A calibration from start to end: what is measured in which share of the time, and what is kept if it stops early."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from pararev_hw.calibration import held_in, host_overheads
from pararev_hw.calibration.energy import PowerSample, fitted_power, measured_power
from pararev_hw.calibration.failures import DeviceLost, reason_missed
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.calibration.left_out import interval_factor, seconds_beside_fit
from pararev_hw.calibration.measured_device import measured_device
from pararev_hw.calibration.ops import BRIEF, THOROUGH, Budget, Effort, Missed, measured_ops
from pararev_hw.calibration.pairs import measured_pairs, with_sharing
from pararev_hw.calibration.replays import Replayed, enough, network_samples, op_samples, replayed_networks
from pararev_hw.calibration.residuals import errors_of_fits, typical_error
from pararev_hw.calibration.steps import STEP_LIMIT_S, MeasuredStep, corrections, measured_steps
from pararev_hw.calibration.suite import SEED, SuiteEntry, entries
from pararev_hw.costmodels.allocator.workspace import rule_of
from pararev_hw.costmodels.calibrated.design_matrix import fault_s_per_byte, instruction_set
from pararev_hw.costmodels.calibrated.fit import fits
from pararev_hw.costmodels.calibrated.pace_response import exponent, exponents_between, fitted_exponents
from pararev_hw.costmodels.calibrated.page_faults import fitted_mapped_block
from pararev_hw.errors import BadInput
from pararev_hw.execution.loop_overheads import FEW_RUNS, RUNS, loop_overheads
from pararev_hw.measurement import Clock, computing_threads, cpu_clock, cuda_clock
from pararev_hw.measurement.environment import environment
from pararev_hw.measurement.pace import PACE, PacedClock, call_s, typical_pace_s
from pararev_hw.progress import Progress, silent, time_left
from pararev_hw.types import Device, Estimate, OpSample, PairSample, Profile

DEVICES = ("cpu", "cuda")
LEAST_MINUTES = 0.02
SHORT_MINUTES = 8.0  # below which not all ops of the suite could be measured at length
_LITTLE_S, _LEAST_S = 120.0, 30.0  # below which measuring Python's own time may not take long, and takes none
_REPLAYS_SHARE, _STEPS_SHARE, _PAIRS_SHARE = 0.65, 0.15, 0.03  # of the time; ops measured alone have the rest
_FEWEST_JUDGED = 8  # replayed networks, before which few of their ops are held out
_CACHES = {"cpu": (1 << 20, 32 << 20), "cuda": (256 << 10, 50 << 20)}  # where the search for their sizes starts
_CAPACITIES = ("l2_capacity_bytes", "last_capacity_bytes")


@dataclass(frozen=True, slots=True)
class Probes:
    """What asks a machine how long things take. Tests put a machine in their place whose times are known."""

    device: Callable[[str], Device] = measured_device
    overheads: Callable[[str, Clock], Mapping[str, Estimate]] = host_overheads.overheads
    copy_curve: Callable[[str, Clock], tuple[host_overheads.Points, host_overheads.Points]] = host_overheads.copy_curve
    matmul_peaks: Callable[[str, Clock], Mapping[str, host_overheads.Points]] = host_overheads.matmul_peaks
    page_fault: Callable[[], Estimate] = host_overheads.fault_s_per_byte
    python: Callable[[int], Mapping[str, Estimate]] = loop_overheads
    replays: Callable[[float, Callable[[], bool], float], Iterator[Replayed | Missed]] = replayed_networks
    suite: Callable[[str], Sequence[SuiteEntry]] = entries
    ops: Callable[..., Iterator[OpSample | Missed]] = measured_ops
    pairs: Callable[[str, Clock, Callable[[], bool]], Iterator[PairSample | Missed]] = measured_pairs
    networks: Callable[[str], Sequence[HeldIn]] = held_in.networks
    steps: Callable[..., Iterator[MeasuredStep | Missed]] = measured_steps


THIS_MACHINE = Probes()


@dataclass(slots=True)
class Measured:
    """What has been measured so far."""

    device: str
    base: Device
    probes: Probes
    overheads: Mapping[str, Estimate] = field(default_factory=dict)
    curves: dict[str, host_overheads.Points] = field(default_factory=dict)
    replayed: list[Replayed] = field(default_factory=list)
    samples: list[OpSample] = field(default_factory=list)  # of replayed networks and of ops alone
    pairs: list[PairSample] = field(default_factory=list)
    steps: list[MeasuredStep] = field(default_factory=list)
    power: list[PowerSample] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here. Raises BadInput."""
    if device not in DEVICES:
        raise BadInput(f"device is {device!r}: a calibration runs on one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device 'cuda': torch finds no GPU here: calibrate where there is one, or --device cpu")


def calibrate(device: str, minutes: float = 5.0, *, progress: Progress = silent) -> tuple[Profile, bool]:
    """This machine's device, measured for about `minutes` and fitted; and whether it was interrupted.

    An interruption (Ctrl-C), a device that goes away or a time that runs out end the measuring, not the calibration:
    the profile holds what there is, and its `missing` says what there is not. Raises BadInput for a device that is not
    here or a time that is none, and KeyboardInterrupt where it came before anything could be fitted.
    """
    check_device(device)
    if not LEAST_MINUTES <= minutes < float("inf"):
        raise BadInput(f"minutes is {minutes:g}: at least {LEAST_MINUTES:g} are needed")
    with computing_threads(1):
        budget = Budget(60 * minutes)
        progress(f"measuring the {device}: overheads and figures")
        measured = Measured(device, THIS_MACHINE.device(device), THIS_MACHINE)
        interrupted = False
        try:
            for activity in _measuring(measured, budget, BRIEF if minutes <= SHORT_MINUTES else THOROUGH):
                progress(f"{activity} ({time_left(budget.left_s)})")
        except KeyboardInterrupt:
            interrupted = True
            measured.missed.append(Missed("the rest", "interrupted"))
        except DeviceLost as gone:
            measured.missed.append(Missed("the rest", f"the device is gone: {gone}"))
        if not measured.samples:
            if interrupted:
                raise KeyboardInterrupt
            raise BadInput(f"nothing could be measured on {device!r}: {_first(measured.missed)}")
        progress("fitting, some 20 s")
        return assembled(measured, brief=interrupted), interrupted


def _measuring(measured: Measured, budget: Budget, effort: Effort) -> Iterator[str]:
    """Measure into `measured`; yields what is being measured."""
    device, probes = measured.device, measured.probes
    clock: Clock = cuda_clock if device == "cuda" else cpu_clock
    with _missing_on_error(measured, "overheads"):
        measured.overheads = dict(probes.overheads(device, clock))
        warm, cold = probes.copy_curve(device, clock)
        measured.curves |= {"copy_bytes_per_s": warm, "copy_cold_bytes_per_s": cold}
        measured.overheads = {**measured.overheads, **host_overheads.capacities(warm, _CACHES[device])}
        if device == "cpu":
            measured.overheads = {**measured.overheads, "fault_s_per_byte": probes.page_fault()}
    if device == "cpu" and budget.left_s > _LEAST_S:
        with _missing_on_error(measured, "Python beside ops"):
            beside = probes.python(FEW_RUNS if budget.left_s < _LITTLE_S else RUNS)
            measured.overheads = {**measured.overheads, **beside}
            clock = PacedClock(beside[PACE].value)  # until it is known how kinds of ops slow down
    elif device == "cpu":
        measured.missed.append(Missed("Python beside ops", "the time was too short"))
    with _missing_on_error(measured, "matmul peaks"):
        measured.curves |= probes.matmul_peaks(device, clock)

    rest = 1.0
    if device == "cpu":
        yield from _replaying(measured, budget.share(_REPLAYS_SHARE))
        rest -= _REPLAYS_SHARE
    pace = measured.overheads.get(PACE)

    def clock_of(kind: str) -> Clock:
        return clock if pace is None else PacedClock(pace.value, exponent(measured.overheads, kind))

    ended = budget.share((rest - _STEPS_SHARE - _PAIRS_SHARE) / rest)
    todo = probes.suite(device)
    cases = sum(e.count for e in todo)
    last: OpSample | None = None
    op_count = 0
    for sample in probes.ops(todo, device, clock_of, ended, effort):
        if isinstance(sample, Missed):
            measured.missed.append(sample)
        else:
            measured.samples.append(sample)
            op_count += last is None or sample.op is not last.op
            last = sample
            yield f"measuring ops: {op_count} of {cases}"
    if ended():
        measured.missed.append(Missed(f"{cases - op_count} of {cases} ops", "the time was over"))

    if device == "cuda" or measured.base.lanes > 1:  # two threads on one core would take turns and share nothing
        yield "measuring pairs"
        ended = budget.share(_PAIRS_SHARE / (_STEPS_SHARE + _PAIRS_SHARE))
        with _missing_on_error(measured, "pairs"):
            for pair in probes.pairs(device, clock, ended):
                (measured.missed if isinstance(pair, Missed) else measured.pairs).append(pair)  # type: ignore[arg-type]
    networks = probes.networks(device)
    ended = budget.share(1.0)
    limit_s = min(STEP_LIMIT_S, budget.left_s / len(networks))
    for step in probes.steps(networks, device, SEED, ended, limit_s, None if pace is None else pace.value):
        if isinstance(step, Missed):
            measured.missed.append(step)
        else:
            measured.steps.append(step)
            yield f"measured step {step.sample.network}"
    if len(measured.steps) < len(networks) and ended():
        measured.missed.append(
            Missed(f"{len(networks) - len(measured.steps)} of {len(networks)} steps", "the time was over")
        )
    if device == "cuda":
        yield "measuring power"
        with _missing_on_error(measured, "energy"):
            for power in measured_power():
                (measured.missed if isinstance(power, Missed) else measured.power).append(power)  # type: ignore[arg-type]


def _replaying(measured: Measured, until: Callable[[], bool]) -> Iterator[str]:
    """Measure ops in their place in steps of drawn networks, as many as the time holds."""
    if PACE not in measured.overheads:
        measured.overheads = {**measured.overheads, PACE: Estimate(typical_pace_s())}
    replayed = measured.replayed
    error: float | None = None
    undisturbed = False
    try:
        for one in measured.probes.replays(measured.overheads[PACE].value, until, fault_s_per_byte(measured.overheads)):
            if isinstance(one, Missed):
                measured.missed.append(one)
            else:
                replayed.append(one)
                if len(replayed) >= _FEWEST_JUDGED and len(replayed).bit_count() == 1:  # at every doubling
                    error = _error_so_far(measured, replayed)
                so_far = "" if error is None else f"; expected error of an operation so far {error:.0%}"
                yield f"replayed {len(replayed)} networks (last: {one.network.name}){so_far}"
        undisturbed = True
    finally:
        mapped = [(one.graph, one.faulted_bytes) for one in replayed if one.faulted_bytes is not None]
        measured.overheads = {**measured.overheads, **fitted_mapped_block(mapped, rule_of(measured.base))}
        samples = tuple(_replayed_samples(measured, replayed))
        if undisturbed:  # who interrupts does not wait for another fit
            rough = _draft(replace(measured, samples=[*samples]), smooth=False)
            refined = exponents_between([*seconds_beside_fit(replayed, rough)], measured.overheads)
            measured.overheads = {**measured.overheads, **refined}
        measured.samples += op_samples(replayed, measured.overheads, cache_capacities(measured))


def _replayed_samples(measured: Measured, replayed: Sequence[Replayed]) -> Iterator[OpSample]:
    """Samples of the ops of replayed steps; how kinds of ops slow down with the machine goes into `measured`."""
    call = call_s(measured.overheads[PACE].value)
    exponents = fitted_exponents((one.work_by_kind(call), one.slowness) for one in replayed)
    measured.overheads = {**measured.overheads, **exponents}
    return op_samples(replayed, measured.overheads, cache_capacities(measured))


def _error_so_far(measured: Measured, replayed: Sequence[Replayed]) -> float | None:
    """How far a fit of what has been replayed is from the ops of the networks held out, typically."""
    samples = [*_replayed_samples(measured, replayed)]
    faults, limits = fault_s_per_byte(measured.overheads), cache_capacities(measured)
    isa = instruction_set(measured.base)
    return typical_error(errors_of_fits(fits(samples, limits, faults, isa), samples, limits, faults, isa))


def cache_capacities(measured: Measured) -> tuple[float, float]:
    """Bytes of the second-level and of the last cache, usual ones where they could not be measured."""
    l2, last = (
        measured.overheads[name].value if name in measured.overheads else float(usual)
        for name, usual in zip(_CAPACITIES, _CACHES[measured.device], strict=True)
    )
    return l2, last


@contextlib.contextmanager
def _missing_on_error(measured: Measured, part: str) -> Iterator[None]:
    """A part that fails is missed, and the rest goes on; a device that is gone ends it all."""
    try:
        yield
    except Exception as error:
        # whatever a library raises here costs this part alone, and is written into the profile
        measured.missed.append(Missed(part, reason_missed(error)))


def assembled(measured: Measured, *, brief: bool = False) -> Profile:
    """The profile of what was measured; `brief`: in some seconds, by prices alone, with the usual intervals."""
    profile = _draft(measured, smooth=not brief)
    corrected, steps = corrections(profile, measured.steps)
    factor = None if brief else _interval_factor(profile, measured)
    corrected = corrected if factor is None else {**corrected, "interval_factor": factor}
    return replace(profile, corrections=corrected, steps=steps, device=fitted_power(profile.device, measured.power))


def _draft(measured: Measured, *, smooth: bool = True) -> Profile:
    """The profile without what whole steps tell."""
    limits = cache_capacities(measured)
    overheads = dict(measured.overheads)
    for name, limit in zip(_CAPACITIES, limits, strict=True):
        overheads.setdefault(name, Estimate(limit))
    isa = instruction_set(measured.base)
    return Profile(
        device=with_sharing(measured.base, measured.pairs, limits[1]),
        environment=environment(measured.device, 1),
        host=overheads,
        fits=fits(measured.samples, limits, fault_s_per_byte(overheads), isa, smooth=smooth),
        corrections={},
        curves=dict(measured.curves),
        samples=tuple(measured.samples),
        pairs=tuple(measured.pairs),
        steps=(),
        held_in=tuple(dict.fromkeys(s.sample.network.split()[0] for s in measured.steps)),
        missing=_missing(measured),
        seed=SEED,
    )


def _interval_factor(profile: Profile, measured: Measured) -> Estimate | None:
    """The factor of expected errors that families of replayed networks show which a fit had not seen."""
    limits = cache_capacities(measured)
    of_network = network_samples(measured.replayed, profile.host, limits)
    alone = [s for s in profile.samples if s.fetched_bytes is None]

    def refitted(names: Sequence[str]) -> Profile:
        samples = (*enough(of_network[name] for name in names), *alone)
        isa = instruction_set(profile)
        refit = fits(samples, limits, fault_s_per_byte(profile.host), isa, smooth=False)
        return replace(profile, samples=samples, fits=refit)

    return interval_factor(measured.replayed, refitted)


def _missing(measured: Measured) -> tuple[str, ...]:
    """What was not measured, each with its reason; cases of one entry that failed alike in one line."""
    counts = Counter((m.case, m.reason) for m in measured.missed)
    return tuple(f"{case}: {reason}" + (f" ({n} times)" if n > 1 else "") for (case, reason), n in counts.items())


def _first(missed: list[Missed]) -> str:
    return f"{missed[0].case}: {missed[0].reason}" if missed else "the time was too short: give more --minutes"
