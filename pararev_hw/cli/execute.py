"""The verb `execute`: a schedule run for real, measured beside what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.table import Table
from rich.text import Text

from pararev_hw import limits
from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.inputs import cache_folder, hardware_named, measured_for
from pararev_hw.cli.options import (
    BlocksOpt,
    ChoicesOpt,
    GranularityOpt,
    JsonOpt,
    LaunchOpt,
    MeasureOpt,
    NetworkSizes,
    OptimizerOpt,
    TargetArg,
    grouped,
)
from pararev_hw.cli.outputs import check_output
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.progress import Progress
from pararev_hw.sizes import counted

if TYPE_CHECKING:
    from pararev_hw.execution import Job
    from pararev_hw.types import Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedStep(NetworkSizes):
    """The network and its step, as it is really run."""

    granularity: GranularityOpt = "block"
    blocks: BlocksOpt = None
    optimizer: OptimizerOpt = None

    def prepared(self, target: str, torch_device: str) -> Job:
        """The target, built and traced on this machine. Raises BadInput."""
        from pararev_hw import execution

        return execution.prepare(target, self.parsed(), torch_device)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineHere:
    """What of this machine the step runs on, and what it is predicted from."""

    device: Annotated[
        str, typer.Option("--device", "-d", help="cpu, cuda, or the file of a profile or device of one of them.")
    ] = "cpu"
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", help="Profile or device to predict from (default: a quick measurement of this machine)."
        ),
    ] = None
    lanes: Annotated[
        int | None,
        typer.Option(
            "--lanes",
            max=limits.THREADS,
            help="Threads or streams that run tasks; default: the cores, at most 4; 2 streams.",
        ),
    ] = None
    launch: LaunchOpt = None
    measure: MeasureOpt = False
    keep_memory: Annotated[
        bool,
        typer.Option(
            "--keep-memory/--no-keep-memory",
            help="Keep freed memory in the process: mapping it in again every step is slow on a CPU.",
        ),
    ] = True

    def resolved(self, tell: Progress) -> tuple[Hardware, str, int, str]:
        """What predicts, torch's name of the device, how many lanes there are, and why so many. Raises BadInput."""
        from pararev_hw import execution

        name = self.profile or self.device
        hardware = None if name in ("cpu", "cuda") else hardware_named(name, tell)
        by_kind = {"gpu": "cuda"}
        torch_device = self.device if hardware is None or self.profile else by_kind.get(hardware.kind, hardware.kind)
        execution.check_device(torch_device)
        if self.keep_memory and torch_device == "cpu":
            execution.keep_memory()
        count, why = execution.lanes_here(torch_device, self.lanes)
        if hardware is None:
            hardware = execution.this_machine(torch_device, count, cache=cache_folder(), progress=tell)
        return hardware, torch_device, count, why


@grouped
def execute(
    target: TargetArg,
    machine: MachineHere,
    step: ExecutedStep,
    scheduler: Annotated[str, typer.Option("--scheduler", "-s", help="See `pararev-hw schedulers`.")] = "heft",
    steps: Annotated[int, typer.Option("--steps", help="Training steps to measure, after two to warm up.")] = 10,
    choices: ChoicesOpt = "none",
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="Write a torch.profiler trace of one more parallel step to this file."),
    ] = None,
    json_: JsonOpt = False,
) -> None:
    """Run a schedule for real, step after step, and print what was measured beside what was predicted."""
    from pararev_hw import execution
    from pararev_hw.rewrites import select
    from pararev_hw.schedulers import describe

    if machine.lanes is not None and machine.lanes < 1:
        raise BadInput(f"a schedule needs at least one lane, not {machine.lanes}")
    if steps < 1:
        raise BadInput(f"steps is {steps}: at least 1 is needed")
    describe(scheduler)  # raises where there is none of that name
    launched_as = checked_launch(machine.launch)
    if trace is not None:
        check_output(trace)
    with progress() as tell:
        hardware, torch_device, count, why = machine.resolved(tell)
        tell(f"building and tracing {target}")
        job = step.prepared(target, torch_device)
        if machine.measure:
            hardware = measured_for(job.graph, hardware, tell)
        rewrite = select.rewrite(choices, hardware, scheduler=scheduler, lanes=count, progress=tell)
        result = execution.execute(
            job,
            hardware,
            scheduler,
            reworked=None if rewrite is None else rewrite(job.traced),
            lanes=count,
            launch=launched_as,
            steps=steps,
            trace=trace,
            progress=tell,
        )
    if machine.lanes is None:
        say(f"{counted(count, 'lane')}: {why}")
    document = execution.document(result)
    if json_:
        print_json(document)
    else:
        _print(document)


