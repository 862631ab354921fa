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
        device_by_name = {
            n: None if n == "cpu" else devices.bare_device(devices.load_hardware(n)) for n in devices.hardware_names()
        }
        rows = [
            (
                n,
                d.kind if d else "cpu",
                d.lanes if d else 1,
                d.title if d else "this machine, measured",
                d.provenance if d else "measured",
            )
            for n, d in device_by_name.items()
        ]
        if json_:
            print_json([dict(zip(("name", "kind", "lanes", "title", "standing"), r, strict=True)) for r in rows])
            return
        table = columns("name", "kind", "lanes", "figures", "what")
        for device_name, kind, lanes, title, standing in rows:
            table.add_row(device_name, kind, str(lanes), standing, Text(title))
        out.print(table)
        return
    with progress() as tell:
        device = devices.bare_device(hardware_named(name, tell))
    if json_:
        print_json(devices.device_to_dict(device))
        return
    out.print(Text(f"{device.name}: {device.title} ({device.kind}, {device.lanes} lanes)"))
    for figure, value, unit, source, standing, _ in devices.describe(device):
        shown = devices.PARAMETERS[figure].shown(value)
        text = shown if isinstance(shown, str) else f"{shown:.4g} {unit}"
        out.print(Text(f"{figure}  {text}  ({standing})"))
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
