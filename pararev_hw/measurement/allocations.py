"""What the CPU's allocator gives out while something runs, as torch's profiler records it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable


def allocated_bytes(run: Callable[[], object]) -> tuple[int, int]:
    """The most bytes alive at once of what `run` allocates, and those still alive when it returns."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else torch's profiler talks on stderr
    from torch.profiler import ProfilerActivity, profile  # heavy, and only a measurement needs it

    enabled = gc.isenabled()
    gc.disable()  # tensors in reference cycles then die, or not, the same way every time
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
            result = run()
    finally:
        if enabled:
            gc.enable()
    del result  # only now: it is what is left alive
    live = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most, live
