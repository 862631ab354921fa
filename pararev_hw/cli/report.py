"""The verb `report`: everything about one network on one device, in a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.fitting import largest_batch_named
from pararev_hw.cli.inputs import format_of, graph_in, hardware_named, measured_for, on_chips
from pararev_hw.cli.options import (
    STEP_OPTIONS,
    AccumulateOpt,
    BatchOpt,
    BlocksOpt,
    ChannelsLastOpt,
    ChipsOpt,
    ClassesOpt,
    DeviceOpt,
    DtypeOpt,
    EnergyModelOpt,
    FormOpt,
    GranularityOpt,
    HostOpt,
    JsonOpt,
    LanesOpt,
    LayoutOpt,
    MeasureOpt,
    MemoryLimitOpt,
    ModeOpt,
    OptimizerOpt,
    RuleOpt,
    SchedulerOpt,
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
from pararev_hw.types import BlockGraph, Study

if TYPE_CHECKING:
    from pararev_hw.recommendation import Budget
    from pararev_hw.reports.against import OtherReport, SideBySide
    from pararev_hw.tracing import Traced

OrdersOpt = Annotated[
    str | None,
    typer.Option("--orders-of", help="Make the schedule for this device, then evaluate it on --device, as sweeps do."),
]

AgainstOpt = Annotated[
    Path | None, typer.Option("--against", metavar="FILE", help="Another report's report.json, to be shown beside.")
]

SecondsOpt = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        help="Time to search for less memory and rewrites; what is left out is then said (default: as long as it "
        "takes, so that a network always gets the same answer).",
    ),
]


def report(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the report to.")],
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="A target, or a graph.json.")] = None,
    device: DeviceOpt = "h200",
    host: HostOpt = None,
    scheduler: SchedulerOpt = None,
    lanes: LanesOpt = None,
    chips: ChipsOpt = None,
    learning_rule: RuleOpt = None,
    memory_limit: MemoryLimitOpt = None,
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
    choices: SearchChoicesOpt = None,
    seconds: SecondsOpt = None,
    measure: MeasureOpt = False,
    energy_model: EnergyModelOpt = "device",
    orders_of: OrdersOpt = None,
    against: AgainstOpt = None,
    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Report one row of this sweep instead of a TARGET.")
    ] = None,
    row: Annotated[
        int | None, typer.Option("--row", help="Which row of --sweep (default: the recommended one).")
    ] = None,
    json_: JsonOpt = False,
) -> None:
    """Trace TARGET, schedule it on a device, and write a report: report.html and its figures."""
    from pararev_hw import pipeline, recommendation, reports, target_graph
    from pararev_hw.costmodels.energy_models import check_name, with_energy_model
    from pararev_hw.rewrites import select

    writable(output)
    check_name(energy_model)
    other = None if against is None else reports.read_report(against)
    if sweep is not None:
        _report_row(context, sweep, row, output, other, json_)
        return
    if target is None:
        raise BadInput("nothing to report: give a TARGET, or --sweep DIR and --row N")
    if row is not None:
        raise BadInput("--row is a row of a sweep: give --sweep DIR too")
    limit = parsed_limit(memory_limit)
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise BadInput(f"--seconds is {seconds}: give a positive number")
    with progress() as tell:
        graph = _graph_file(context, target)
        hardware = on_chips(hardware_named(device, tell, host, lanes), chips, learning_rule)
        # a scheduler that is named is shown on the step as it is, unless rewrites are asked for too
        wanted = choices or ("auto" if scheduler is None else "none")
        step: Traced | BlockGraph
        orders: tuple[tuple[int, ...], ...] | None = None
        waits: tuple[tuple[int, int], ...] = ()
        if graph is not None:
            step = graph
        elif orders_of is None:
            select.parsed(wanted)
            step = recommendation.traced(target, hardware, tell, **step_options(context))
        else:
            rewrite = select.rewrite(choices or "none", hardware, scheduler=scheduler, lanes=lanes, progress=tell)
            step = target_graph.build_graph(
                target, device=hardware, rewrite=rewrite, progress=tell, **step_options(context)
            )
        if measure:
            hardware = measured_for(step if isinstance(step, BlockGraph) else step.graph, hardware, tell)
        if orders_of is not None:
            assert isinstance(step, BlockGraph)
            scheduler = scheduler or "heft"
            decided = hardware_named(orders_of, tell)
            plan = pipeline.plan(step, decided, scheduler, lanes=hardware.lanes if lanes is None else lanes)
            orders, waits = pipeline.lane_orders(step, plan.schedule), pipeline.wait_pairs(step, plan.schedule)
        search = recommendation.Search(scheduler, lanes, None, limit, wanted, orders, waits, _budget(seconds))
        with largest_batch_named(target if graph is None else None, hardware, limit, step_options(context), tell):
            study = with_energy_model(recommendation.study(step, hardware, search, tell), energy_model)
        tell("drawing the report")
        script = None if graph is not None or orders is not None else reports.run_script(study, target, _given(context))
        both = None if other is None else reports.side_by_side(study, other)
        written = reports.write_report(study, output, script, both)
    _show(study, both, written, output, json_)


def _budget(seconds: float | None) -> Budget | None:
    """What a search that begins now may take."""
    from pararev_hw.recommendation import Budget

    began = time.monotonic()
    return None if seconds is None else Budget(seconds, lambda: time.monotonic() - began)


def _report_row(
    context: typer.Context, folder: Path, row: int | None, output: Path, other: OtherReport | None, json_: bool
) -> None:
    """The full report of one configuration of a finished sweep."""
    from pararev_hw import reports, sweeps
    from pararev_hw.costmodels.energy_models import with_energy_model

    others = (*STEP_OPTIONS, "device", "host", "scheduler", "lanes", "memory_limit", "choices", "measure", "orders_of",
              "seconds")  # fmt: skip
    unheard = "TARGET" if context.params["target"] is not None else option_given(context, others)
    if unheard is not None:
        raise BadInput(f"--sweep {folder} says what is reported: leave {unheard} out")
    with progress() as tell:
        study = sweeps.row_study(folder, sweeps.recommended_row(folder) if row is None else row, tell)
        study = with_energy_model(study, context.params["energy_model"])
        tell("drawing the report")
        both = None if other is None else reports.side_by_side(study, other)
        written = reports.write_report(study, output, against=both)
    _show(study, both, written, output, json_)


def _show(study: Study, both: SideBySide | None, written: Sequence[Path], output: Path, json_: bool) -> None:
    from pararev_hw import reports

    if json_:
        beside = {} if both is None else {"against": reports.side_by_side_document(both)}
        print_json(reports.report_document(study) | beside)
        return
    for line in (*reports.answer_lines(study), *reports.insights(study)):
        out.print(Text(line))
    for left_out in study.not_searched:
        out.print(Text(f"Not searched: {left_out}."))
    out.print(reports.study_table(study))
    if any(layer.time_s for layer in study.layers):
        out.print(reports.longest_layers_table(study.layers, out.width))
    if both is not None:
        out.print(reports.side_by_side_table(both))
    say(f"wrote {', '.join(p.name for p in written)} in {output}: open {written[0]}")


def _graph_file(context: typer.Context, target: str) -> BlockGraph | None:
    """The graph of a file that holds a traced step, None where `target` names a network."""
    kind = format_of(target, None)
    graph = None if kind is None else graph_in(target, kind)
    if kind is not None and graph is None:
        raise BadInput(f"{target} is a bare task graph: `pararev-hw schedule {target} --lanes N` schedules it")
    unheard = option_given(context, STEP_OPTIONS)
    if graph is not None and unheard is not None:
        raise BadInput(f"{target} holds a traced step: leave {unheard} out")
    return graph


def _given(context: typer.Context) -> dict[str, Any]:
    """The options of the target that the user set, for a script that builds it again."""
    names = ("batch", "timesteps", "num_classes", "width", "form", "input_shape", "seed", "layout")
    values = {name: value for name, value in step_options(context).items() if name in names}
    return {name: value for name, value in values.items() if value is not None}
