"""`validate --published`: GPU predictions beside the steps that others measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pararev_hw.atomic import write_file
from pararev_hw.cli.console import columns, out, print_json, progress, say
from pararev_hw.errors import BadInput

if TYPE_CHECKING:
    from pararev_hw.validation import PublishedCase, PublishedValidation


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedOptions:
    """A comparison with the steps that others published."""

    published: Annotated[
        Path | None,
        typer.Option("--published", metavar="DATA_DIR", help="Compare GPU predictions with the published steps there."),
    ] = None
    traces: Annotated[
        Path | None, typer.Option("--traces", metavar="DIR", help="With --published: folder that keeps its traces.")
    ] = None
    networks: Annotated[
        str | None, typer.Option("--networks", metavar="NAME,...", help="With --published: these networks alone.")
    ] = None


def check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise BadInput(f"tolerance is {tolerance}: it is a share of one, such as 0.1")


def against_published(
    request: PublishedOptions,
    minutes: float | None,
    tolerance: float | None,
    output: Path | None,
    json_: bool,
) -> None:
    """Compare, print, and write what was asked for; exit status 1 where the mean error is above the tolerance."""
    from pararev_hw import validation

    check_tolerance(tolerance)
    assert request.published is not None
    names = [name.strip() for name in (request.networks or "").split(",") if name.strip()]
    with progress() as tell:
        result = validation.validate_published(
            request.published, traces=request.traces, networks=names, minutes=minutes, progress=tell
        )
    document = _document(result)
    if output is not None:
        write_file(output / "published.json", json.dumps(document, indent=1))
    if json_:
        print_json(document)
    else:
        _print(result)
    for line in result.left_out:
        say(f"left out: {line}")
    if output is not None:
        say(f"wrote published.json in {output}")
    if tolerance is not None and document["latency"]["mape"] > tolerance:
        raise typer.Exit(1)


def _document(result: PublishedValidation) -> dict[str, Any]:
    return {
        "cases": [
            {
                "name": case.network,
                "family": case.family,
                "group": case.group,
                "predicted": case.predicted_s,
                "measured": case.published_s,
                "error": case.error,
            }
            for case in result.cases
        ],
        "latency": asdict(result.accuracy_by(lambda _: "all")["all"]),
        "by_group": {name: asdict(a) for name, a in result.accuracy_by(lambda c: c.group).items()},
        "by_family": {name: asdict(a) for name, a in result.accuracy_by(lambda c: c.family).items()},
        "left_out": list(result.left_out),
    }


def _print(result: PublishedValidation) -> None:
    table = columns("network", "step", "predicted", "published", "error")
    for case in result.cases:
        times = (f"{1e3 * seconds:,.1f} ms" for seconds in (case.predicted_s, case.published_s))
        table.add_row(case.network, case.group, *times, f"{case.error:+.1%}")
    out.print(table)
    keys: tuple[tuple[str, Callable[[PublishedCase], str]], ...] = (
        ("step", lambda case: case.group),
        ("family", lambda case: case.family),
    )
    for heading, key in keys:
        summary = columns(heading, "networks", "MAPE", "within 10 %", "within 20 %", "largest", "tau")
        for name, a in result.accuracy_by(key).items():
            within20 = sum(abs(c.error) <= 0.2 for c in result.cases if key(c) == name) / a.cases
            tau = "-" if a.kendall_tau is None else f"{a.kendall_tau:.2f}"
            summary.add_row(
                name, str(a.cases), f"{a.mape:.1%}", f"{a.within_10pct:.0%}", f"{within20:.0%}", f"{a.max:.1%}", tau
            )
        out.print(summary)
