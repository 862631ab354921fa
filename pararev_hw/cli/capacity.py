"""The verb `capacity`: the largest batch, or number of time steps, that fits into a device's memory."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from pararev_hw.cli.console import out, print_json, progress
from pararev_hw.cli.inputs import hardware_named
from pararev_hw.cli.options import DeviceOpt, JsonOpt, MemoryLimitOpt, NetworkOptions, TargetArg, grouped, parsed_limit
from pararev_hw.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from pararev_hw.types import BlockGraph

_SIZES = ("batch", "timesteps")


@grouped
def capacity(
    target: TargetArg,
    step: NetworkOptions,
    device: DeviceOpt = "h200",
    of: Annotated[str, typer.Option("--of", help="What grows: batch, or timesteps at the given batch.")] = "batch",
    memory_limit: MemoryLimitOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Find the largest batch (or number of time steps) of TARGET that fits into a device's memory."""
    from pararev_hw import capacity as capacities
    from pararev_hw.devices import bare_device
    from pararev_hw.reports import units
    from pararev_hw.target_graph import build_graph

    if of not in _SIZES:
        raise unknown_name("size", of, _SIZES)
    options = replace(step.parsed(), spikes="none")
    if getattr(options, of) is not None:
        raise BadInput(f"--{of} is what capacity searches for: leave it out")
    limit = parsed_limit(memory_limit)
    with progress() as tell:
        hardware = hardware_named(device, tell)

        def make(size: int) -> BlockGraph:
            tell(f"tracing {of} {size}")
            sized = replace(options, batch=size) if of == "batch" else replace(options, timesteps=size)
            return build_graph(target, sized, device=hardware)

        largest = capacities.capacity(make, bare_device(hardware), limit_bytes=limit, of=of)
    if json_:
        print_json({"device": hardware.name, "of": of, **asdict(largest)})
        return
    memory, more = largest.memory, largest.next_memory
    out.print(f"{of} {largest.size}: {units.size(memory.least_bytes)} of {units.size(largest.limit_bytes)}")
    if more is not None:
        out.print(f"{of} {largest.size + 1} and above do not fit")
    if largest.line:
        sizes = ", ".join(map(str, largest.line))
        out.print(
            f"read off a line through {of} {sizes}, whose memory was traced: {largest.size} has too many operations"
        )
    out.print(f"tensors at the peak {units.size(memory.peak_bytes)}")
    if memory.process_bytes != memory.peak_bytes:
        out.print(f"process, as the driver shows it {units.size(memory.process_bytes)}")
