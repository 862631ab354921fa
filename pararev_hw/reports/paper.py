"""A paper's relative figures beside predictions: JSON, a table, a picture, a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pararev_hw.atomic import write_files
from pararev_hw.reports import svg, units
from pararev_hw.reports.document import dump
from pararev_hw.reports.page import Cell, Row, both_widths, render, words_cell
from pararev_hw.reports.text import columns_of, plain_table
from pararev_hw.types import PaperCheck, PaperRow

NAME_PX, ROW, TOP = 420.0, 24.0, 58.0
_COLOURS = ("forward", "recompute", "backward", "update", "other")


def launches(check: PaperCheck) -> tuple[str, ...]:
    """Every way to launch that a row has a prediction for, in the order of the rows."""
    return tuple(dict.fromkeys(way for row in check.rows for way in row.predicted))


def differences(check: PaperCheck) -> dict[str, dict[str, float]]:
    """Mean of |predicted / published - 1|: quantity -> form and way to launch -> share of one."""
    by_quantity: dict[str, dict[str, list[float]]] = {}
    for row in check.rows:
        for launch, value in row.predicted.items():
            way = ", ".join(filter(None, (row.form or "one form", launch)))
            by_quantity.setdefault(row.quantity, {}).setdefault(way, []).append(abs(value / row.published - 1))
    return {q: {way: math.fsum(off) / len(off) for way, off in sorted(ways.items())} for q, ways in by_quantity.items()}


def paper_document(check: PaperCheck) -> dict[str, Any]:
    """The check as JSON-ready data."""
    return {
        "schema_version": check.schema_version,
        "paper": check.paper,
        "device": check.device,
        "answer": paper_answer(check),
        "rows": [asdict(row) for row in check.rows],
        "mean_difference": differences(check),
        "assumptions": list(check.assumptions),
        "untraced": list(check.untraced),
    }


def paper_answer(check: PaperCheck) -> str:
    """How far the predicted ratios are from the published ones."""
    ranges = []
    for quantity, ways in differences(check).items():
        best, worst = (pick(ways, key=lambda way: (ways[way], way)) for pick in (min, max))
        ranges.append(f"{quantity} {units.percent(ways[best])} ({best}) to {units.percent(ways[worst])} ({worst})")
    return (
        f"{len(check.rows)} ratios of {check.paper} beside those predicted for {check.device}: "
        f"they differ, on average, by {'; '.join(ranges)}. "
        "Nothing was fitted to them, and the paper's own GPU is unknown."
    )


def paper_table(check: PaperCheck) -> Table:
    """A row per ratio: published, and predicted by way to launch."""
    table = plain_table(f"{check.paper}, beside {check.device}")
    columns_of(table, ("ratio", "form"), ("paper", *(launch or "peak" for launch in launches(check))))
    before = ""
    for row in check.rows:
        if row.quantity != before:
            table.add_section()
            table.add_row(Text(row.quantity, style="bold"))
        before = row.quantity
        cells = (row.ratio, row.form or "-", f"{row.published:.3f}", *(_text(row, way) for way in launches(check)))
        table.add_row(*map(Text, cells))
    return table


def _text(row: PaperRow, launch: str) -> str:
    return f"{row.predicted[launch]:.3f}" if launch in row.predicted else ""


def _row_name(row: PaperRow) -> str:
    return f"{row.quantity}, {row.ratio}" + (f", {row.form}" if row.form else "")


def paper_svg(check: PaperCheck, width: float = svg.WIDTH) -> str:
    """A line per ratio, from 0: a bar at the published value, a point for each predicted one; the ratio's name beside
    it, or above where that is too narrow."""
    values = [v for r in check.rows for v in (r.published, *r.predicted.values())]
    most = max(values, default=1.0) * 1.05
    narrow = width < svg.WIDTH
    left, right, row_px = (12.0, width - 12.0, 2 * ROW) if narrow else (NAME_PX, width - 24.0, ROW)

    def px(value: float) -> float:
        return left + (right - left) * value / most

    legend, y = _legend(launches(check), width - 12.0)
    top = y + TOP - 26
    bottom = top + row_px * len(check.rows)
    marks = units.ticks(most, 4 if narrow else 8)
    grid = "".join(f"M{svg.number(px(v))} {svg.number(top)}V{svg.number(bottom)}" for v in marks)
    parts = [legend, svg.element("path", d=grid, class_="grid")]
    labels = zip(marks, units.labels(marks), strict=True)
    parts += [svg.text(max(left + 8, px(v)), bottom + 18, label, "mid quiet") for v, label in labels]
    for k, row in enumerate(check.rows):
        y = top + row_px * k + (1.5 if narrow else 0.5) * ROW
        parts += [_row_label(row, left, y, narrow, right), *_marks(row, check, px, y)]
    label = f"Published and predicted ratios of {check.paper}"
    return svg.figure(bottom + 32, label, parts, "paper", width)


def _row_label(row: PaperRow, left: float, y: float, above: bool, right: float) -> str:
    name = svg.shorten(_row_name(row), right - left if above else left - 24)
    words = svg.text(left, y - ROW + 8, name, "halo") if above else svg.text(left - 12, y + 4, name, "end")
    return f"<g>{svg.title(_row_name(row))}{words}</g>"


def _marks(row: PaperRow, check: PaperCheck, px: Callable[[float], float], y: float) -> list[str]:
    """The published value as a bar, each predicted one as a point."""
    published = svg.title(f"{_row_name(row)}: {row.published:.3f} in the paper")
    bar = {"x": px(row.published) - 2, "y": y - 9, "width": 4, "height": 18}
    parts = [svg.element("rect", published, style="fill:var(--ink)", **bar)]
    for way, value in row.predicted.items():
        tooltip = svg.title(f"{_row_name(row)}: {value:.3f} predicted, {way or 'peak'}")
        parts.append(_point(px(value), y, _colour(launches(check), way), tooltip))
    return parts


def _colour(names: Sequence[str], way: str) -> str:
    return _COLOURS[names.index(way) % len(_COLOURS)]


def _point(x: float, y: float, colour: str, inner: str = "") -> str:
    return svg.element("circle", inner, class_=f"p-{colour}", style="stroke:var(--paper)", cx=x, cy=y, r=5)


def _legend(names: Sequence[str], right: float) -> tuple[str, float]:
    """What a bar and the points mean; gives the last baseline too."""
    left = 12.0
    parts = [svg.element("rect", x=left, y=12, width=4, height=18, style="fill:var(--ink)"), svg.text(24, 26, "paper")]
    x, y = 24 + svg.text_width("paper") + 18, 26.0
    for way in names:
        words = way or "peak memory"
        size = 16 + svg.text_width(words)
        if x + size > right:
            x, y = left, y + 20
        parts += [_point(x + 5, y - 5, _colour(names, way)), svg.text(x + 16, y, words)]
        x += size + 16
    return "".join(parts), y


def paper_html(check: PaperCheck) -> str:
    """The check as one HTML document that needs nothing but itself."""
    return render(
        "paper.html.j2",
        title=f"{check.paper} beside predictions",
        paper=check.paper,
        device=check.device,
        answer=paper_answer(check),
        heads=[
            *((name, False) for name in ("quantity", "ratio", "form")),
            ("paper", True),
            *((w or "peak", True) for w in launches(check)),
            ("where", False),
        ],
        rows=[_row(row, launches(check)) for row in check.rows],
        picture_svg=both_widths(paper_svg, check),
        assumptions=list(check.assumptions),
        untraced=list(check.untraced),
    )


def _row(row: PaperRow, ways: Sequence[str]) -> Row:
    predicted: list[Cell] = [(_text(row, way), row.predicted.get(way)) for way in ways]
    published: Cell = (f"{row.published:.3f}", row.published)
    cells = [words_cell(w) for w in (row.quantity, row.ratio, row.form or "-")]
    return Row((*cells, published, *predicted, words_cell(row.source)))


def write_paper(check: PaperCheck, folder: Path) -> tuple[Path, ...]:
    """Writes paper.html, paper.json and paper.svg into `folder` and gives their paths in that order."""
    contents = {
        "paper.html": paper_html(check),
        "paper.json": dump(paper_document(check)),
        "paper.svg": paper_svg(check),
    }
    return write_files(Path(folder), contents)
