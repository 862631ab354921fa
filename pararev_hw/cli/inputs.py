"""What a verb reads: devices by name or file, graphs from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pararev_hw.api.machines import cache_folder as cache_folder
from pararev_hw.errors import BadFile, BadInput, unknown_name
from pararev_hw.progress import Progress

if TYPE_CHECKING:
    from pararev_hw.cli.options import MachineOptions
    from pararev_hw.types import BlockGraph, Hardware


def machine_named(name: str, machine: MachineOptions, tell: Progress) -> Hardware:
    """The device or profile of that name, used as the options say.

    Raises BadInput where a device that is no neuromorphic chip is given chips or a learning rule.
    """
    from pararev_hw.costmodels.neuromorphic.chip import learning, several_chips
    from pararev_hw.devices import bare_device

    hardware = hardware_named(name, tell, machine.host, machine.lanes)
    if machine.chips is not None:
        hardware = several_chips(bare_device(hardware), machine.chips)
    return hardware if machine.learning_rule is None else learning(bare_device(hardware), machine.learning_rule)


def hardware_named(name: str, tell: Progress, host: str | None = None, lanes: int | None = None) -> Hardware:
    """The device or profile of that name, launched by that host where one is named; "cpu" with so many lanes."""
    from pararev_hw.pipeline import find_device

    if name != "cpu":
        from pararev_hw.devices import load_host, with_host
        from pararev_hw.types import Device

        hardware = find_device(name)
        if host is None:
            return hardware
        if not isinstance(hardware, Device):
            raise BadInput(f"{name} was measured with its own host: leave --host out")
        return with_host(hardware, load_host(host))
    if host is not None:
        raise BadInput("a CPU is its own host: leave --host out")
    return find_device(name, lanes=lanes or 1, cache=cache_folder(), progress=tell)


def measured_for(
    graph: BlockGraph,
    hardware: Hardware,
    tell: Progress,
    seconds: float = 10.0,
    in_turns: Callable[[], None] = lambda: None,
) -> Hardware:
    """The device with the times of the graph's own operations, measured on this machine for about so many seconds;
    `in_turns` runs before each replay of the step."""
    from pararev_hw.cli.console import say
    from pararev_hw.execution.measured_device import measured_device

    return measured_device(
        graph, hardware, folder=cache_folder(), seconds=seconds, progress=tell, warn=say, in_turns=in_turns
    )


# endings of networks, and of weights, of which the tracer says what they lack
OF_NETWORKS = ("py", "onnx", "nir", "pt", "pth", "ckpt", "safetensors", "bin")


def format_of(source: str, format_: str | None) -> str | None:
    """The format of a graph file, None where `source` names a network."""
    from pararev_hw.task_graph_files import FORMATS

    if format_ is not None and format_ not in FORMATS:
        raise unknown_name("format", format_, FORMATS)
    ending = Path(source).suffix.lower().removeprefix(".")
    if format_ is None and ending not in (*FORMATS, *OF_NETWORKS) and Path(source).is_file():
        raise BadInput(f"{source}: the name does not tell what it holds: give --format {' or '.join(FORMATS)}")
    return format_ or (ending if ending in FORMATS else None)


def graph_in(source: str, kind: str) -> BlockGraph | None:
    """The traced graph in a file, None where the file is a bare task graph."""
    return graph_or_tasks_in(source, kind)[0]


def graph_or_tasks_in(source: str, kind: str) -> tuple[BlockGraph | None, object]:
    """The traced graph in a file; or, where the file is a bare task graph, its JSON document (None: it is no JSON)."""
    from pararev_hw import graph as graphs
    from pararev_hw import limits
    from pararev_hw.documents import check_size
    from pararev_hw.task_graph_files import HOLDS

    if kind != "json":
        return None, None
    path = Path(source)
    document = graphs.read_json(path)
    if graphs.is_block_graph(document):
        return graphs.from_document(document, source), None
    check_size(path, limits.TASK_GRAPH_BYTES, HOLDS)
    if not isinstance(document, dict) or not {"tasks", "edges"} & document.keys():
        raise BadFile(
            f"{source}: holds neither a traced step, as `trace` writes it, nor a task graph: "
            '{"tasks": [...], "edges": [...]}'
        )
    return None, document
