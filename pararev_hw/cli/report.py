"""The verb `report`: everything about one network on one device, in a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pararev_hw.cli.console import imports_set_aside, out, print_json, progress, say
from pararev_hw.cli.fitting import largest_batch_named
from pararev_hw.cli.inputs import format_of, graph_in, hardware_named, machine_named, measured_for
from pararev_hw.cli.options import (
    STEP_OPTIONS,
    DeviceOpt,
    JsonOpt,
    MachineOptions,
    PredictionOptions,
    SchedulerOpt,
    SearchChoicesOpt,
    StepOptions,
    grouped,
    option_given,
)
from pararev_hw.cli.outputs import writable
from pararev_hw.errors import BadInput
from pararev_hw.progress import Progress
from pararev_hw.types import BlockGraph, Hardware, Study

if TYPE_CHECKING:
    from pararev_hw.recommendation import Budget, Search
    from pararev_hw.reports.against import SideBySide
    from pararev_hw.trace_options import TraceOptions
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """A row of a sweep, which is reported instead of a target."""

    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Report one row of this sweep instead of a TARGET.")
    ] = None
    row: Annotated[int | None, typer.Option("--row", help="Which row of --sweep (default: the recommended one).")] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What is tried on the step."""

    scheduler: SchedulerOpt = None
    choices: SearchChoicesOpt = None
    seconds: SecondsOpt = None
    orders_of: OrdersOpt = None

    def check(self) -> None:
        """Raises BadInput where there is no such time."""
        if self.seconds is not None and not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise BadInput(f"--seconds is {self.seconds}: give a positive number")


@dataclass(frozen=True, slots=True)
class _Request:
    """What the user asked for the report of a target."""

    target: str
    device: str
    search: SearchOptions
    machine: MachineOptions
    basis: PredictionOptions
    step: StepOptions


@grouped
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the report to.")],
    search: SearchOptions,
    machine: MachineOptions,
    basis: PredictionOptions,
    step: StepOptions,
    row: RowOptions,
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="A target, or a graph.json.")] = None,
    device: DeviceOpt = "h200",
    against: AgainstOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Trace TARGET, schedule it on a device, and write a report: report.html and its figures."""
    from pararev_hw import reports
    from pararev_hw.costmodels.energy_models import check_name

    writable(output)
    check_name(basis.energy_model)
    other = None if against is None else reports.read_report(against)
    script = None
    import_module("pararev_hw.recommendation")  # which loads torch, before what was imported is set aside
    with imports_set_aside(), progress() as tell:
        if row.sweep is not None:
            study = _row_study(row.sweep, row.row, target, basis.energy_model, tell)
        elif target is None:
            raise BadInput("nothing to report: give a TARGET, or --sweep DIR and --row N")
        elif row.row is not None:
            raise BadInput("--row is a row of a sweep: give --sweep DIR too")
        else:
            search.check()
            study, of_network = _target_study(_Request(target, device, search, machine, basis, step), tell)
            script = reports.run_script(study, target, _set_options(step.parsed()), output) if of_network else None
        both = None if other is None else reports.side_by_side(study, other)
        paths = reports.write_report(study, output, script, both, tell)
    _show(study, both, paths, output, json_)


def _target_study(request: _Request, tell: Progress) -> tuple[Study, bool]:
    """The study, and whether it is of a network that a script can build again and schedule by itself."""
    from pararev_hw import recommendation
    from pararev_hw.costmodels.energy_models import with_energy_model

    search, lanes, limit = request.search, request.machine.lanes, request.basis.limit
    graph = _graph_file(request.target)
    hardware = machine_named(request.device, request.machine, tell)
    step = graph or _traced(request, hardware, tell)
    if request.basis.measure:
        hardware = measured_for(step if isinstance(step, BlockGraph) else step.graph, hardware, tell)
    search_space = recommendation.Search(
        search.scheduler, lanes, request.machine.launch, limit, _wanted_choices(search), budget=_budget(search.seconds)
    )
    if search.orders_of is not None:
        assert isinstance(step, BlockGraph)
        search_space = _with_orders_of(
            search.orders_of, step, search_space, hardware.lanes if lanes is None else lanes, tell
        )
    with largest_batch_named(request.target if graph is None else None, hardware, limit, request.step.parsed(), tell):
        study = with_energy_model(recommendation.study(step, hardware, search_space, tell), request.basis.energy_model)
    return study, graph is None and search.orders_of is None


def _wanted_choices(search: SearchOptions) -> str:
    """A scheduler that is named is shown on the step as it is, unless rewrites are asked for too."""
    return search.choices or ("auto" if search.scheduler is None else "none")


def _traced(request: _Request, hardware: Hardware, tell: Progress) -> Traced | BlockGraph:
    """The step with its program, or rewritten already where its orders are those of another device."""
    from pararev_hw import recommendation, target_graph
    from pararev_hw.rewrites import select

    search, options = request.search, request.step.parsed()
    if search.orders_of is None:
        select.parsed(_wanted_choices(search))
        return recommendation.traced(request.target, hardware, options, tell)
    rewrite = select.rewrite(
        search.choices or "none", hardware, scheduler=search.scheduler, lanes=request.machine.lanes, progress=tell
    )
    return target_graph.build_graph(request.target, options, device=hardware, rewrite=rewrite, progress=tell)


def _with_orders_of(device: str, step: BlockGraph, search: Search, lanes: int, tell: Progress) -> Search:
    """The search with the lanes' orders of the schedule for another device."""
    from pararev_hw import pipeline

    scheduler = search.scheduler or "heft"
    plan = pipeline.plan(step, hardware_named(device, tell), scheduler, lanes=lanes)
    orders, waits = pipeline.lane_orders(step, plan.schedule), pipeline.wait_pairs(step, plan.schedule)
    return replace(search, scheduler=scheduler, orders=orders, waits=waits)


