"""The verb `trace`: a step of a network, as a graph in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pararev_hw.atomic import write_file
from pararev_hw.cli.console import out, progress, say
from pararev_hw.cli.inputs import hardware_named
from pararev_hw.cli.options import EnergyModelOpt, ForOpt, JsonOpt, StepOptions, TargetArg, grouped
from pararev_hw.cli.outputs import check_output
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.sizes import counted

if TYPE_CHECKING:
    from pararev_hw.types import BlockGraph, Hardware, Layer


@grouped
def trace(
    target: TargetArg,
    step: StepOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write the graph to (default graph.json).")
    ] = None,
    layers: Annotated[
        Path | None, typer.Option("--layers", help="File to write the table of layers to, such as layers.csv.")
    ] = None,
    device: ForOpt = "h200",
    energy_model: EnergyModelOpt = "device",
    json_: JsonOpt = False,
) -> None:
    """Trace a step of TARGET into a block-dependency graph, written to graph.json."""
    from pararev_hw import graph as graphs
    from pararev_hw.costmodels import energy_models as models
    from pararev_hw.reports.document import layer_document
    from pararev_hw.reports.energy_model import energy_model_lines
    from pararev_hw.reports.layers import layer_table, layers_csv
    from pararev_hw.target_graph import build_graph

    models.check_name(energy_model)
    path = output or (None if json_ else Path("graph.json"))
    for file in (path, layers):
        if file is not None:
            check_output(file)
    with progress() as tell:
        hardware = hardware_named(device, tell)
        graph = build_graph(target, step.parsed(), device=hardware, progress=tell)
        tell("writing the graph")
        rows = _layers(graph, hardware)
        document = graphs.to_document(graph) | {"layers": [layer_document(row) for row in rows]}
        energy = None if energy_model == models.DEVICE else models.model_energy(graph, energy_model)
        if energy is not None:
            document["energy_model"] = energy.document()
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    if path is not None:
        write_file(path, text)
    if layers is not None:
        write_file(layers, layers_csv(rows))
    if json_:
        print(text)
    else:
        _print_graph(graph)
        out.print(layer_table(rows, out.width))
    for line in () if energy is None or json_ else energy_model_lines(energy):
        say(line)
    if path is not None:
        say(f"wrote {path}: next, pararev-hw schedule {path} --device {device}")


def _layers(graph: BlockGraph, hardware: Hardware) -> tuple[Layer, ...]:
    """The layers with their times and energies on the device, where it has the parameters that these need."""
    from pararev_hw import graph as graphs
    from pararev_hw.costmodels import cost
    from pararev_hw.pipeline import layer_rows

    try:
        return layer_rows(graph, cost(graph, hardware))
    except (BadInput, Infeasible):
        return graphs.layers(graph)


def _print_graph(graph: BlockGraph) -> None:
    from pararev_hw import graph as graphs
    from pararev_hw.reports import units
    from pararev_hw.reports.first_lines import first_lines

    totals, memory = graphs.totals(graph), graph.memory
    path = graphs.critical_path(graph)
    for line in first_lines(graph):
        out.print(Text(line))
    flops = graph.totals.flops  # of grouped convolutions torch counts the weights' gradient as if they were dense
    counted_by_torch = [("MACs as torch counts", units.count(flops // 2))] if flops != graph.totals.true_flops else []
    table = Table(
        title=Text(f"{graph.model}: {graph.mode} step, batch {graph.batch}, T {graph.timesteps or '-'}"), box=None
    )
    table.add_column("")
    table.add_column("", justify="right")
    rows = [
        ("parameters", f"{graph.parameters:,}"),
        ("operations", f"{totals['ops']:,} in {len(graph.tasks)} tasks"),
        ("MACs", units.count(graph.totals.true_flops // 2)),
        *counted_by_torch,
        ("synaptic operations", units.count(totals["sops"])),
        ("operations without a formula", str(totals["unknown_ops"])),
        ("peak memory", units.size(memory.peak_bytes)),
        ("saved for backward", units.size(memory.saved_bytes)),
        *((f"critical path, {p}", counted(len(tasks), "task")) for p, tasks in path.by_phase.items()),
    ]
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)
    if graph.spikes is not None:
        say(f"synaptic operations: {graph.spikes.source}")
