"""A paper's relative figures beside predictions: JSON, a table, a picture, a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pararev_hw.atomic import write_files
from pararev_hw.reports import svg, units
from pararev_hw.reports.document import dump
from pararev_hw.reports.page import Cell, Row, markup, render, words_cell
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
        cells = (row.ratio, row.form or "-", f"{row.published:.3f}", *(_shown(row, way) for way in launches(check)))
        table.add_row(*map(Text, cells))
    return table


def _shown(row: PaperRow, launch: str) -> str:
    return f"{row.predicted[launch]:.3f}" if launch in row.predicted else ""


def _row_name(row: PaperRow) -> str:
    return f"{row.quantity}, {row.ratio}" + (f", {row.form}" if row.form else "")


def paper_svg(check: PaperCheck) -> str:
    """A line per ratio, from 0: a bar at the published value, a point for each predicted one."""
    values = [v for r in check.rows for v in (r.published, *r.predicted.values())]
    most = max(values, default=1.0) * 1.05
    right = svg.WIDTH - 24.0

    def px(value: float) -> float:
        return NAME_PX + (right - NAME_PX) * value / most

    bottom = TOP + ROW * len(check.rows)
    marks = units.ticks(most, 8)
    grid = "".join(f"M{svg.number(px(v))} {svg.number(TOP)}V{svg.number(bottom)}" for v in marks)
    parts = [_legend(launches(check)), svg.element("path", d=grid, class_="grid")]
    parts += [
        svg.text(px(v), bottom + 18, label, "mid quiet") for v, label in zip(marks, units.labels(marks), strict=True)
    ]
    for k, row in enumerate(check.rows):
        y = TOP + ROW * (k + 0.5)
        name = svg.shorten(_row_name(row), NAME_PX - 24)
        parts.append(f"<g>{svg.title(_row_name(row))}{svg.text(NAME_PX - 12, y + 4, name, 'end')}</g>")
        published = svg.title(f"{_row_name(row)}: {row.published:.3f} in the paper")
        bar = {"x": px(row.published) - 2, "y": y - 9, "width": 4, "height": 18}
        parts.append(svg.element("rect", published, style="fill:var(--ink)", **bar))
        for way, value in row.predicted.items():
            tooltip = svg.title(f"{_row_name(row)}: {value:.3f} predicted, {way or 'peak'}")
            parts.append(_point(px(value), y, _colour(launches(check), way), tooltip))
    label = f"Published and predicted ratios of {check.paper}"
    return svg.figure(bottom + 32, label, parts, "paper")


def _colour(names: Sequence[str], way: str) -> str:
    return _COLOURS[names.index(way) % len(_COLOURS)]


def _point(x: float, y: float, colour: str, inner: str = "") -> str:
    return svg.element("circle", inner, class_=f"p-{colour}", style="stroke:var(--paper)", cx=x, cy=y, r=5)


def _legend(names: Sequence[str]) -> str:
    parts = [svg.element("rect", x=24, y=12, width=4, height=18, style="fill:var(--ink)"), svg.text(36, 26, "paper")]
    x = 36 + svg.text_width("paper") + 18
    for way in names:
        parts += [_point(x + 5, 21, _colour(names, way)), svg.text(x + 16, 26, way or "peak memory")]
        x += 16 + svg.text_width(way or "peak memory") + 16
    return "".join(parts)


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
        picture_svg=markup(paper_svg(check)),
        assumptions=list(check.assumptions),
        untraced=list(check.untraced),
    )


def _row(row: PaperRow, ways: Sequence[str]) -> Row:
    predicted: list[Cell] = [(_shown(row, way), row.predicted.get(way)) for way in ways]
    published: Cell = (f"{row.published:.3f}", row.published)
    named = [words_cell(w) for w in (row.quantity, row.ratio, row.form or "-")]
    return Row((*named, published, *predicted, words_cell(row.source)))


def write_paper(check: PaperCheck, folder: Path) -> tuple[Path, ...]:
    """Writes paper.html, paper.json and paper.svg into `folder` and gives their paths in that order."""
    contents = {
        "paper.html": paper_html(check),
        "paper.json": dump(paper_document(check)),
        "paper.svg": paper_svg(check),
    }
    return write_files(Path(folder), contents)
