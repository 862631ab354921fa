"""The verb `schedule`: a graph or a network, placed on the lanes of a device."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pararev_hw import limits
from pararev_hw.atomic import write_file
from pararev_hw.cli.console import out, progress, say
from pararev_hw.cli.fitting import largest_batch_named
from pararev_hw.cli.inputs import format_of, graph_or_tasks_in, machine_named, measured_for
from pararev_hw.cli.options import (
    STEP_OPTIONS,
    ChoicesOpt,
    JsonOpt,
    MachineOptions,
    PredictionOptions,
    StepOptions,
    grouped,
    option_given,
)
from pararev_hw.cli.outputs import check_output
from pararev_hw.errors import BadInput
from pararev_hw.progress import Progress, time_left

if TYPE_CHECKING:
    from pararev_hw.types import BlockGraph, Hardware, ModelEnergy, SchedulingProblem


LARGE_BYTES = 256 << 20  # of memory that a task graph takes, from which on it is told
# bytes of memory that reading and scheduling take for each byte of a file, with two or three edges for each task
MEMORY_PER_BYTE = {"json": 14, "stg": 75}
# what scheduling and writing take beside reading JSON, with as many
TO_READING = {"sequential": 0.5, "asap": 0.7, "heft": 0.7, "memory-list": 1.6}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """A scheduler, and what it is told."""

    scheduler: Annotated[
        str, typer.Option("--scheduler", "-s", help="See `pararev-hw schedulers`; those that draw take --seed.")
    ] = "heft"
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time for the scheduler to search (local-search, exact, pareto).")
    ] = None
    workers: Annotated[int | None, typer.Option("--workers", help="Searches that exact runs in parallel.")] = None
    latency_bound: Annotated[
        float | None, typer.Option("--latency-bound", help="Seconds that memory-min may take.")
    ] = None
    points: Annotated[int | None, typer.Option("--points", help="Memory limits that pareto tries.")] = None

    def accepted(self, seed: int) -> dict[str, float | None]:
        """What the user asked of the scheduler. A seed that it does not take was meant for the weights."""
        from pararev_hw.schedulers import options_of

        value_by_option = {"seconds": self.seconds, "workers": self.workers, "latency_bound": self.latency_bound,
                 "points": self.points, "seed": seed}  # fmt: skip
        takes = options_of(self.scheduler)
        set_options = {name: value for name, value in value_by_option.items() if option_given([name]) is not None}
        if "seed" not in takes:
            set_options.pop("seed", None)
        for name in set_options:
            if name not in takes:
                accepted = ", ".join(f"--{option.replace('_', '-')}" for option in takes if option in value_by_option)
                raise BadInput(
                    f"--{name.replace('_', '-')} means nothing to {self.scheduler}: it takes {accepted or 'no options'}"
                )
        return set_options


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """A schedule as JSON; of a network its graph, too, its energy by a model of the literature, and what a chip's
    learning rule assumes."""

    document: dict[str, Any]
    graph: BlockGraph | None = None
    energy: ModelEnergy | None = None
    learning: tuple[str, ...] = ()


@grouped
def schedule(
    source: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH_OR_TARGET", help="graph.json, a bare task graph (.json, .stg, .jsp), or a target."
        ),
    ],
    search: SchedulerOptions,
    machine: MachineOptions,
    basis: PredictionOptions,
    step: StepOptions,
    device: Annotated[str | None, typer.Option("--device", "-d", help="A device name or file.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Format of a bare task graph whose name does not end in it: json, stg or jsp."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write the schedule to, such as schedule.json.")
    ] = None,
    choices: ChoicesOpt = "none",
    json_: JsonOpt = False,
) -> None:
    """Schedule a graph or a target on a device, or a bare task graph on --lanes N."""
    if output is not None:
        check_output(output)
    limit, options = basis.limit, search.accepted(step.seed)
    with progress() as tell:
        kind = format_of(source, format_)
        tell(f"reading {source}{_memory_needed(source, kind)}")
        began = time.monotonic()
        graph, document = (None, None) if kind is None else graph_or_tasks_in(source, kind)
        _check_heard(source, kind, graph)
        if kind is not None and graph is None:
            problem = _bare_problem(source, kind, machine.lanes, limit, document)
            del document
            left = _left(len(problem.tasks), kind, search.scheduler, time.monotonic() - began)
            tell(_scheduling(f"{len(problem.tasks):,} tasks", search.scheduler, options) + left)
            result = _scheduled_tasks(problem, search.scheduler, options)
        else:
            request = _Request(search.scheduler, options, machine, basis, choices, step)
            result = _scheduled_step(graph or source, device, request, tell)
    text = json.dumps(result.document, allow_nan=False)
    if output is not None:
        write_file(output, text)
    if json_:
        print(text)
    else:
        for line in result.learning:
            out.print(Text(f"Assumed: {line}."))
        _print_step(result.graph, result.energy)
        _print_schedule(result.document)
    if output is not None:
        say(f"wrote {output}")


@dataclass(frozen=True, slots=True)
class _Request:
    """What the user asked for the schedule of a network."""

    scheduler: str
    options: Mapping[str, float | None]
    machine: MachineOptions
    basis: PredictionOptions
    choices: str
    step: StepOptions


def _scheduling(what: str, scheduler: str, options: Mapping[str, float | None]) -> str:
    seconds = options.get("seconds")
    return f"scheduling {what}: {scheduler}" + ("" if seconds is None else f", {seconds:g} s at most")


def _memory_needed(source: str, kind: str | None) -> str:
    """What memory a large bare task graph takes, in words."""
    from pararev_hw.reports import units

    size = os.path.getsize(source) if kind in MEMORY_PER_BYTE and os.path.isfile(source) else 0
    need = size * MEMORY_PER_BYTE.get(kind or "", 0)
    return f" (some {units.size(need)} of memory)" if need >= LARGE_BYTES else ""


def _left(tasks: int, kind: str, scheduler: str, reading_s: float) -> str:
    """About how long scheduling and writing many tasks takes, in words, from how long it took to read them."""
    share = TO_READING.get(scheduler) if kind == "json" and tasks >= limits.MANY_TASKS else None
    return "" if share is None else f", {time_left(share * reading_s)}"


def _check_heard(source: str, kind: str | None, graph: BlockGraph | None) -> None:
    """Raises BadInput where a file settles what the user says too."""
    about_step = [o for o in STEP_OPTIONS if o != "seed"]  # which is a scheduler's too
    about_device = ("device", "host", "launch", "chips", "learning_rule", "energy_model")
    names = () if kind is None else about_step if graph is not None else (*about_device, *about_step)
    unheard = option_given(names)
    if unheard is not None:
        content = "a traced step" if graph is not None else "a bare task graph, with times of its own"
        raise BadInput(f"{source} holds {content}: leave {unheard} out")


def _bare_problem(source: str, kind: str, lanes: int | None, limit: int | None, document: object) -> SchedulingProblem:
    from pararev_hw.task_graph_files import read_problem

    if lanes is None and kind != "jsp":
        raise BadInput(f"{source} is a bare task graph and does not say on how many lanes: give --lanes N")
    return read_problem(source, format=kind, lanes=lanes, memory_limit_bytes=limit, document=document)


def _scheduled_tasks(problem: SchedulingProblem, scheduler: str, options: Mapping[str, float | None]) -> _Scheduled:
    from pararev_hw.schedulers import run
    from pararev_hw.schedulers.document import bare_schedule_document

    return _Scheduled(bare_schedule_document(run(problem, scheduler, **options), problem))


def _scheduled_step(source: BlockGraph | str, device: str | None, request: _Request, tell: Progress) -> _Scheduled:
    # imported late: a bare task graph needs none of it, and torch takes two seconds to load
    from pararev_hw import pipeline
    from pararev_hw.costmodels import energy_models as models

    models.check_name(request.basis.energy_model)
    if device is None:
        raise BadInput("a network needs --device: see `pararev-hw devices` (--lanes alone is for bare task graphs)")
    hardware = machine_named(device, request.machine, tell)
    graph = _graph_of(source, hardware, request, tell) if isinstance(source, str) else source
    if request.basis.measure:
        hardware = measured_for(graph, hardware, tell)
    tell(_scheduling(graph.model, request.scheduler, request.options))
    target, limit = source if isinstance(source, str) else None, request.basis.limit
    with largest_batch_named(target, hardware, limit, request.step.parsed(), tell):
        plan = pipeline.plan(
            graph,
            hardware,
            request.scheduler,
            lanes=request.machine.lanes,
            launch=request.machine.launch,
            memory_limit=limit,
            options=request.options,
        )
    prediction = pipeline.predict(plan)
    learns = request.machine.learning_rule is not None and graph.mode == "train"
    document, energy = pipeline.schedule_document(plan, prediction), None
    if request.basis.energy_model != models.DEVICE:
        energy = models.model_energy(graph, request.basis.energy_model)
        document["energy_model"] = energy.document()
    return _Scheduled(document, graph, energy, prediction.assumptions[:1] if learns else ())


def _graph_of(target: str, hardware: Hardware, request: _Request, tell: Progress) -> BlockGraph:
    from pararev_hw import target_graph
    from pararev_hw.rewrites import select

    rewrite = select.rewrite(
        request.choices,
        hardware,
        scheduler=request.scheduler,
        lanes=request.machine.lanes,
        launch=request.machine.launch,
        memory_limit=request.basis.limit,
        progress=tell,
    )
    return target_graph.build_graph(target, request.step.parsed(), device=hardware, rewrite=rewrite, progress=tell)


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
