"""The largest batch, or number of time steps, whose step fits into a device's memory.

Memory grows nearly in proportion: two traces give the slope, and each further one is at the size where the line through
what is known meets the limit, until the size that fits and the one that does not are neighbours.

A trace takes as long as it has time steps. So of these a few are traced, each four times as many as before, until three
lie on one line; where it meets the limit is checked by traces of that size and the next, unless those have too many
operations: then the line's word is taken, and `Capacity.line` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes
from pararev_hw.costmodels.gpu.model import has_law, need_datatypes
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.graph.process_memory import CONTEXT_BYTES, ProcessMemory, process_memory, process_within
from pararev_hw.prediction import memory_curve
from pararev_hw.reports import units
from pararev_hw.types import BlockGraph, Device, Placement

_LESS = "a smaller network or a 16-bit datatype"
MOST = 1 << 20  # a size beyond which nobody asks
STEADY = 1e-3  # relative: by how much the slopes of a line may differ
MOST_OPS_CHECKED = 300_000  # of a step that is traced to check a line: some twenty seconds


@dataclass(frozen=True, slots=True)
class Capacity:
    """`size` fits and `size + 1` does not (None: everything up to MOST does). `line` are sizes that were traced: where
    there are any, `size` was not, but was read off the line through them."""

    size: int
    memory: ProcessMemory
    next_memory: ProcessMemory | None
    limit_bytes: int
    traces: int
    line: tuple[int, ...] = ()


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
    traced = _Traced(make, needs_of, device)
    low, high = 0, MOST + 1  # fits, does not fit
    guess = 2  # batch normalisation refuses to train on one value
    while high - low > 1:
        room = high - low
        if traced.needs(guess) <= limit:
            low = guess
        else:
            high = guess
        guess = _next(traced.memory, limit, low, high)
        if high - low > room / 2 and high <= MOST:  # another part of the step sets the peak than where the line goes
            guess = (low + high) // 2
        if of == "timesteps" and high > MOST:  # all that was tried fits
            line = _line(traced.memory)
            guess = _where_it_meets(traced.memory, line, limit) if line else min(guess, 4 * low)
            if line and _at(traced.ops, line, guess) > MOST_OPS_CHECKED:
                return _read_off(traced, line, guess, limit)
            guess = max(guess, low + 1)
    if low == 0:
        smallest = "batch 1" if of == "batch" else "1 time step"
        raise Infeasible(_refusal(smallest, traced.memory[1], device, limit))
    within = process_within(traced.memory[low], device.get("memory_bytes", math.inf))
    return Capacity(low, within, traced.memory.get(high), limit, len(traced.memory))


@dataclass(frozen=True, slots=True)
class _Traced:
    """Steps of the sizes that were asked for: what memory they need, and how many operations they have."""

    make: Callable[[int], BlockGraph]
    needs_of: Callable[[BlockGraph, Device], ProcessMemory]
    device: Device
    memory: dict[int, ProcessMemory] = field(default_factory=dict)
    ops: dict[int, int] = field(default_factory=dict)

    def needs(self, size: int) -> int:
        if size not in self.memory:
            graph = self.make(size)
            self.memory[size], self.ops[size] = self.needs_of(graph, self.device), len(graph.ops)
        return self.memory[size].least_bytes


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
    nearest = sorted(memory_by_size, key=lambda size: (abs(memory_by_size[size].least_bytes - limit), -size))
    a, b = sorted(nearest[:2])
    slope = (memory_by_size[b].least_bytes - memory_by_size[a].least_bytes) / (b - a)
    reach = b + (limit - memory_by_size[b].least_bytes) / slope if slope > 0 else 2 * b
    guess = min(max(int(reach), low), high - 1)
    return guess if guess > low else low + 1


def _line(memory_by_size: Mapping[int, ProcessMemory]) -> tuple[int, ...]:
    """The three largest sizes, where their memory lies on a line; else none."""
    sizes = sorted(memory_by_size)[-3:]
    a, *rest = (memory_by_size[size].least_bytes for size in sizes)
    if len(rest) < 2:
        return ()
    first, second = (rest[0] - a) / (sizes[1] - sizes[0]), (rest[1] - rest[0]) / (sizes[2] - sizes[1])
    return tuple(sizes) if second >= 0 and abs(second - first) <= STEADY * second else ()


def _where_it_meets(memory_by_size: Mapping[int, ProcessMemory], line: Sequence[int], limit: int) -> int:
    """The last size on a line within the limit, at most MOST."""
    _, a, b = line
    grows = memory_by_size[b].least_bytes - memory_by_size[a].least_bytes
    return min(MOST, b + (limit - memory_by_size[b].least_bytes) * (b - a) // grows) if grows else MOST


def _at(number_by_size: Mapping[int, int], line: Sequence[int], size: int) -> int:
    """A number that grows in proportion, at a size of the line."""
    _, a, b = line
    return number_by_size[b] + (number_by_size[b] - number_by_size[a]) * (size - b) // (b - a)


def _read_off(traced: _Traced, line: Sequence[int], size: int, limit: int) -> Capacity:
    """What the line says of a size, and of the next: on a GPU up to what its allocator rounds."""

    def memory(at: int) -> ProcessMemory:
        by_name = {f.name: {s: getattr(traced.memory[s], f.name) for s in line} for f in fields(ProcessMemory)}
        return ProcessMemory(**{name: _at(by_size, line, at) for name, by_size in by_name.items()})

    within = process_within(memory(size), traced.device.get("memory_bytes", math.inf))
    following = None if size == MOST else memory(size + 1)
    return Capacity(size, within, following, limit, len(traced.memory), tuple(line))
