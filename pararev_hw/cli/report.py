"""The verb `report`: everything about one network on one device, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pararev_hw import target_graph
from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.inputs import format_of, graph_in, hardware_named
from pararev_hw.cli.options import (
    STEP_OPTIONS,
    AccumulateOpt,
    BatchOpt,
    BlocksOpt,
    ChannelsLastOpt,
    ChoicesOpt,
    ClassesOpt,
    DeviceOpt,
    DtypeOpt,
    FormOpt,
    GranularityOpt,
    JsonOpt,
    LanesOpt,
    LayoutOpt,
    ModeOpt,
    OptimizerOpt,
    SchedulerOpt,
    SeedOpt,
    ShapeOpt,
    SpikesOpt,
    StepsOpt,
    WidthOpt,
    ZeroGradOpt,
    option_given,
    step_options,
)
from pararev_hw.cli.outputs import writable
from pararev_hw.errors import BadInput

OrdersOpt = Annotated[
    str | None,
    typer.Option("--orders-of", help="Decide who runs where on this device, and play it on --device, as sweeps do."),
]


def report(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A target, or a graph.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The report's folder.")],
    device: DeviceOpt = "h200",
    scheduler: SchedulerOpt = None,
    lanes: LanesOpt = None,
    batch: BatchOpt = None,
    timesteps: StepsOpt = None,
    mode: ModeOpt = "train",
    dtype: DtypeOpt = "float32",
    input_shape: ShapeOpt = None,
    num_classes: ClassesOpt = None,
    width: WidthOpt = None,
    form: FormOpt = None,
    seed: SeedOpt = 0,
    layout: LayoutOpt = None,
    granularity: GranularityOpt = "auto",
    blocks: BlocksOpt = None,
    optimizer: OptimizerOpt = None,
    accumulate: AccumulateOpt = 1,
    zero_grad: ZeroGradOpt = "none",
    channels_last: ChannelsLastOpt = False,
    spikes: SpikesOpt = "auto",
    choices: ChoicesOpt = "none",
    orders_of: OrdersOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Trace TARGET, schedule it on a device, and write a report: report.html and its figures."""
    from pararev_hw import pipeline, reports
    from pararev_hw.rewrites import select

    writable(output)
    with progress() as tell:
        kind = format_of(target, None)
        graph = None if kind is None else graph_in(target, kind)
        if kind is not None and graph is None:
            raise BadInput(f"{target} is a bare task graph: `pararev-hw schedule {target} --lanes N` schedules it")
        unheard = option_given(context, STEP_OPTIONS)
        if graph is not None and unheard is not None:
            raise BadInput(f"{target} holds a traced step: leave {unheard} out")
        hardware = hardware_named(device, tell)
        if graph is None:
            graph = target_graph.build_graph(
                target,
                device=hardware,
                rewrite=select.rewrite(choices, hardware, scheduler=scheduler, lanes=lanes, progress=tell),
                progress=tell,
                **step_options(context),
            )
        orders = None
        if orders_of is not None:
            scheduler = scheduler or "heft"
            decided = hardware_named(orders_of, tell)
            made = pipeline.plan(graph, decided, scheduler, lanes=hardware.lanes if lanes is None else lanes)
            orders = pipeline.lane_orders(graph, made.schedule)
        study = pipeline.study(graph, hardware, scheduler=scheduler, lanes=lanes, orders=orders, progress=tell)
        tell("drawing the report")
        written = reports.write_report(study, output)
    if json_:
        print_json(reports.report_document(study))
        return
    out.print(Text(reports.answer(study)))
    out.print(reports.study_table(study))
    say(f"wrote {', '.join(p.name for p in written)} in {output}: open {written[0]}")
