"""The largest batch, or number of time steps, whose step fits into a device's memory.

Memory grows nearly in proportion: two traces give the slope, and each further one is at the size where the line through
what is known meets the limit, until the size that fits and the one that does not are neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes
from pararev_hw.costmodels.gpu.model import has_law, need_datatypes
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.graph.process_memory import CONTEXT_BYTES, ProcessMemory, process_memory, process_within
from pararev_hw.prediction import memory_curve
from pararev_hw.reports import units
from pararev_hw.types import BlockGraph, Device, Placement

_LESS = "a smaller network or a 16-bit datatype"
MOST = 1 << 20  # a size beyond which nobody asks


@dataclass(frozen=True, slots=True)
class Capacity:
    """`size` fits and `size + 1` does not (None: everything up to MOST does)."""

    size: int
    memory: ProcessMemory
    next_memory: ProcessMemory | None
    limit_bytes: int
    traces: int


def memory_of(graph: BlockGraph, device: Device) -> ProcessMemory:
    """Memory of the process that takes this step: on a CPU, and on an accelerator, the tensors alone."""
    if device.kind == "gpu":
        if has_law(device):
            need_datatypes(graph, device)
        return process_memory(eager_peak_bytes(graph, "gpu"))
    return tensors_of(graph, device)


def tensors_of(graph: BlockGraph, device: Device) -> ProcessMemory:
    """Memory of the tensors alone, one task at a time: as Python lets go of them, or, where the device plans its
    memory, from the task that makes each to the last that needs it."""
    peak = graph.memory.peak_bytes
    if device.plans_memory:
        one_by_one = [Placement(task.id, 0, float(k), float(k + 1)) for k, task in enumerate(graph.tasks)]
        peak = memory_curve(graph, one_by_one, float(len(graph.tasks)), None).peak_bytes
    return ProcessMemory(peak, peak, peak, peak)


def capacity(
    make: Callable[[int], BlockGraph],
    device: Device,
    *,
    limit_bytes: int | None = None,
    needs_of: Callable[[BlockGraph, Device], ProcessMemory] = memory_of,
    of: str = "batch",
) -> Capacity:
    """The largest size whose step, `make(size)`, fits into the device's memory, or into `limit_bytes` of it.

    `of` names the sizes. Raises Infeasible with what is needed and what there is where not even size 1 fits.
    """
    limit = int(
        device.value("memory_bytes")
        if limit_bytes is None
        else min(limit_bytes, device.get("memory_bytes", limit_bytes))
    )
    if limit < 1:
        raise BadInput(f"a memory limit is {limit} bytes: it must be at least 1")
    memory_by_size: dict[int, ProcessMemory] = {}

    def needs(size: int) -> int:
        if size not in memory_by_size:
            memory_by_size[size] = needs_of(make(size), device)
        return memory_by_size[size].least_bytes

    low, high = 0, MOST + 1  # fits, does not fit
    guess = 2  # batch normalisation refuses to train on one value
    while high - low > 1:
        room = high - low
        if needs(guess) <= limit:
            low = guess
        else:
            high = guess
        guess = _next(memory_by_size, limit, low, high)
        if high - low > room / 2 and high <= MOST:  # another part of the step sets the peak than where the line goes
            guess = (low + high) // 2
    if low == 0:
        raise Infeasible(_refusal("batch 1" if of == "batch" else "1 time step", memory_by_size[1], device, limit))
    within = process_within(memory_by_size[low], device.get("memory_bytes", math.inf))
    return Capacity(low, within, memory_by_size.get(high), limit, len(memory_by_size))


def _refusal(smallest: str, memory: ProcessMemory, device: Device, limit: int) -> str:
    """What the smallest size needs, what there is and who says so, and what would help."""
    digits = units.digits_apart(limit, [memory.least_bytes])
    there, needed = units.size(limit, digits), units.size(memory.least_bytes, digits)
    if memory.least_bytes > memory.peak_bytes:
        needed += f" ({units.size(CONTEXT_BYTES)} of it CUDA's context and libraries)"
    if limit < device.get("memory_bytes", limit + 1):
        return (
            f"{smallest} needs {needed} on {device.name}, and the limit given is {there}: raise it, or choose {_LESS}"
        )
    return f"{smallest} needs {needed}, and {device.name} has {there}: choose {_LESS}, or a device with more memory"


def _next(memory_by_size: dict[int, ProcessMemory], limit: int, low: int, high: int) -> int:
    """The size to try: on the line through the two sizes that are known nearest to the limit."""
    if len(memory_by_size) == 1:
        return 8 if low else 1
    a, b = sorted(sorted(memory_by_size, key=lambda size: abs(memory_by_size[size].least_bytes - limit))[:2])
    slope = (memory_by_size[b].least_bytes - memory_by_size[a].least_bytes) / (b - a)
    reach = b + (limit - memory_by_size[b].least_bytes) / slope if slope > 0 else 2 * b
    guess = min(max(int(reach), low), high - 1)
    return guess if guess > low else low + 1
