"""Runs a sweep into a folder: prepares, evaluates what is missing, merges, analyses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pararev_hw import limits
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.measurement.environment import cores
from pararev_hw.progress import Progress, silent, time_left
from pararev_hw.reports import units
from pararev_hw.sweeps import search, workers
from pararev_hw.sweeps.analysis import analyse
from pararev_hw.sweeps.arrow_arrays import numpy_array
from pararev_hw.sweeps.chips import write_chips
from pararev_hw.sweeps.explain import FILE as POINTS
from pararev_hw.sweeps.explain import explained, read_explanations, write_explanations
from pararev_hw.sweeps.problem import Problem, Table, check_satisfiable, prepare
from pararev_hw.sweeps.sources import digests, package_versions, users_files
from pararev_hw.sweeps.spec import Sweep, complaints_begin
from pararev_hw.sweeps.store import CSV, Store, missing, opened
from pararev_hw.sweeps.summary import Part, Summary, empty_summary, summary_of
from pararev_hw.sweeps.variants import networks_of
from pararev_hw.types import SweepResult

COMPUTE = ("cpu", "cuda")
MUCH_BYTES = 100 << 20  # of rows on the disk, from which on they are told beforehand


def run(
    sweep: Sweep,
    folder: Path,
    *,
    fresh: bool = False,
    processes: int | None = None,
    cluster: str | None = None,
    compute: str = "cpu",
    progress: Progress = silent,
    warn: Progress = silent,
) -> SweepResult:
    """The finished sweep. What the folder holds of it already is kept; `fresh` begins again.

    `processes` on this machine (None: as many as it has cores, one where the sweep is small), or the workers of the
    Dask scheduler at `cluster`. `compute` is "cpu", or "cuda": PyTorch evaluates on a GPU.
    `progress` hears how far it is, `warn` what is to be told in any case. Raises
    Infeasible where no configuration is possible.
    """
    if processes is not None and processes < 1:
        raise BadInput(f"--workers is {processes}: it must be at least 1")
    batch_on = _batch_device(sweep, compute)
    searches = sweep.method.population > 0
    if searches:
        search.available()
        if cluster is not None:
            raise BadInput(f"--cluster: method {sweep.method.name} asks for one generation after another: leave it out")
    with complaints_begin(sweep.where):
        check_satisfiable(sweep)
    with opened(sweep, folder, fresh=fresh) as store:
        for line in store.warnings:
            warn(line)
        resumed = sum(b - a for a, b in map(sweep.span, store.finished))
        summary = empty_summary(sweep)
        missing_parts = missing(store)
        for chunk in sorted(store.finished):
            summary.add(summary_of(sweep, store.read_part(chunk)))
        seconds = 0.0
        problem: Problem | None = None
        if missing_parts:
            with complaints_begin(sweep.where):
                problem = prepare(sweep, progress, batch_on)
            networks = networks_of(sweep)
            files = users_files(set(problem.read), networks, folder)
            store.begin(digests(files, folder), package_versions(files, networks))
            store.write_base(problem.base())
            began, written_bytes = time.perf_counter(), 0
            workers_here = processes or (1 if batch_on else None)  # one process feeds a GPU
            for chunk, part in _parts(problem, store, missing_parts, workers_here, cluster):
                store.write(chunk, part.data)
                summary.add(part.summary)
                written_bytes += len(part.data)
                progress(_how_far(store, resumed, time.perf_counter() - began, written_bytes))
            seconds = time.perf_counter() - began
        progress("gathering the results")
        store.merge()
        if missing_parts or not (folder / CSV).exists():
            store.write_csv()
        _check_memory(sweep, summary, progress)
        result = analyse(store, summary, resumed, seconds)
        if problem is None and result.pareto and not (folder / POINTS).exists():  # stopped before it was written
            problem = prepare(sweep, progress)
        if problem is not None and result.pareto:
            progress("explaining the points that matter")
            result = replace(result, explanations=explained(problem, result))
            write_explanations(folder, sweep.fingerprint, result.explanations)
        else:
            result = replace(result, explanations=read_explanations(folder, sweep.fingerprint))
        write_chips(sweep, result, folder)
    if not result.pareto:
        raise Infeasible(f"{sweep.name}: none of {result.evaluated:,} configurations is possible: {_reasons(result)}")
    return result


def _check_memory(sweep: Sweep, summary: Summary, progress: Progress) -> None:
    """Tell what memory the analysis of many configurations on fronts needs. Raises Infeasible where there is not so
    much: the rows are written then."""
    count = summary.front_rows
    if count >= limits.MANY_FRONT_ROWS:
        from pararev_hw.importers.free_memory import check_free_memory  # loads torch, which a finished sweep needs not

        clause = f"{sweep.name}: to sort out {count:,} configurations that no other beats needs"
        advice = "fewer objectives, or some that agree more, leave fewer"
        check_free_memory(limits.FRONT_BYTES * count, clause, advice, progress)


def _batch_device(sweep: Sweep, compute: str) -> str | None:
    """The device on which PyTorch evaluates, None for numpy. Raises BadInput where there is none."""
    if compute not in COMPUTE:
        raise BadInput(f"--compute is {compute!r}: it must be one of {', '.join(COMPUTE)}")
    if compute == "cpu":
        return None
    if sweep.device.kind != "accelerator":
        raise BadInput(
            f"--compute {compute}: configurations of {sweep.device.name}, of kind {sweep.device.kind}, are evaluated "
            "one at a time on the CPU: leave it out"
        )
    from pararev_hw.sweeps.torch_batch import check_device  # without torch where nobody asks for it

    check_device(compute)
    return compute


def _parts(
    problem: Problem, store: Store, part_numbers: Sequence[int], processes: int | None, cluster: str | None
) -> Iterator[tuple[int, Part]]:
    sweep = problem.sweep
    if sweep.method.population:
        return search.generations(problem, set(store.finished), lambda c: _table(store, c), store.folder)
    if cluster is not None:
        return workers.cluster(problem, part_numbers, cluster)
    rows = sum(b - a for a, b in map(sweep.span, part_numbers))
    slow = not all(n.engine is None or n.engine.vectorised for n in problem.networks.values())
    small = rows < (50 if slow else workers.SMALL)
    count = processes or (1 if small else cores())
    count = min(count, len(part_numbers))
    return workers.alone(problem, part_numbers) if count == 1 else workers.local(problem, part_numbers, count)


def _table(store: Store, chunk: int) -> Table:
    """A kept part's columns, missing numbers as NaN."""
    part = store.read_part(chunk)
    return {name: np.array(part[name].to_pylist(), object) for name in ("failed",)} | {
        o.column: numpy_array(part[o.column]).astype(np.float64) for o in store.sweep.objectives
    }


def _how_far(store: Store, resumed: int, seconds: float, written_bytes: int) -> str:
    """Rows so far, and what those written in these seconds say of the rest: time, and much room on the disk."""
    rows = store.sweep.rows
    finished_rows = sum(b - a for a, b in map(store.sweep.span, store.finished))
    rate = (finished_rows - resumed) / seconds if seconds > 0 else 0.0
    left = f", {time_left((rows - finished_rows) / rate)}" if rate > 0 else ""
    disk_bytes = written_bytes * rows // max(1, finished_rows - resumed)
    disk = f"; {units.size(disk_bytes)} on disk in all" if disk_bytes >= MUCH_BYTES else ""
    return f"{finished_rows:,} of {rows:,} configurations ({rate:,.0f}/s{left}{disk})"


def _reasons(result: SweepResult) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in list(result.reasons.items())[:3])
