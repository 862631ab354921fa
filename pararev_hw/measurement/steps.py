"""Whole training or inference steps in the steady state: what a prediction is held against."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pararev_hw.measurement.clock import Clock, Run, Timing, cpu_clock, cuda_step_clock, measure, wall_clock
from pararev_hw.training.collection import no_collection

WARM_UP_STEPS = 3  # first: optimizer state and library kernels are made; second: the allocator settles; one to spare
MIN_STEPS = 7
_LARGE_BLOCK_BYTES = (32 << 20) - (64 << 10)  # just below glibc's DEFAULT_MMAP_THRESHOLD_MAX


def step_clock(device: str, threads: int = 1) -> Clock:
    """The clock for whole steps on that torch device ("cpu", "cuda")."""
    if device.startswith("cuda"):
        return cuda_step_clock
    return cpu_clock if threads == 1 else wall_clock


def measure_step(
    run: Run, clock: Clock, *, limit_s: float = 10.0, warm_up: int = WARM_UP_STEPS, min_steps: int = MIN_STEPS
) -> Timing:
    """The time of one step: `run` is the whole step, called again and again in the state that it leaves.

    After `warm_up` untimed steps at least `min_steps` are timed, more until the median is known or `limit_s` seconds
    are over, while the garbage collector rests. The C library's allocator is brought into the state that it keeps from
    then on. Use it inside `computing_threads`. Raises what `run` raises.
    """
    settle_allocator()
    begun = time.perf_counter()
    for _ in range(warm_up):
        run()
    with collector_at_rest():
        left_s = max(limit_s - (time.perf_counter() - begun), 0.0)
        return measure(run, clock, limit_s=left_s, batch_s=0.0, min_samples=min_steps)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Python's garbage collector runs before and rests meanwhile, so that no step pays for another's garbage."""
    gc.collect()
    with no_collection():
        yield


def settle_allocator() -> None:
    """Lets a large block go.

    Until a process has done that once, glibc gives memory back to the operating system after nearly every step and
    maps it in again in the next: mallopt(3), M_MMAP_THRESHOLD, "dynamic". Which network ran before would then decide
    how long a step takes. Other allocators do not mind.
    """
    import torch  # heavy, and only a measurement needs it

    torch.empty(_LARGE_BLOCK_BYTES, dtype=torch.uint8)


@contextmanager
def computing_threads(count: int = 1) -> Iterator[None]:
    """Lets torch compute with `count` threads inside, and restores what was set."""
    import torch  # heavy, and only a measurement needs it

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
