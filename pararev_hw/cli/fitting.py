"""What to do about a step that does not fit: the largest batch that does, added to the refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pararev_hw.errors import Infeasible, PararevError
from pararev_hw.progress import Progress

if TYPE_CHECKING:
    from pararev_hw.trace_options import TraceOptions
    from pararev_hw.types import BlockGraph, Hardware


@contextlib.contextmanager
def largest_batch_named(
    target: str | None, hardware: Hardware, limit: int | None, options: TraceOptions, tell: Progress
) -> Iterator[None]:
    """Infeasible raised inside says as well which batch would fit. No target: the step is a file's, of one batch."""
    try:
        yield
    except Infeasible as error:
        from pararev_hw import capacity
        from pararev_hw.devices import bare_device
        from pararev_hw.target_graph import build_graph

        device = bare_device(hardware)
        if target is None or device.kind == "neuromorphic":  # which holds neurons, not a batch
            raise

        def make(size: int) -> BlockGraph:
            tell(f"tracing batch {size}")
            return build_graph(target, replace(options, spikes="none", batch=size), device=hardware)

        try:
            largest = capacity.capacity(make, device, limit_bytes=limit, needs_of=capacity.tensors_of).size
        except PararevError:
            raise Infeasible(f"{error}; not even a batch of 1 would fit") from None
        allocator = " (`capacity` counts what the allocator holds as well)" if device.kind == "gpu" else ""
        raise Infeasible(f"{error}; the largest batch whose tensors fit is {largest}{allocator}") from None
