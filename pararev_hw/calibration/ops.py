"""Measuring the ops of the suite, one after the other, warm and cold, until the time is over."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pararev_hw.calibration.cases import Case
from pararev_hw.calibration.failures import reason_missed
from pararev_hw.calibration.suite import SEED, SuiteEntry, in_turn
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.measurement import Clock, Timing, measure
from pararev_hw.types import OpSample

FLUSH_BYTES = 64 << 20  # twice a large last cache
COLD_SAMPLES = 4
MOST_S = 0.2  # of the samples of one slow op
_LOW_PRECISION = ("bfloat16", "float16")
_LOW_PRECISION_SHARE = 0.15  # of the time, as long as there are others to measure
_SLOW_S = 0.1  # an op so slow does not depend on whether its data were in a cache
_UNTOUCHED = ("view", "host")  # kinds whose time does not depend on where their data are


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds of an op's samples with its data in the caches and beyond them; of `cold_every` cases of an entry one is
    measured beyond them as well."""

    warm_s: float
    cold_s: float
    cold_every: int


THOROUGH, BRIEF = Effort(0.04, 0.06, 1), Effort(0.02, 0.04, 3)


@dataclass(frozen=True, slots=True)
class Missed:
    """A case that was not measured, with its reason."""

    case: str
    reason: str


def measured_ops(
    entries: Sequence[SuiteEntry],
    device: str,
    clock_of: Callable[[str], Clock],
    until: Callable[[], bool],
    effort: Effort = THOROUGH,
) -> Iterator[OpSample | Missed]:
    """Samples of the suite's cases in turn, while `until` does not say that the time is over, each by the clock of its
    kind. Where it is short, a BRIEF effort tells more: more shapes, each less well known.

    A case that raises is missed and the rest go on; DeviceLost is raised where the device itself is gone.
    """
    generator = torch.Generator().manual_seed(SEED)
    flush = _flush(device)
    spent: dict[str, float] = defaultdict(float)  # seconds by datatype
    cases_of: Counter[str] = Counter()
    postponed: deque[tuple[SuiteEntry, Case, bool]] = deque()
    first_pass = in_turn(entries)
    over = False  # the first pass, in which slow datatypes wait
    while True:
        todo = None if over else next(first_pass, None)
        over = over or todo is None
        todo = postponed.popleft() if todo is None and postponed else todo
        if todo is None:
            return
        if until():
            return
        entry, case, held_out = todo
        dtype = case.operands[0].dtype if case.operands else "float32"
        total = sum(spent.values())
        if not over and dtype in _LOW_PRECISION and spent[dtype] > _LOW_PRECISION_SHARE * total:
            postponed.append(todo)  # a CPU without such units takes many times as long: fast datatypes come first
            continue
        begun = time.perf_counter()
        try:
            is_cold_too = cases_of[entry.name] % effort.cold_every == 0
            cases_of[entry.name] += 1
            run = case.call(device, generator)
            yield from _measured(case, held_out, run, clock_of, flush if is_cold_too else None, effort)
        except Exception as error:
            # a library may refuse a shape with any error; what it said goes into the profile
            yield Missed(entry.name, reason_missed(error))
        spent[dtype] += time.perf_counter() - begun


def _measured(
    case: Case,
    held_out: bool,
    run: Callable[[], object],
    clock_of: Callable[[str], Clock],
    flush: Callable[[], object] | None,
    effort: Effort,
) -> Iterator[OpSample]:
    """Samples of an op with its data in the caches, and beyond them where `flush` empties them."""
    kind = case.op_type()
    clock = clock_of(family(kind))
    with torch.no_grad():
        timings = [(False, measure(run, clock, limit_s=effort.warm_s, most_s=MOST_S))]
        if flush is not None and kind.kind not in _UNTOUCHED and timings[0][1].min_s < _SLOW_S:
            cold = measure(run, clock, limit_s=effort.cold_s, before=flush, min_samples=COLD_SAMPLES, most_s=MOST_S)
            timings.append((True, cold))
    for cold_, timing in timings:
        yield OpSample(
            op=kind,
            cold=cold_,
            held_out=held_out,
            noisy=timing.noisy,
            seconds=rounded(timing),
            faulted_bytes=timing.faulted_bytes,
            density=case.density,
        )


def rounded(timing: Timing) -> tuple[float, ...]:
    """Samples to four digits: the fifth is noise, and profiles are files."""
    return tuple(float(f"{s:.4g}") for s in timing.seconds)


def _flush(device: str) -> Callable[[], object]:
    """What empties the caches of what was there before."""
    filler = torch.zeros(FLUSH_BYTES // 4, device=device)
    return lambda: filler.add_(1.0)


class Budget:
    """Seconds that are left, and who may use how much of them."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - time.perf_counter())

    def share(self, part: float) -> Callable[[], bool]:
        """Says when that part of what is left now is over."""
        end = time.perf_counter() + part * self.left_s
        return lambda: time.perf_counter() >= end
