"""One row of a finished sweep, evaluated again in full: what its report shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pararev_hw import limits
from pararev_hw.costmodels.energy_models import forward_j_by_model
from pararev_hw.documents import parse_json, read_text
from pararev_hw.errors import BadFile, BadInput, Infeasible
from pararev_hw.progress import Progress, silent
from pararev_hw.sweeps.engine import Engine
from pararev_hw.sweeps.problem import study_of, variant_of
from pararev_hw.sweeps.spec import Sweep, from_yaml
from pararev_hw.sweeps.store import RESULTS, read_manifest, read_results
from pararev_hw.sweeps.variants import graph_of, with_rate
from pararev_hw.types import Study


def row_study(folder: Path, row: int, progress: Progress = silent) -> Study:
    """The study of that row's configuration, of the sweep in `folder`: its latency and energy are the row's.

    Raises BadFile where the folder holds no finished sweep, BadInput for a row that it does not have, Infeasible for
    one that failed.
    """
    sweep = sweep_in(folder)
    values = _row(sweep, folder, row)
    if values["failed"]:
        raise Infeasible(f"row {row} of {folder} is not possible: {values['failed']}")
    variant = variant_of(values)
    graph = with_rate(graph_of(variant, sweep, progress), variant.rate)
    engine = Engine(graph, sweep.device, sweep.scheduler, sweep.memory_limit_bytes)
    progress(f"evaluating row {row}")
    return replace(study_of(engine, sweep, values), forward_j_by_model=forward_j_by_model(graph))


def recommended_row(folder: Path) -> int:
    """The row that the finished sweep recommends. Raises BadFile."""
    path = folder / "sweep.json"
    document = parse_json(read_text(path, limits.GRAPH_FILE_BYTES, "a sweep's results are JSON"), str(path))
    try:
        return int(document["recommended"]["row"])
    except (KeyError, TypeError, ValueError):
        raise BadFile(f"{path}: recommends no row: give --row") from None


def sweep_in(folder: Path) -> Sweep:
    """The sweep that a folder holds the results of. Raises BadFile."""
    manifest = read_manifest(folder / "manifest.json")
    if manifest is None or not (folder / RESULTS).exists() or not isinstance(manifest.get("file"), str):
        raise BadFile(
            f"{folder}: holds no finished sweep of this release: name the folder that `pararev-hw sweep -o` wrote, "
            "or run the sweep again with --fresh"
        )
    limit = manifest.get("memory_limit_bytes")
    if limit is not None and not isinstance(limit, int):
        raise BadFile(f"{folder / 'manifest.json'}: memory_limit_bytes is no number of bytes: run the sweep again")
    return from_yaml(manifest["file"], str(folder), folder / str(manifest.get("folder", ".")), limit)


def _row(sweep: Sweep, folder: Path, row: int) -> dict[str, Any]:
    if not 0 <= row < sweep.rows:
        raise BadInput(f"row {row} of {folder}: it has rows 0 to {sweep.rows - 1}")
    try:
        chunk = row // sweep.chunk_rows
        start, _ = sweep.span(chunk)
        values: dict[str, Any] = read_results(folder, chunk).slice(row - start, 1).to_pylist()[0]
    except (OSError, IndexError, pa.ArrowException) as error:
        raise BadFile(f"{folder / RESULTS}: is damaged: run the sweep again") from error
    return values
