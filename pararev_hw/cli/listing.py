"""The verbs that say what there is: models, devices, schedulers, version."""

from __future__ import annotations

import json
from importlib import resources
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from pararev_hw.cli.console import columns, out, print_json, progress
from pararev_hw.cli.inputs import hardware_named
from pararev_hw.cli.options import (
    JsonOpt,
)
from pararev_hw.sizes import counted
from pararev_hw.versions import installed_version


def list_models(json_: JsonOpt = False) -> None:
    """List the networks of the zoo."""
    # from a file, written by docs/make_zoo.py: the networks themselves load torch
    zoo = resources.files("pararev_hw").joinpath("models", "zoo.json").read_text(encoding="utf-8")
    axes_and_rows = [(row.pop("axes"), row) for row in json.loads(zoo)]
    if json_:
        print_json([row for _, row in axes_and_rows])
        return
    table = columns("name", "blocks", "T", "input", "classes", "trained by")
    for axes, row in axes_and_rows:
        blocks = ",".join(map(str, row["blocks"]))
        table.add_row(row["name"], blocks, str(row["timesteps"]), axes, str(row["classes"]), row["method"])
    out.print(table)


def list_devices(
    name: Annotated[str | None, typer.Argument(help="Print every number of this device.")] = None,
    json_: JsonOpt = False,
) -> None:
    """List the devices, or print every number of one with its source."""
    from pararev_hw import devices

    if name is None:
        listing = devices.listing()
        rows = [dict(zip(listing.columns, cells, strict=True)) for cells in listing.cells]
        if json_:
            print_json([{**row, "standing": row["parameters"]} for row in rows])
            return
        table = columns("name", "kind", "lanes", "parameters", "times", "what")
        for row in rows:
            error = row["expected_error"]
            times = row["times"] if error is None else f"{row['times']}, ±{error:.0%}"
            cells = (str(row[name]) for name in ("name", "kind", "lanes", "parameters"))
            table.add_row(*cells, str(times or "-"), Text(str(row["title"])))
        out.print(table)
        return
    with progress() as tell:
        device = devices.bare_device(hardware_named(name, tell))
    if json_:
        print_json(devices.device_to_dict(device))
        return
    out.print(Text(f"{device.name}: {device.title} ({device.kind}, {counted(device.lanes, 'lane')})"))
    for figure, value, unit, source, provenance, _ in devices.describe(device):
        value_text = devices.PARAMETERS[figure].shown(value)
        text = value_text if isinstance(value_text, str) else f"{value_text:.4g} {unit}"
        out.print(Text(f"{figure}  {text}  ({provenance})"))
        out.print(Padding(Text(source), (0, 0, 0, 4)))
    for note in device.notes:
        out.print(Text(note))


def list_schedulers(json_: JsonOpt = False) -> None:
    """List the schedulers."""
    from pararev_hw import schedulers

    rows = {n: schedulers.describe(n) for n in schedulers.names()}
    if json_:
        print_json([{"name": n, "description": d} for n, d in rows.items()])
        return
    table = columns("name", "what it does")
    for n, description in rows.items():
        table.add_row(n, Text(description))
    out.print(table)


def version() -> None:
    """Print the version."""
    typer.echo(installed_version("pararev-hw"))
