"""The verb `schedule`: a graph or a network, placed on the lanes of a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pararev_hw.atomic import write_file
from pararev_hw.cli.console import out, progress, say
from pararev_hw.cli.fitting import largest_batch_named
from pararev_hw.cli.inputs import format_of, graph_in, hardware_named, measured_for, on_chips
from pararev_hw.cli.options import (
    STEP_OPTIONS,
    AccumulateOpt,
    BatchOpt,
    ChannelsLastOpt,
    ChipsOpt,
    ChoicesOpt,
    ClassesOpt,
    DtypeOpt,
    EnergyModelOpt,
    FormOpt,
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
    ShapeOpt,
    SpikesOpt,
    StepsOpt,
    WidthOpt,
    ZeroGradOpt,
    option_given,
    parsed_limit,
    step_options,
)
from pararev_hw.cli.outputs import check_output
from pararev_hw.errors import BadInput

if TYPE_CHECKING:
    from pararev_hw.types import BlockGraph, ModelEnergy


def schedule(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH_OR_TARGET", help="graph.json, a bare task graph (.json, .stg, .jsp), or a target."
        ),
    ],
    device: Annotated[str | None, typer.Option("--device", "-d", help="A device name or file.")] = None,
    host: HostOpt = None,
    scheduler: Annotated[str, typer.Option("--scheduler", "-s", help="See `pararev-hw schedulers`.")] = "heft",
    lanes: LanesOpt = None,
    chips: ChipsOpt = None,
    learning_rule: RuleOpt = None,
    launch: LaunchOpt = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Format of a bare task graph whose name does not end in it: json, stg or jsp."),
    ] = None,
    memory_limit: MemoryLimitOpt = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time for the scheduler to search (local-search, exact, pareto).")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Searches that exact runs in parallel.")] = None,
    latency_bound: Annotated[
        float | None, typer.Option("--latency-bound", help="Seconds that memory-min may take.")
    ] = None,
    points: Annotated[int | None, typer.Option("--points", help="Memory limits that pareto tries.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write the schedule to, such as schedule.json.")
    ] = None,
    batch: BatchOpt = None,
    timesteps: StepsOpt = None,
    mode: ModeOpt = "train",
    dtype: DtypeOpt = "float32",
    input_shape: ShapeOpt = None,
    num_classes: ClassesOpt = None,
    width: WidthOpt = None,
    form: FormOpt = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the weights, and of a scheduler that draws (local-search, exact).")
    ] = 0,
    layout: LayoutOpt = None,
    optimizer: OptimizerOpt = None,
    accumulate: AccumulateOpt = 1,
    zero_grad: ZeroGradOpt = "none",
    channels_last: ChannelsLastOpt = False,
    spikes: SpikesOpt = "auto",
    choices: ChoicesOpt = "none",
    measure: MeasureOpt = False,
    energy_model: EnergyModelOpt = "device",
    json_: JsonOpt = False,
) -> None:
    """Schedule a graph or a target on a device, or a bare task graph on --lanes N."""
    from pararev_hw.task_graph_files import read_problem

    if output is not None:
        check_output(output)
    limit = parsed_limit(memory_limit)
    options = _options(
        context, scheduler, seconds=seconds, workers=workers, latency_bound=latency_bound, points=points, seed=seed
    )
    document: dict[str, Any]
    graph: BlockGraph | None = None
    energy: ModelEnergy | None = None
    with progress() as tell:
        kind = format_of(source, format_)
        tell(f"reading {source}")
        if kind is not None:
            graph = graph_in(source, kind)
            about_step = [o for o in STEP_OPTIONS if o != "seed"]  # which is a scheduler's too
            about_device = ("device", "host", "launch", "chips", "learning_rule", "energy_model")
            unheard = option_given(
                context,
                about_step if graph is not None else (*about_device, *about_step),
            )
            if unheard is not None:
                held = "a traced step" if graph is not None else "a bare task graph, with times of its own"
                raise BadInput(f"{source} holds {held}: leave {unheard} out")
        if kind is not None and graph is None:
            if lanes is None and kind != "jsp":
                raise BadInput(f"{source} is a bare task graph and does not say on how many lanes: give --lanes N")
            from pararev_hw.schedulers import run
            from pararev_hw.schedulers.document import bare_schedule_document

            problem = read_problem(source, format=kind, lanes=lanes, memory_limit_bytes=limit)
            tell(f"scheduling {len(problem.tasks)} tasks: {scheduler}")
            document = bare_schedule_document(run(problem, scheduler, **options), problem)
        else:
            # imported late: a bare task graph needs none of it, and torch takes two seconds to load
            from pararev_hw import pipeline, target_graph
            from pararev_hw.costmodels import energy_models as models
            from pararev_hw.rewrites import select

            models.check_name(energy_model)

            if device is None:
                raise BadInput(
                    "a network needs --device: see `pararev-hw devices` (--lanes alone is for bare task graphs)"
                )
            hardware = on_chips(hardware_named(device, tell, host, lanes), chips, learning_rule)
            if graph is None:
                graph = target_graph.build_graph(
                    source,
                    device=hardware,
                    rewrite=select.rewrite(
                        choices,
                        hardware,
                        scheduler=scheduler,
                        lanes=lanes,
                        launch=launch,
                        memory_limit=limit,
                        progress=tell,
                    ),
                    progress=tell,
                    **step_options(context),
                )
            if measure:
                hardware = measured_for(graph, hardware, tell)
            with largest_batch_named(source if kind is None else None, hardware, limit, step_options(context), tell):
                plan = pipeline.plan(
                    graph, hardware, scheduler, lanes=lanes, launch=launch, memory_limit=limit, options=options
                )
            document = pipeline.schedule_document(plan, pipeline.predict(plan))
            if energy_model != models.DEVICE:
                energy = models.model_energy(graph, energy_model)
                document["energy_model"] = energy.document()
    text = json.dumps(document, allow_nan=False)
    if output is not None:
        write_file(output, text)
    if json_:
        print(text)
    else:
        _print_step(graph, energy)
        _print_schedule(document)
    if output is not None:
        say(f"wrote {output}")


def _options(context: typer.Context, scheduler: str, **given: Any) -> dict[str, Any]:
    """What the user asked of the scheduler. A seed that it does not take was meant for the weights."""
    from pararev_hw.schedulers import options_of

    takes = options_of(scheduler)
    asked = {name: value for name, value in given.items() if option_given(context, [name]) is not None}
    if "seed" not in takes:
        asked.pop("seed", None)
    for name in asked:
        if name not in takes:
            accepted = ", ".join(f"--{option.replace('_', '-')}" for option in takes if option in given)
            raise BadInput(
                f"--{name.replace('_', '-')} means nothing to {scheduler}: it takes {accepted or 'no options'}"
            )
    return asked


def _print_step(graph: BlockGraph | None, energy: ModelEnergy | None) -> None:
    """What is unknown of a traced step, and its energy by a model of the literature."""
    from pararev_hw.reports.energy_model import energy_model_lines
    from pararev_hw.reports.first_lines import first_lines

    for line in (
        *(() if graph is None else first_lines(graph)),
        *(() if energy is None else energy_model_lines(energy)),
    ):
        out.print(Text(line))


def _print_schedule(document: dict[str, Any]) -> None:
    from pararev_hw.reports import units

    energy = document["energy_j"].get("total")
    gap = "optimal" if document["optimal"] else f"{document['gap']:.2%}"
    table = Table(
        title=Text(f"{document.get('model', 'task graph')} on {document['device']}: {document['scheduler']}"), box=None
    )
    table.add_column("")
    table.add_column("", justify="right")
    for row in (
        ("makespan", units.seconds(document["makespan_s"])),
        *_expected_error(document),
        ("sequential", units.seconds(document["sequential_s"])),
        ("speed-up", f"{document['speedup']:.3f}"),
        ("lower bound", f"{units.seconds(document['lower_bound_s'])} ({document['bound_by']})"),
        ("optimality gap", gap),
        ("lanes", str(document["lanes"])),
        ("peak memory", units.size(document["peak_bytes"])),
        ("energy", units.joules(energy)),
    ):
        table.add_row(*map(Text, row))
    out.print(table)
    if "mapping" in document:
        from pararev_hw.reports.chip import mapping_table

        out.print(mapping_table(document["mapping"]))
    if document["front"]:
        _print_front(document["front"])
    for note in document["notes"]:
        say(f"note: {note}")


def _expected_error(document: dict[str, Any]) -> list[tuple[str, str]]:
    """A row for the expected error, where something was measured."""
    error = document.get("expected_error")
    if error is None or error["latency"] is None:
        return []
    return [("expected error of the times", f"+/- {error['latency']:.0%}")]


def _print_front(points: list[dict[str, Any]]) -> None:
    from pararev_hw.reports import units

    table = Table(title=Text("latency against memory"), box=None)
    for heading in ("peak memory", "makespan", "speed-up"):
        table.add_column(heading, justify="right")
    for point in points:
        row = (units.size(point["peak_bytes"]), units.seconds(point["makespan_s"]), f"{point['speedup']:.3f}")
        table.add_row(*map(Text, row))
    out.print(table)
