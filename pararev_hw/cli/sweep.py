"""The verb `sweep`: many configurations of a device and a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pararev_hw.cli.console import out, print_json, progress, say
from pararev_hw.cli.options import JsonOpt, MemoryLimitOpt, parsed_limit
from pararev_hw.cli.outputs import writable


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What is swept: see docs/how-to/sweep.md.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to; an interrupted sweep continues there.")
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, whatever the folder holds.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes (default: one per core).")] = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="Address of a Dask scheduler, such as tcp://host:8786."),
    ] = None,
    compute: Annotated[
        str,
        typer.Option("--compute", help="cpu, or cuda: PyTorch evaluates configurations of an accelerator on this GPU."),
    ] = "cpu",
    memory_limit: MemoryLimitOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Evaluate many configurations of a device and a network: the Pareto front and what matters."""
    limit = parsed_limit(memory_limit)
    from pararev_hw import reports, sweeps

    sweep_spec = sweeps.load(file, limit)
    writable(output)
    with progress() as tell:
        result = sweeps.run(
            sweep_spec,
            output,
            fresh=fresh,
            processes=workers,
            cluster=cluster,
            compute=compute,
            progress=tell,
            warn=say,
        )
        tell("drawing the front")
        written = reports.write_sweep(result, output)
    if json_:
        print_json(reports.sweep_document(result))
        return
    for line in reports.workload_lines(result):
        out.print(Text(line))
    out.print(Text(reports.sweep_answer(result)))
    out.print(reports.sweep_table(result, out.width))
    for remark in reports.sweep_remarks(result):
        out.print(Text(f"{remark[:1].upper()}{remark[1:]}."))
    say(f"wrote results.parquet, results.csv, {', '.join(p.name for p in written)} in {output}: open {written[0]}")
