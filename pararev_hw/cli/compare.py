"""The verb `compare`: several networks on one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pararev_hw.cli.console import imports_set_aside, out, print_json, progress, say
from pararev_hw.cli.inputs import machine_named, measured_for
from pararev_hw.cli.options import (
    DeviceOpt,
    JsonOpt,
    MachineOptions,
    PredictionOptions,
    SearchChoicesOpt,
    StepOptions,
    grouped,
    option_given,
)
from pararev_hw.cli.outputs import writable
from pararev_hw.errors import BadInput

# what --all decides for each network by itself
_PER_NETWORK = (
    *("lanes", "launch", "timesteps", "mode", "dtype", "input_shape", "num_classes", "width", "seed", "optimizer"),
    *("accumulate", "zero_grad", "spikes", "choices", "layout", "memory_limit", "form", "granularity", "blocks"),
)


@grouped
def compare(
    machine: MachineOptions,
    basis: PredictionOptions,
    step: StepOptions,
    targets: Annotated[list[str] | None, typer.Argument(metavar="TARGET...", help="Two or more targets.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One network of every system, training step and inference, on the same data.")
    ] = False,
    device: DeviceOpt = "h200",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write compare.html to.")] = None,
    choices: SearchChoicesOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Compare networks on one device: latency, memory and energy per step, sequential and parallel."""
    from pararev_hw import recommendation, reports
    from pararev_hw.costmodels.energy_models import check_name, with_energy_model
    from pararev_hw.overview import overview
    from pararev_hw.rewrites import select

    _check_targets(targets, every)
    if output is not None:
        writable(output)
    check_name(basis.energy_model)
    choices = choices or "auto"
    select.parsed(choices)
    search = recommendation.Search(
        lanes=machine.lanes, launch=machine.launch, memory_limit=basis.limit, choices=choices
    )
    with imports_set_aside(), progress() as tell:
        hardware = machine_named(device, machine, tell)
        measured = (lambda graph: measured_for(graph, hardware, tell)) if basis.measure else None
        comparison = (
            overview(hardware, batch=step.batch, progress=tell)
            if every
            else recommendation.compare(targets or [], hardware, search, tell, measured, step.parsed())
        )
        studies = tuple(with_energy_model(study, basis.energy_model) for study in comparison.studies)
        comparison = replace(comparison, studies=studies)
        paths = () if output is None else reports.write_comparison(comparison, output)
    if json_:
        print_json(reports.comparison_document(comparison))
        return
    for line in reports.comparison_lines(comparison):
        out.print(Text(line))
    out.print(reports.comparison_table(comparison))
    if paths:
        say(f"wrote {', '.join(p.name for p in paths)} in {output}")


def _check_targets(targets: list[str] | None, every: bool) -> None:
    """Raises BadInput where there is nothing to compare, or --all decides what the user says too."""
    unheard = option_given(_PER_NETWORK) if every else None
    if every and targets:
        raise BadInput(f"--all names the networks itself: leave {targets[0]} out")
    if unheard is not None:
        raise BadInput(f"--all gives every network the same data: leave {unheard} out")
    if not targets and not every:
        raise BadInput("give one TARGET or more, or --all: `pararev-hw models` lists the networks")
