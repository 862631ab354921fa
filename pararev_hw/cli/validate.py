"""The verb `validate`: predictions beside real training, or beside a paper's relative figures."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.inputs import hardware_named, measured_for
from pararev_hw.cli.interruption import ended_at_once
from pararev_hw.cli.options import JsonOpt, MeasureOpt, NetworkSizes, OptimizerOpt, grouped, option_given
from pararev_hw.cli.outputs import writable
from pararev_hw.cli.validate_published import PublishedOptions, against_published, check_tolerance
from pararev_hw.errors import BadInput
from pararev_hw.trace_options import TraceOptions

if TYPE_CHECKING:
    from rich.table import Table

    from pararev_hw.types import Profile, Validation


_OF_TRAINING = ("profile", "suite", "tolerance", "minutes", "seed")
_OF_PAPER = ("device",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A comparison with steps that are measured here."""

    profile: Annotated[Path | None, typer.Option("--profile", "-p", help="A profile that `calibrate` wrote.")] = None
    suite: Annotated[str, typer.Option("--suite", help="quick (3 minutes on a CPU) or full.")] = "quick"
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="Largest acceptable mean error, such as 0.1; above it the exit status is 1."),
    ] = None
    minutes: Annotated[float | None, typer.Option("--minutes", help="Start no new case after so many minutes.")] = None
    measure: MeasureOpt = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(NetworkSizes):
    """What a target and its step are like."""

    optimizer: OptimizerOpt = None

    @property
    def options(self) -> TraceOptions:
        """Raises BadInput, UnknownName."""
        return replace(self.parsed(), granularity="block")