def checked_launch(launch: str | None) -> Literal["eager", "graph"] | None:
    """ "eager", "graph" or None. Raises UnknownName."""
    if launch not in (None, "eager", "graph"):
        raise unknown_name("launch", launch, ("eager", "graph"))
    return cast(Literal["eager", "graph"] | None, launch)


def _print(document: dict[str, Any]) -> None:
    lanes, steps = counted(document["lanes"], "lane"), counted(document["steps"], "step")
    title = f"{document['model']} on {document['device']}: {document['scheduler']}, {lanes}, {steps}"
    table = Table(title=Text(title), box=None)
    table.add_column("")
    for name in ("predicted", "measured", "quartiles"):
        table.add_column(name, justify="right")
    for row in _rows(document):
        table.add_row(*map(Text, row))
    out.print(table)
    error = document["predicted"]["expected_error"]
    if error is not None:
        out.print(Text(f"expected error of predicted times: +/- {100 * error:.0f} %"))
    same = document["difference"] == 0
    out.print(
        Text(
            "parameters and buffers of both runs are equal bit for bit"
            if same
            else f"parameters and buffers of the two runs differ by up to {document['difference']:.3g}"
        )
    )
    if document["choice"] is not None:
        out.print(Text(_verdict(document["choice"], document["lanes"])))


def _rows(document: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What is shown of each quantity: its name, predicted, the measured median and quartiles."""
    from pararev_hw.reports import units

    predicted, measured, lanes = document["predicted"], document["measured"], document["lanes"]

    def row(
        name: str, expected: float | None, interval: dict[str, float], show: Callable[[float], str]
    ) -> tuple[str, str, str, str]:
        quartiles = f"{show(interval['low'])} - {show(interval['high'])}"
        return name, "" if expected is None else show(expected), show(interval["median"]), quartiles

    scheduled = f"{document['scheduler']}, {counted(lanes, 'lane')}"
    yield row("sequential, 1 lane", predicted["sequential_s"], measured["sequential_s"], units.seconds)
    yield row(scheduled, predicted["parallel_s"], measured["parallel_s"], units.seconds)
    if predicted["threads_s"] is not None:
        threads = f"1 lane, {counted(lanes, 'thread')} in each op"
        yield row(threads, predicted["threads_s"], measured["threads_s"], units.seconds)
    yield row("eager PyTorch loop, 1 thread", None, measured["loop_s"], units.seconds)
    yield row("speed-up over sequential", predicted["speedup"], measured["speedup"], units.times)
    choice = document["choice"]
    if choice is not None:
        ratios = choice["predicted_ratio"], choice["measured_ratio"]
        yield row("speed-up over threads in each op", *ratios, units.times)
    yield row("sequential / eager loop", None, measured["sequential_over_loop"], units.times)
    if measured["overlap"] is not None:
        yield row("time with 2 or more lanes busy", predicted["overlap"], measured["overlap"], "{:.0%}".format)
    if measured["profiled_overlap"] is not None:
        yield "the same, in the profiler's trace", "", f"{measured['profiled_overlap']:.0%}", ""
    for name in ("sequential", "parallel"):
        predicted_size, size = (units.size(peaks["peak_bytes"][name]) for peaks in (predicted, measured))
        yield f"peak memory, {name}", predicted_size, size, ""


def _verdict(choice: dict[str, Any], lanes: int) -> str:
    """Which way is the fastest, predicted and measured."""
    words = {
        "sequential": "1 lane",
        "parallel": counted(lanes, "lane"),
        "threads": f"{counted(lanes, 'thread')} in each op",
    }
    predicted, fastest = choice["predicted"], choice["measured"]
    others = ", ".join(
        f"{words[name]} {a['measured_s'] / choice['alternatives'][fastest]['measured_s']:.2f}x its time"
        for name, a in choice["alternatives"].items()
        if name != fastest
    )
    if predicted == fastest:
        verdict = "as predicted"
    else:
        verdict = f"predicted: {words[predicted]}, {'within the noise' if choice['right'] else 'wrong'}"
    return f"fastest: {words[fastest]} ({others}); {verdict}"
