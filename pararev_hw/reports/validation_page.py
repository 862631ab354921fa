"""The files of a validation: `validation.html`, which needs nothing but itself, its pictures and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pararev_hw.atomic import write_files
from pararev_hw.reports import units
from pararev_hw.reports.document import dump
from pararev_hw.reports.page import Cell, Row, both_widths, render, words_cell
from pararev_hw.reports.scatter import Quantity, scatter_svg
from pararev_hw.reports.validation import (
    HELD_OUT,
    accuracy_rows,
    signed,
    size_of,
    step_of,
    validation_answer,
    validation_document,
)
from pararev_hw.types import Accuracy, Validation, ValidationCase

_FILES: Mapping[Quantity, tuple[str, str, str]] = {
    "latency_s": ("latency.svg", "latency", "The time of a step."),
    "peak_bytes": ("memory.svg", "memory", "Peak memory, as the allocator recorded it."),
    "energy_j": ("energy.svg", "energy", "Energy of a step, by the board's counter."),
}


def write_validation(validation: Validation, folder: Path, tolerance: float | None = None) -> tuple[Path, ...]:
    """Writes validation.html, validation.json and a scatter plot per quantity into `folder`; gives their paths.

    Raises BadFile where they cannot be written; then no file of the folder changed.
    """
    contents = {
        "validation.html": validation_html(validation),
        "validation.json": dump(validation_document(validation, tolerance)),
    }
    contents |= {file: scatter_svg(validation, quantity) for quantity, (file, _) in _pictures(validation).items()}
    return write_files(Path(folder), contents)


def _pictures(validation: Validation) -> Mapping[Quantity, tuple[str, str]]:
    """File name and caption of the picture of each quantity that was measured."""
    measured = {q: v for q, v in _FILES.items() if getattr(validation, v[1]) is not None}
    return {quantity: (file, caption) for quantity, (file, _, caption) in measured.items()}


def _scatter(quantity: Quantity, validation: Validation, width: float) -> str:
    return scatter_svg(validation, quantity, width)


def validation_html(validation: Validation) -> str:
    """The validation as one HTML document that needs nothing but itself."""
    energy = validation.energy is not None
    heads = [
        *[("network", False), ("step", False), ("width, B, T", False), ("held out", False)],
        *[("predicted", True), ("measured", True), ("error", True)],
        *[(name, True) for name in validation.baselines],
        *[("memory predicted", True), ("measured", True), ("error", True)],
        *([("energy predicted", True), ("measured", True), ("error", True)] if energy else []),
        *[("steps", True), ("spread", True)],
    ]
    return render(
        "validation.html.j2",
        title=f"Predicted and measured on {validation.title}",
        device=validation.title,
        answer=validation_answer(validation),
        interrupted=validation.interrupted,
        tiles=_tiles(validation),
        accuracy_heads=[
            (n, k > 0) for k, n in enumerate(("what", "cases", "MAPE", "largest", "within 10 %", "Kendall τ"))
        ],
        accuracy_rows=[
            _accuracy_row(n, a, k == 0) for k, (_, rows) in enumerate(accuracy_rows(validation)) for n, a in rows
        ],
        pictures=[
            (file, both_widths(partial(_scatter, quantity), validation), caption)
            for quantity, (file, caption) in _pictures(validation).items()
        ],
        heads=heads,
        rows=[_row(c, tuple(validation.baselines), energy) for c in validation.cases],
        origin=_origin(validation),
        left_out=list(validation.left_out),
    )


def _tiles(validation: Validation) -> list[tuple[str, str, str]]:
    """Name, value, and a note beneath."""
    tiles = []
    for name, a in (("Latency", validation.latency), ("Memory", validation.memory), ("Energy", validation.energy)):
        if a is not None:
            tiles.append((f"{name}, mean error", units.percent(a.mape), f"at most {units.percent(a.max)}"))
    if validation.latency is not None:
        tiles.append(
            ("Within 10 %", units.percent(validation.latency.within_10pct), f"of {validation.latency.cases} cases")
        )
        if validation.latency.kendall_tau is not None:
            tiles.append(("Ranking", f"{validation.latency.kendall_tau:.2f}", "Kendall's τ, 1 is perfect"))
    tiles += [(name, units.percent(a.mape), "mean error, same cases") for name, a in validation.baselines.items()]
    return tiles


def _accuracy_row(name: str, a: Accuracy, strong: bool) -> Row:
    shares: list[Cell] = [(units.percent(v), v) for v in (a.mape, a.max, a.within_10pct)]
    tau: Cell = ("-", None) if a.kendall_tau is None else (f"{a.kendall_tau:.3f}", a.kendall_tau)
    return Row((words_cell(name), (str(a.cases), a.cases), *shares, tau), strong=strong)


def _row(c: ValidationCase, baselines: tuple[str, ...], energy: bool) -> Row:
    m = c.measured
    network = c.network if c.failed is None else f"{c.network}: failed: {c.failed}"
    cells: list[Cell] = [words_cell(w) for w in (network, step_of(c), size_of(c), HELD_OUT[c.held_out])]
    cells += _compared(c, "latency_s", units.seconds)
    for name in baselines:
        cells.append(_error(None if m is None or name not in c.baselines else c.baselines[name] / m.latency_s - 1))
    cells += _compared(c, "peak_bytes", units.size)
    if energy:
        cells += _compared(c, "energy_j", units.joules)
    cells += [(str(len(c.samples_s)), len(c.samples_s)), _spread(c.samples_s)]
    return Row(tuple(cells), strong=c.failed is not None)


def _compared(c: ValidationCase, quantity: Quantity, show: Callable[[float | None], str]) -> list[Cell]:
    """Predicted, measured, and the error."""
    both = [None if side is None else getattr(side, quantity) for side in (c.predicted, c.measured)]
    cells: list[Cell] = [("-", None) if value is None else (show(value), value) for value in both]
    return [*cells, _error(c.error(quantity))]


def _error(value: float | None) -> Cell:
    return (signed(value), value)


def _spread(samples_s: tuple[float, ...]) -> Cell:
    """Interquartile range over median of the measured steps."""
    ordered = sorted(samples_s)
    if len(ordered) < 4:
        return ("-", None)
    n = len(ordered)
    share = (ordered[3 * n // 4] - ordered[n // 4]) / ordered[n // 2]
    return (units.percent(share), share)


def _origin(validation: Validation) -> list[str]:
    e = validation.environment
    threads = f"{e.threads} thread{'s' if e.threads != 1 else ''}"
    machine = ", ".join(filter(None, (e.device, e.driver, e.machine)))
    where = f"{validation.suite} suite; torch {e.torch}, {threads}, {machine}"
    held_out_rows = [
        f"{name}: {'the calibration ran no step of this family of networks' if key == 'network' else words}"
        for key, name, words in (
            ("network", HELD_OUT["network"], ""),
            ("shape", HELD_OUT["shape"], "it ran another depth or size of the family, never this network"),
        )
        if key in validation.by_held_out
    ]
    measured = "measured: the median of whole steps on a fixed random batch, loading of data left out"
    spread = "spread: interquartile range over median of those steps"
    return [where, measured, spread, *held_out_rows, *validation.notes]