_OF_TARGETS = ("measure", *(field.name for field in fields(Step) if field.name not in _OF_TRAINING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Where the comparison is shown."""

    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write validation.html to.")] = None
    json_: JsonOpt = False


@grouped
def validate(
    measured: Measured,
    published: PublishedOptions,
    step: Step,
    shown: Shown,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="Your own networks, instead of the suite: with --device cpu or -p."),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Compare the ParaRevSNN paper's published ratios with predicted ones instead."),
    ] = False,
    device: Annotated[
        str, typer.Option("--device", "-d", help="With --paper: a device or a profile; with targets: cpu or a profile.")
    ] = "h200",
) -> None:
    """Compare a profile's predictions with measured steps of held-out networks."""
    _check_published(published.published, bool(targets))
    if published.published is None:
        _check_choice(paper, bool(targets))
    if shown.output is not None:
        writable(shown.output)
    if published.published is not None:
        against_published(published, measured.minutes, measured.tolerance, shown.output, shown.json_)
        return
    if paper:
        _against_paper(device, shown)
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler, which records memory, else talks on stderr
    if targets:
        device_name = str(measured.profile or (device if option_given(("device",)) else "cpu"))
        _against_targets(targets, device_name, measured, step, shown)
        return
    from pararev_hw.pipeline import find_profile

    if measured.profile is None:
        raise BadInput("--profile is missing: name a file that `pararev-hw calibrate` wrote, or TARGETs of your own")
    _against_training(find_profile(measured.profile), measured, step.seed, shown)


def _against_training(profile: Profile, request: Measured, seed: int, shown: Shown) -> None:
    from pararev_hw import reports, validation

    check_tolerance(request.tolerance)

    def show(result: Validation) -> None:
        reasons = Counter(line.partition(": ")[2] for line in result.left_out)
        left_out = [f"{count} of the suite's cases: {reason}" for reason, count in reasons.items()]
        tables = [reports.cases_table, reports.accuracy_table]
        _show(result, tables, left_out, request.tolerance, shown, reports.validation_answer)

    so_far = _SoFar(show)
    with ended_at_once(so_far.show), progress() as tell:
        result = validation.validate(
            profile, request.suite, minutes=request.minutes, seed=seed, progress=tell, finished=so_far.hear
        )
    show(result)


def _against_targets(targets: list[str], device: str, request: Measured, step: Step, shown: Shown) -> None:
    """Validate the user's own networks."""
    from pararev_hw import reports, validation

    check_tolerance(request.tolerance)

    def show(result: Validation) -> None:
        tables = [reports.cases_table, reports.worst_ops_table, reports.accuracy_table]
        _show(result, tables, result.left_out, request.tolerance, shown)

    so_far = _SoFar(show)
    with ended_at_once(so_far.show), progress() as tell:
        result = validation.validate_targets(
            targets,
            hardware_named(device, tell),
            step.options,
            measure=(lambda graph, hardware, seconds, in_turns: measured_for(graph, hardware, tell, seconds, in_turns))
            if request.measure
            else None,
            minutes=request.minutes,
            progress=tell,
            finished=so_far.hear,
        )
    show(result)


class _SoFar:
    """What a validation has come to, told case by case, to be shown by `show` if it must end at once."""

    def __init__(self, show: Callable[[Validation], None]) -> None:
        self._show = show
        self._latest: Validation | None = None

    def hear(self, latest: Validation) -> None:
        from pararev_hw import reports

        self._latest = latest
        say(reports.case_row(latest.cases[-1]))

    def show(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if self._latest is not None:
                self._show(self._latest)
        say("interrupted")


def _show(
    result: Validation,
    tables: Sequence[Callable[[Validation], Table]],
    left_out: Sequence[str],
    tolerance: float | None,
    shown: Shown,
    answer: Callable[[Validation], str] | None = None,
) -> None:
    """Print and write the result; exit status 1 where it is not accurate enough."""
    from pararev_hw import reports

    if result.interrupted and not result.cases:
        raise KeyboardInterrupt
    paths = () if shown.output is None else reports.write_validation(result, shown.output, tolerance)
    if shown.json_:
        print_json(reports.validation_document(result, tolerance))
    elif result.cases:
        for table in tables:
            out.print(table(result))
        if answer is not None:
            out.print(answer(result), soft_wrap=True)
        _print_coverage(result)
    for line in left_out:
        say(f"not run: {line}")
    if paths:
        say(f"wrote {', '.join(p.name for p in paths)} in {shown.output}")
    if result.interrupted:
        raise KeyboardInterrupt
    if result.latency is None or (tolerance is not None and not result.within(tolerance)):
        raise typer.Exit(1)


def _print_coverage(result: Validation) -> None:
    if result.coverage is not None:
        out.print(f"{result.coverage:.0%} of the cases lie within their expected error; 90 % should")
    if result.kendall_tau_told_apart is not None:
        out.print(
            f"Kendall's τ of the pairs whose measured times differ by more than their spread: "
            f"{result.kendall_tau_told_apart:.2f}"
        )


def _check_published(published: Path | None, targets: bool) -> None:
    if published is None:
        conflicting = option_given(("traces", "networks"))
        if conflicting is not None:
            raise BadInput(f"{conflicting} is for --published: give the folder of the published tables too")
        return
    conflicting = option_given(("profile", "suite", "paper", "device", "seed", *_OF_TARGETS))
    if conflicting is not None or targets:
        raise BadInput(f"--published names cards and networks of its own: leave {conflicting or 'the TARGETs'} out")


def _check_choice(paper: bool, targets: bool) -> None:
    """Refuse options that only another of the comparisons has a use for."""
    unheard = option_given(("suite",) if targets else _OF_TARGETS)
    if unheard is not None:
        raise BadInput(
            f"{unheard} names networks, and so do the TARGETs: leave one of them out"
            if targets
            else f"{unheard} is for TARGETs: name one network or more"
        )
    if targets and paper:
        raise BadInput("--paper compares the paper's own networks: leave the TARGETs out")
    if targets:
        return
    conflicting = option_given(_OF_TRAINING if paper else _OF_PAPER)
    if conflicting is not None and paper:
        raise BadInput(
            f"{conflicting} means nothing with --paper, which runs no step: give --device, a name or a profile"
        )
    if conflicting is not None:
        raise BadInput(f"{conflicting} is for --paper: a profile is validated on its own device")


def _against_paper(device: str, shown: Shown) -> None:
    from pararev_hw import reports, validation

    with progress() as tell:
        check = validation.paper_check(hardware_named(device, tell), tell)
    paths = () if shown.output is None else reports.write_paper(check, shown.output)
    if shown.json_:
        print_json(reports.paper_document(check))
    else:
        out.print(reports.paper_table(check))
        out.print(reports.paper_answer(check), soft_wrap=True)
        for line in (*check.untraced, *check.assumptions):
            out.print(f"- {line}", soft_wrap=True)
    if paths:
        say(f"wrote {', '.join(p.name for p in paths)} in {shown.output}")
