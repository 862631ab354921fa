"""Memory of a whole process on a GPU, from the peak of the tensors that a step has alive.

    least bytes = context + (1 + slack) x peak        what the card must have for the step to run
    reserved    = 1.14 x peak                         what PyTorch's caching allocator holds when there is room to spare
    process     = reserved + 1,900 MiB                what the driver shows then: with the context and the libraries

The context holds the driver's, cuBLAS's and cuDNN's own memory and a convolution's workspace, the slack what PyTorch's
caching allocator loses to rounding and fragments when it has to. Both were set on half of the batch sizes of timm's
tables on a 24 GB card (Apache-2.0); by `benchmarks/published_memory.py` 258 of 271 networks fit at the batch given and
not at the next larger one. The driver's view is a published fit over 4,330 networks on an A100 (median error 4.7 %).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CONTEXT_BYTES = int(1.3 * 2**30)
SLACK = 0.03
RESERVED_SHARE, LIBRARY_BYTES = 1.14, 1900 * 2**20
PROCESS_SOURCE = "published fit over 4,330 training runs on an A100, median error 4.7 %"


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """`least_bytes`: what the step needs at least. `reserved_bytes` and `process_bytes`: what the caching allocator
    holds and the driver shows with room to spare."""

    peak_bytes: int
    least_bytes: int
    reserved_bytes: int
    process_bytes: int


def process_memory(peak_bytes: int) -> ProcessMemory:
    """The memory of a process whose tensors peak at so many bytes."""
    return ProcessMemory(
        peak_bytes=peak_bytes,
        least_bytes=CONTEXT_BYTES + round((1 + SLACK) * peak_bytes),
        reserved_bytes=round(RESERVED_SHARE * peak_bytes),
        process_bytes=LIBRARY_BYTES + round(RESERVED_SHARE * peak_bytes),
    )


def process_within(memory: ProcessMemory, card_bytes: float) -> ProcessMemory:
    """The memory of a process that fits into a card of so much memory: where there is no room to spare, the caching
    allocator gives back what no tensor needs."""
    process = min(memory.process_bytes, card_bytes)
    reserved = min(memory.reserved_bytes, card_bytes - (memory.process_bytes - memory.reserved_bytes))
    reserved = max(reserved, memory.peak_bytes)
    return replace(memory, reserved_bytes=int(reserved), process_bytes=int(process))


def largest_peak_bytes(memory_bytes: int) -> int:
    """The largest peak of tensors that a card of so much memory can hold."""
    return int((memory_bytes - CONTEXT_BYTES) / (1 + SLACK))
