"""The verb `compare`: several networks on one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.inputs import hardware_named, measured_for, on_chips
from pararev_hw.cli.options import (
    AccumulateOpt,
    BatchOpt,
    ChannelsLastOpt,
    ChipsOpt,
    ClassesOpt,
    DeviceOpt,
    DtypeOpt,
    EnergyModelOpt,
    HostOpt,
    JsonOpt,
    LanesOpt,
    LaunchOpt,
    LayoutOpt,
    MeasureOpt,
    MemoryLimitOpt,
    ModeOpt,
    OptimizerOpt,
    RuleOpt,
    SearchChoicesOpt,
    SeedOpt,
    ShapeOpt,
    SpikesOpt,
    StepsOpt,
    WidthOpt,
    ZeroGradOpt,
    option_given,
    parsed_limit,
    step_options,
)
from pararev_hw.cli.outputs import writable
from pararev_hw.errors import BadInput

# what --all decides for each network by itself
_PER_NETWORK = (
    *("lanes", "launch", "timesteps", "mode", "dtype", "input_shape", "num_classes", "width", "seed", "optimizer"),
    *("accumulate", "zero_grad", "spikes", "choices", "layout", "memory_limit"),
)


def compare(
    context: typer.Context,
    targets: Annotated[list[str] | None, typer.Argument(metavar="TARGET...", help="Two or more targets.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One network of every system, training step and inference, on the same data.")
    ] = False,
    device: DeviceOpt = "h200",
    host: HostOpt = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write compare.html to.")] = None,
    memory_limit: MemoryLimitOpt = None,
    lanes: LanesOpt = None,
    chips: ChipsOpt = None,
    learning_rule: RuleOpt = None,
    launch: LaunchOpt = None,
    batch: BatchOpt = None,
    timesteps: StepsOpt = None,
    mode: ModeOpt = "train",
    dtype: DtypeOpt = "float32",
    input_shape: ShapeOpt = None,
    num_classes: ClassesOpt = None,
    width: WidthOpt = None,
    seed: SeedOpt = 0,
    layout: LayoutOpt = None,
    optimizer: OptimizerOpt = None,
    accumulate: AccumulateOpt = 1,
    zero_grad: ZeroGradOpt = "none",
    channels_last: ChannelsLastOpt = False,
    spikes: SpikesOpt = "auto",
    choices: SearchChoicesOpt = None,
    measure: MeasureOpt = False,
    energy_model: EnergyModelOpt = "device",
    json_: JsonOpt = False,
) -> None:
    """Compare networks on one device: latency, memory and energy per step, sequential and parallel."""
    from pararev_hw import recommendation, reports
    from pararev_hw.costmodels.energy_models import check_name, with_energy_model
    from pararev_hw.overview import overview
    from pararev_hw.rewrites import select

    unheard = option_given(context, _PER_NETWORK) if every else None
    if every and targets:
        raise BadInput(f"--all names the networks itself: leave {targets[0]} out")
    if unheard is not None:
        raise BadInput(f"--all gives every network the same data: leave {unheard} out")
    if not targets and not every:
        raise BadInput("give one TARGET or more, or --all: `pararev-hw models` lists the networks")
    if output is not None:
        writable(output)
    check_name(energy_model)
    limit = parsed_limit(memory_limit)
    select.parsed(choices or "auto")
    with progress() as tell:
        hardware = on_chips(hardware_named(device, tell, host, lanes), chips, learning_rule)
        comparison = (
            overview(hardware, batch=batch, progress=tell)
            if every
            else recommendation.compare(
                targets or [],
                hardware,
                recommendation.Search(lanes=lanes, launch=launch, memory_limit=limit, choices=choices or "auto"),
                tell,
                (lambda graph: measured_for(graph, hardware, tell)) if measure else None,
                **step_options(context),
            )
        )
        studies = tuple(with_energy_model(study, energy_model) for study in comparison.studies)
        comparison = replace(comparison, studies=studies)
        written = () if output is None else reports.write_comparison(comparison, output)
    if json_:
        print_json(reports.comparison_document(comparison))
        return
    for line in reports.comparison_lines(comparison):
        out.print(Text(line))
    out.print(reports.comparison_table(comparison))
    if written:
        say(f"wrote {', '.join(p.name for p in written)} in {output}")
