"""The verb `validate`: predictions beside real training, or beside a paper's relative figures."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.inputs import hardware_named
from pararev_hw.cli.options import JsonOpt, SeedOpt, option_given
from pararev_hw.cli.outputs import writable
from pararev_hw.errors import BadInput

if TYPE_CHECKING:
    from pararev_hw.types import Profile


_OF_TRAINING = ("profile", "suite", "tolerance", "minutes", "seed")
_OF_PAPER = ("device",)


def validate(
    context: typer.Context,
    profile: Annotated[Path | None, typer.Option("--profile", "-p", help="A profile that `calibrate` wrote.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for validation.html.")] = None,
    suite: Annotated[str, typer.Option("--suite", help="quick (3 minutes on a CPU) or full.")] = "quick",
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="Largest mean error that is good, as in 0.1: above it, status 1."),
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Start no case after this long.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Instead: the ParaRevSNN paper's ratios beside predicted ones.")
    ] = False,
    device: Annotated[str, typer.Option("--device", "-d", help="With --paper: a device or a profile.")] = "h200",
    seed: SeedOpt = 0,
    json_: JsonOpt = False,
) -> None:
    """Hold a profile's predictions against real steps of networks that it was not fitted on."""
    _check_choice(context, paper)
    if output is not None:
        writable(output)
    if paper:
        _against_paper(device, output, json_)
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler, which records memory, else talks on stderr
    if profile is None:
        raise BadInput("--profile is missing: name a file that `pararev-hw calibrate` wrote")
    _against_training(profile, output, suite, tolerance, minutes, seed, json_)


def _against_training(
    profile: Path,
    output: Path | None,
    suite: str,
    tolerance: float | None,
    minutes: float | None,
    seed: int,
    json_: bool,
) -> None:
    from pararev_hw import reports, validation

    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise BadInput(f"tolerance is {tolerance}: it is a share of one, such as 0.1")
    fitted = _profile(profile)
    with progress() as tell:
        found = validation.validate(
            fitted,
            suite,
            minutes=minutes,
            seed=seed,
            progress=tell,
            finished=lambda case: say(reports.case_row(case)),
        )
    if found.interrupted and not found.cases:
        raise KeyboardInterrupt
    written = () if output is None else reports.write_validation(found, output, tolerance)
    if json_:
        print_json(reports.validation_document(found, tolerance))
    else:
        out.print(reports.cases_table(found))
        out.print(reports.accuracy_table(found))
        out.print(reports.validation_answer(found), soft_wrap=True)
    for reason, count in Counter(line.partition(": ")[2] for line in found.left_out).items():
        say(f"not run: {count} of the suite's cases: {reason}")
    if written:
        say(f"wrote {', '.join(p.name for p in written)} in {output}")
    if found.interrupted:
        raise KeyboardInterrupt
    if found.latency is None or (tolerance is not None and not found.within(tolerance)):
        raise typer.Exit(1)


def _check_choice(context: typer.Context, paper: bool) -> None:
    """Refuse options that only the other of the two comparisons has a use for."""
    given = option_given(context, _OF_TRAINING if paper else _OF_PAPER)
    if given is not None and paper:
        raise BadInput(f"{given} means nothing with --paper, which runs no step: give --device, a name or a profile")
    if given is not None:
        raise BadInput(f"{given} is for --paper: a profile is validated on its own device")


def _against_paper(device: str, output: Path | None, json_: bool) -> None:
    from pararev_hw import reports, validation

    with progress() as tell:
        found = validation.paper_check(hardware_named(device, tell), tell)
    written = () if output is None else reports.write_paper(found, output)
    if json_:
        print_json(reports.paper_document(found))
    else:
        out.print(reports.paper_table(found))
        out.print(reports.paper_answer(found), soft_wrap=True)
        for line in (*found.untraced, *found.assumptions):
            out.print(f"- {line}", soft_wrap=True)
    if written:
        say(f"wrote {', '.join(p.name for p in written)} in {output}")


def _profile(path: Path) -> Profile:
    from pararev_hw.devices.profiles import read_profile

    return read_profile(path)
