"""One step under torch's profiler: its trace, and how far operations of different lanes ran side by side in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from pararev_hw.atomic import is_stream, real_path
from pararev_hw.errors import BadFile
from pararev_hw.execution.overlap import side_by_side
from pararev_hw.torch_private import profile_every_thread


def profiled_overlap(step: Callable[[], object], trace: Path | None, *, on_gpu: bool = False) -> float:
    """Share of the time with any operation during which operations of at least two lanes ran; written to `trace` as
    what chrome://tracing and ui.perfetto.dev open.

    A lane is a thread of the CPU or a stream of the GPU. The profiler slows small operations down: for the share of
    a step as it runs by itself, see the times of its tasks. Raises BadFile where the trace cannot be written.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, experimental_config=profile_every_thread(), acc_events=True) as profiled:
        step()
    lanes: dict[int, list[tuple[float, float]]] = {}
    for event in profiled.profiler.kineto_results.events():
        on_device = "CUDA" in str(event.device_type())
        if on_device == on_gpu and event.duration_ns() > 0 and (on_gpu or event.name().startswith("aten::")):
            lane = event.device_resource_id() if on_gpu else event.start_thread_id()
            begin_s = event.start_ns() / 1e9
            lanes.setdefault(lane, []).append((begin_s, begin_s + event.duration_ns() / 1e9))
    if trace is not None:
        draft = trace if is_stream(trace) else trace.with_name(f".{os.getpid()}.{trace.name}")  # its ending says how
        try:
            profiled.export_chrome_trace(str(draft))
            if draft != trace:
                draft.replace(real_path(trace))
        except (OSError, RuntimeError) as error:
            raise BadFile(f"cannot write {str(trace)!r}: {error}") from error
        finally:
            if draft != trace:
                draft.unlink(missing_ok=True)
    any_s, both_s = side_by_side(list(lanes.values()))
    return both_s / any_s if any_s > 0 else 0.0
