"""Measuring one thing well: warm-up, repeats until the median is known, every sample kept, noise noticed.

A clock runs a function some times over and gives wall seconds and busy seconds. On a CPU busy is the time during which
this thread really held the core: a sample whose wall time exceeds it was disturbed by another process and is taken
again. On a GPU both are the time between two CUDA events.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

CONFIDENCE = 0.02  # half-width of the median's 95 % interval, relative, at which measuring stops
SPREAD_LIMIT = 0.10  # interquartile range over median above which the machine counts as noisy
MIN_SAMPLES, MAX_SAMPLES = 5, 60
BATCH_S = 200e-6  # the clock's own cost, under 1 us, is then below half a percent
_DISTURBED = 1.02  # wall over busy time beyond which another process had the core
_DISTURBED_S = 3e-6

Run = Callable[[], object]


class Clock(Protocol):
    """`(wall seconds, busy seconds)` of `count` runs of a function."""

    def __call__(self, run: Run, count: int) -> tuple[float, float]: ...


def cpu_clock(run: Run, count: int) -> tuple[float, float]:
    """Wall time and this thread's own time: for work that this thread does alone."""
    wall, busy = time.perf_counter(), time.thread_time()
    for _ in range(count):
        run()
    busy = time.thread_time() - busy
    return time.perf_counter() - wall, busy


def wall_clock(run: Run, count: int) -> tuple[float, float]:
    """Wall time alone: for work that several threads share, where nobody can tell waiting from being disturbed."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    wall = time.perf_counter() - begin
    return wall, wall


def cuda_clock(run: Run, count: int) -> tuple[float, float]:
    """Device time of kernels between two events on the current stream, the host's launches hidden.

    A queued kernel lets the host get ahead, so that the runs follow each other without gaps.
    """
    import torch  # heavy, and a CPU's clock needs none of it

    from pararev_hw.torch_private import occupy_gpu

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    occupy_gpu(200_000)  # cycles, ~0.1 ms
    begin.record()
    for _ in range(count):
        run()
    end.record()
    end.synchronize()
    seconds = begin.elapsed_time(end) / 1e3
    return seconds, seconds


def cuda_step_clock(run: Run, count: int) -> tuple[float, float]:
    """Time from an idle device to an idle device: what a user waits for, launches included where they take longer."""
    import torch  # heavy, and a CPU's clock needs none of it

    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    wall = time.perf_counter() - begin
    return wall, wall


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per run, every undisturbed sample in the order taken. `noisy`: the spread stayed above the limit."""

    seconds: tuple[float, ...]
    noisy: bool
    disturbed: int  # samples during which another process had the core
    faulted_bytes: int  # memory that the operating system mapped in, per run

    @property
    def median_s(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2]

    @property
    def min_s(self) -> float:
        return min(self.seconds)

    @property
    def half_width(self) -> float:
        """Half-width of the median's 95 % confidence interval, as a share of the median."""
        return half_width(self.seconds)


def measure(
    run: Run,
    clock: Clock,
    *,
    limit_s: float = 0.25,
    batch_s: float = BATCH_S,
    before: Run | None = None,
    min_samples: int = MIN_SAMPLES,
    most_s: float = math.inf,
) -> Timing:
    """The time of one run: warmed up, then sampled until the median's 95 % interval is within CONFIDENCE of it, a
    noisy set once more from the start, all within about `limit_s` and never less than `min_samples` samples.

    `before` runs outside the timing ahead of every sample, which then is a single run: it may empty the caches. A run
    so long that its samples would take more than `most_s` is sampled less often, at least once.
    """
    once = clock(run, 1)[0]
    if once < most_s:
        once = min(once, clock(run, 1)[0])
    min_samples = max(1, min(min_samples, int(min(most_s / max(once, 1e-9), 1e6))))
    count = 1 if before is not None else max(1, min(10_000, math.ceil(batch_s / max(once, 1e-8))))
    deadline = time.perf_counter() + limit_s
    first = _sampled(run, clock, count, deadline, before, min_samples)
    if not first.noisy or time.perf_counter() > deadline:
        return first
    again = _sampled(run, clock, count, deadline, before, min_samples)
    return again if spread(again.seconds) <= spread(first.seconds) else first


def _sampled(run: Run, clock: Clock, count: int, deadline: float, before: Run | None, min_samples: int) -> Timing:
    clean: list[float] = []
    busy_of_disturbed: list[float] = []
    faulted: list[int] = []
    while len(clean) < MAX_SAMPLES:
        sample_count = len(clean) + len(busy_of_disturbed)
        if sample_count >= min_samples and time.perf_counter() > deadline:
            break
        if len(clean) >= min_samples and half_width(clean) <= CONFIDENCE:
            break
        if before is not None:
            before()
        before_bytes = mapped_in_bytes()
        wall, busy = clock(run, count)
        faulted.append((mapped_in_bytes() - before_bytes) // count)
        disturbed = wall > busy * _DISTURBED + _DISTURBED_S
        (busy_of_disturbed if disturbed else clean).append((busy if disturbed else wall) / count)
    # where most samples were disturbed, the time the thread had for itself is the best that is known
    used = clean if len(clean) >= max(1, min_samples - 2) else clean + busy_of_disturbed
    mapped_bytes = sorted(faulted)[len(faulted) // 2]
    return Timing(tuple(used), spread(used) > SPREAD_LIMIT, len(busy_of_disturbed), mapped_bytes)


def mapped_in_bytes() -> int:
    """Memory that this thread had mapped in so far without a disk."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt * resource.getpagesize()


def half_width(seconds: Sequence[float]) -> float:
    """Half-width of the median's 95 % interval over the median, from the interquartile range (normal samples)."""
    return 1.96 * 1.253 * (spread(seconds) / 1.349) / math.sqrt(len(seconds))


def spread(seconds: Sequence[float]) -> float:
    """Interquartile range over median."""
    ordered = sorted(seconds)
    n = len(ordered)
    middle = ordered[n // 2]
    return (ordered[(3 * n) // 4] - ordered[n // 4]) / middle if middle > 0 else 0.0