def _budget(seconds: float | None) -> Budget | None:
    """What a search that begins now may take."""
    from pararev_hw.recommendation import Budget

    began = time.monotonic()
    return None if seconds is None else Budget(seconds, lambda: time.monotonic() - began)


def _row_study(folder: Path, row: int | None, target: str | None, energy_model: str, tell: Progress) -> Study:
    """One configuration of a finished sweep, in full."""
    from pararev_hw import sweeps
    from pararev_hw.costmodels.energy_models import with_energy_model

    others = (*STEP_OPTIONS, "device", "host", "scheduler", "lanes", "launch", "memory_limit", "choices", "measure",
              "orders_of", "seconds")  # fmt: skip
    unheard = "TARGET" if target is not None else option_given(others)
    if unheard is not None:
        raise BadInput(f"--sweep {folder} says what is reported: leave {unheard} out")
    study = sweeps.row_study(folder, sweeps.recommended_row(folder) if row is None else row, tell)
    return with_energy_model(study, energy_model)


def _show(study: Study, both: SideBySide | None, paths: Sequence[Path], output: Path, json_: bool) -> None:
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
    say(f"wrote {', '.join(p.name for p in paths)} in {output}: open {paths[0]}")


def _graph_file(target: str) -> BlockGraph | None:
    """The graph of a file that holds a traced step, None where `target` names a network."""
    kind = format_of(target, None)
    graph = None if kind is None else graph_in(target, kind)
    if kind is not None and graph is None:
        raise BadInput(f"{target} is a bare task graph: `pararev-hw schedule {target} --lanes N` schedules it")
    unheard = option_given(STEP_OPTIONS)
    if graph is not None and unheard is not None:
        raise BadInput(f"{target} holds a traced step: leave {unheard} out")
    return graph


def _set_options(options: TraceOptions) -> dict[str, object]:
    """The options of the target that the user set, for a script that builds it again."""
    names = ("batch", "timesteps", "num_classes", "width", "form", "input_shape", "seed", "layout")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
