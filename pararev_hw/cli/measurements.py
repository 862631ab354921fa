"""The verb `measurements`: what `--measure` has timed on this machine, and where it is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from pararev_hw.cli.console import columns, out, print_json, say
from pararev_hw.cli.inputs import cache_folder
from pararev_hw.cli.options import JsonOpt


def measurements(
    clear: Annotated[bool, typer.Option("--clear", help="Delete what was timed on this machine.")] = False,
    json_: JsonOpt = False,
) -> None:
    """Show the operations that --measure has timed on this machine, and the file that keeps them."""
    from pararev_hw.measurement.op_store import machine_description, read_store, store_path

    machine = machine_description()
    folder = cache_folder()
    path = None if folder is None else store_path(folder, machine)
    if clear and path is not None:
        path.unlink(missing_ok=True)
    stored, ignored = (None, None) if path is None else read_store(path, machine)
    count = 0 if stored is None else sum(not key.startswith("type:") for key in stored.ops)
    if json_:
        graphs = 0 if stored is None else len(stored.graphs)
        file = None if path is None else str(path)
        print_json({"file": file, "machine": machine, "operations": count, "networks": graphs, "ignored": ignored})
        return
    table = columns("this machine", "")
    for name, value in machine.items():
        table.add_row(name, value)
    table.add_row("file", "none: there is no home directory" if path is None else str(path))
    table.add_row("networks measured", "0" if stored is None else str(len(stored.graphs)))
    table.add_row("operations timed", str(count))
    for name, estimate in ({} if stored is None else stored.host).items():
        table.add_row(f"beside operations, {name.removesuffix('_s')}", f"{estimate.value * 1e6:.1f} us")
    out.print(table)
    if ignored is not None:
        say(ignored)
