"""The verb `calibrate`: measure this machine's CPU or GPU and fit a profile to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pararev_hw.atomic import is_stream, write_file
from pararev_hw.cli.console import columns, out, print_json, progress, say
from pararev_hw.cli.interruption import terminated_as_interrupted
from pararev_hw.cli.options import JsonOpt
from pararev_hw.cli.outputs import check_output

if TYPE_CHECKING:
    from pararev_hw.types import Profile


def calibrate(
    device: Annotated[str, typer.Option("--device", "-d", help="Device of this machine to measure: cpu or cuda.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write the profile to, such as profile.json.")],
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes to measure for at most.")] = 5.0,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Folder for plots of residuals and curves (SVG).")
    ] = None,
    json_: JsonOpt = False,
) -> None:
    """Measure this machine and fit a profile: a device whose predictions come from measurement."""
    from pararev_hw import calibration
    from pararev_hw.calibration.locks import locked
    from pararev_hw.devices.profiles import profile_document, profile_to_json

    check_output(output)
    calibration.check_device(device)
    with locked(None if is_stream(output) else output), progress() as tell, terminated_as_interrupted():
        profile, interrupted = calibration.calibrate(device, minutes, progress=tell)
        write_file(output, profile_to_json(profile))
    if plots is not None:
        from pararev_hw.calibration.plots import write_plots  # draws with matplotlib: heavy, and only asked for here

        for path in write_plots(profile, plots):
            say(f"wrote {path}")
    if json_:
        print_json(json.loads(json.dumps(profile_document(profile))))
    else:
        _print(profile)
    for line in _notes(profile):
        say(line)
    say(f"wrote {output}")
    if interrupted:
        say(f"interrupted: {output} holds {len(profile.samples)} measurements and is a valid profile")
        raise typer.Exit(130)


def _print(profile: Profile) -> None:
    from pararev_hw.calibration.residuals import kind_residuals, step_residuals

    table = columns("kind", "datatype", "shapes", "held out", "median error", "90 %", "bias")
    table.title = f"{profile.device.title}: error on held-out shapes"
    for row in kind_residuals(profile):
        numbers = (f"{row.median:.1%}", f"{row.p90:.1%}", f"{row.bias:+.1%}")
        table.add_row(row.kind, row.dtype, str(row.shapes), str(row.held_out), *numbers)
    out.print(table)
    steps = step_residuals(profile)
    if steps:
        table = columns("held-in step", "measured", "ops alone, over measured")
        for name, seconds, share in steps:
            table.add_row(Text(name), f"{seconds * 1e3:.4g} ms", f"{share:.3f}")
        out.print(table)


def _notes(profile: Profile) -> list[str]:
    """What a user should know of how it went."""
    noisy = sum(s.noisy for s in profile.samples)
    lines = []
    if profile.samples and noisy > len(profile.samples) // 20:
        lines.append(
            f"noisy machine: {noisy} of {len(profile.samples)} measurements spread by more than 10 %, even when "
            "repeated: calibrate again when nothing else runs"
        )
    return lines + [f"missing: {part}" for part in profile.missing]
