"""A finished sweep as people see it: a page, its pictures, the front as CSV, a table, and the same as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from pararev_hw.atomic import write_files
from pararev_hw.reports import sweep_phrasing, sweep_svg, units
from pararev_hw.reports.page import Cell, Row, both_widths, markup, render
from pararev_hw.reports.text import GAP, plain_table
from pararev_hw.types import PointExplanation, SweepAxis, SweepPoint, SweepResult, WorkloadChoice
from pararev_hw.types.codec import from_fields

SWEEP_FILE = "sweep.json"
SHOWN = 12  # rows of the front in the terminal
NETWORK_WIDTH = 18  # of its column in the terminal: longer names are folded
MOST_ROWS = 200  # of the front on the page; all are in pareto.csv

MEANING = (
    "Who runs where is decided once for each network and number of cores, by the scheduler on the base device; every "
    "configuration then plays that order with its own times, delays and shared bandwidth. Where the sequential step is "
    "no slower, it counts."
)


def sweep_answer(result: SweepResult) -> str:
    """The sweep in a sentence: which configuration to take."""
    return sweep_phrasing.answer(result)


def sweep_document(result: SweepResult) -> dict[str, Any]:
    """What `sweep --json` prints."""
    return {
        "schema_version": result.schema_version,
        "name": result.name,
        "device": result.device,
        "scheduler": result.scheduler,
        "method": result.method,
        "combinations": result.combinations,
        "answer": " ".join((*sweep_phrasing.workload_lines(result), sweep_phrasing.answer(result))),
        "evaluated": result.evaluated,
        "failed": result.failed,
        "reasons": dict(result.reasons),
        "resumed": result.resumed,
        "configs_per_s": result.configs_per_s,
        "objectives": [{**_axis(o), "direction": "max" if o.maximise else "min"} for o in result.objectives],
        "parameters": [_axis(a) for a in result.parameters],
        "fixed": dict(result.fixed),
        "warnings": list(result.warnings),
        "sensitivity_method": "additive model of log(objective) fitted to all possible rows"
        + (": rows of a search are not independent" if result.method in ("nsga2", "tpe") else ""),
        "interactions": dict(result.interactions),
        "base": None if result.base is None else _point(result.base),
        "sensitivity": {o: dict(shares) for o, shares in result.sensitivity.items()},
        "recommended": _point(sweep_phrasing.recommended(result)),
        "best": _point(sweep_phrasing.best(result)),
        "workloads": [
            {
                "network": c.workload.get("network"),
                "mode": c.workload.get("mode"),
                "best": _point(c.best),
                "recommended": _point(c.recommended),
                "shared": None if c.shared is None else _point(c.shared),
            }
            for c in result.workloads
        ],
        "pareto": [_point(p) for p in result.pareto],
    }


def is_sweep(document: object) -> bool:
    """Whether a JSON document is the `sweep.json` of a sweep's folder."""
    return isinstance(document, Mapping) and {"combinations", "evaluated", "pareto", "objectives"} <= document.keys()


def sweep_from_document(document: Mapping[str, Any], where: str) -> SweepResult:
    """The sweep whose `sweep.json` that is, without what only its pictures show: configurations off the front, and
    explanations. Raises BadFile, one line that begins with `where`."""
    fields = {name: document[name] for name in SweepResult.__dataclass_fields__ if name in document}
    axes, workloads = fields.get("objectives"), fields.get("workloads")
    if isinstance(axes, list):
        fields["objectives"] = [{**_keys(axis), "maximise": _keys(axis).get("direction") == "max"} for axis in axes]
    if isinstance(workloads, list):
        fields["workloads"] = [{**_keys(choice), "workload": _workload(_keys(choice))} for choice in workloads]
    return from_fields({"sample": (), **fields}, SweepResult, where)


def _workload(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: choice[key] for key in ("network", "mode") if choice.get(key) is not None}


def _keys(value: object) -> Mapping[str, Any]:
    """The mapping; nothing of what is none, which the check of the fields names."""
    return value if isinstance(value, Mapping) else {}


def _axis(axis: SweepAxis) -> dict[str, Any]:
    return {"name": axis.name, "unit": axis.unit, "log": axis.log, "label": axis.label}


def _point(p: SweepPoint) -> dict[str, Any]:
    return {
        "row": p.row,
        "parameters": _plain(p.parameters),
        "objectives": _plain(p.objectives),
        "alike": p.alike,
    }


def _plain(values: Any) -> dict[str, Any]:
    """Numbers as JSON has them: whole ones without a point, none that is not finite."""
    return {k: _number(v) for k, v in values.items()}


def _number(v: Any) -> Any:
    if isinstance(v, float) and not math.isfinite(v):
        return None
    return int(v) if isinstance(v, float) and v.is_integer() and abs(v) < 2**53 else v


def pareto_csv(result: SweepResult) -> str:
    """The front, a row per configuration: row, parameters and derived quantities, objectives, in SI units."""
    into = io.StringIO()
    writer = csv.writer(into, lineterminator="\n")
    first = result.pareto[0]
    writer.writerow(["row", *first.parameters, *first.objectives, "alike"])
    for p in result.pareto:
        values = (*p.parameters.values(), *p.objectives.values())
        writer.writerow([p.row, *map(_number, values), p.alike])
    return into.getvalue()


def sweep_table(result: SweepResult, width: int | None = None) -> Table:
    """The front, the recommended configuration in bold, no more rows than a terminal shows. Parameters that do not fit
    into `width` characters are left out, the least telling ones first, and named below."""
    chosen, points = sweep_phrasing.recommended(result), _shown(result)
    axes = sweep_phrasing.named_axes(result, *points)
    columns = {a.name: _terminal_column(a, points) for a in (*axes, *result.objectives)}
    room = (math.inf if width is None else width) - max(len("row"), *(len(str(p.row)) for p in points))
    telling = [a.name for a in sweep_phrasing.telling(result)]

    def worth(a: SweepAxis) -> tuple[bool, bool, bool, bool]:
        differs = len({p.parameters[a.name] for p in points}) > 1
        return differs, a.name in sweep_phrasing.WORKLOAD, a.name == "lanes", a.name in telling

    axes_left = sorted(axes, key=worth)
    left_out = []
    while axes_left and sum(GAP + _width(name, cells) for name, cells in columns.items()) > room:
        left_out.append(axes_left.pop(0))
        del columns[left_out[-1].name]
    table = plain_table(sweep_phrasing.counts(result))
    if left_out:
        names = sweep_phrasing.listed([sweep_phrasing.short(a) for a in left_out])
        table.caption = Text(f"too wide to be shown here, and in pareto.csv: {names}")
    table.add_column("row", justify="right")
    for name, cells in columns.items():
        network = name == "network"
        justify: Literal["left", "right"] = "left" if name in sweep_phrasing.WORKLOAD else "right"
        table.add_column(cells[0], justify=justify, overflow="fold", no_wrap=not network, width=_width(name, cells))
    for k, p in enumerate(points, start=1):
        cells = [str(p.row), *(column[k] for column in columns.values())]
        table.add_row(*map(Text, cells), style="bold" if p.row == chosen.row else None)
    return table


def _terminal_column(axis: SweepAxis, points: Sequence[SweepPoint]) -> list[str]:
    """A column's head, in lines no wider than its values or its longest word, and its values."""
    values = [sweep_phrasing.value(_value(p, axis.name), axis.unit) for p in points]
    words = (sweep_phrasing.objective(axis) if axis.label else sweep_phrasing.short(axis)).split()
    room, lines = max(map(len, (*values, *words))), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return ["\n".join(lines), *values]


def _width(name: str, cells: Sequence[str]) -> int:
    """Of a column, whose lines stay whole unless they are names of networks."""
    widest = max(len(line) for cell in cells for line in cell.split("\n"))
    return min(widest, NETWORK_WIDTH) if name == "network" else widest


def _workload_heads(result: SweepResult) -> list[tuple[str, bool]]:
    first, *others = result.objectives
    return [
        ("network", False),
        *((sweep_phrasing.short(a), True) for a in sweep_phrasing.workload_axes(result)),
        *((sweep_phrasing.objective(o), True) for o in result.objectives),
        *([(f"best {sweep_phrasing.objective(first)}", True)] if others else []),
    ]


def _workload_cells(result: SweepResult, choice: WorkloadChoice) -> list[Cell]:
    chosen, (first, *others) = choice.recommended, result.objectives
    cells: list[Cell] = [(sweep_phrasing.workload(choice), None)]
    for axis in (*sweep_phrasing.workload_axes(result), *result.objectives):
        cells.append((sweep_phrasing.value(_value(chosen, axis.name), axis.unit), None))
    best = choice.best.objectives[first.name]
    return [*cells, *([(sweep_phrasing.value(best, first.unit), None)] if others else [])]


def _shown(result: SweepResult) -> list[SweepPoint]:
    """Rows of the front that a terminal shows, the recommended configuration and the best among them."""
    chosen = sweep_phrasing.recommended(result)
    named_rows = {chosen.row, sweep_phrasing.best(result).row}
    step = -(-len(result.pareto) // SHOWN)
    rows = [p for k, p in enumerate(result.pareto) if k % step == 0 or p.row in named_rows]
    return rows if any(p.row == chosen.row for p in rows) else [chosen, *rows]


def sweep_remarks(result: SweepResult) -> tuple[str, ...]:
    """What the table does not show, and which ranges end too early."""
    on_front = {p.row for p in result.pareto}
    left_out = sweep_phrasing.hidden(result, sum(p.row in on_front for p in _shown(result)))
    return (*((left_out,) if left_out else ()), *result.warnings)


def _drawn(result: SweepResult) -> dict[str, tuple[str, str]]:
    """The pictures of a sweep by name: as wide as a desktop column, and as narrow as a telephone's."""
    draws = {
        "pareto": sweep_svg.pareto_svg,
        "parallel": sweep_svg.parallel_svg,
        "sensitivity": sweep_svg.sensitivity_svg,
    }
    return {name: both_widths(draw, result) for name, draw in draws.items()}


def sweep_html(result: SweepResult, pictures: Mapping[str, tuple[str, str]]) -> str:
    """The sweep as one HTML document that needs nothing but itself."""
    return render(
        "sweep.html.j2",
        "sweep.js",
        title=f"{result.name}: {result.evaluated:,} configurations of {result.device}",
        name=result.name,
        device=result.device,
        answer=(*sweep_phrasing.workload_lines(result), sweep_phrasing.answer(result)),
        tiles=_tiles(result),
        pareto_svg=pictures["pareto"],
        parallel_svg=pictures["parallel"],
        sensitivity_svg=pictures["sensitivity"],
        workloads=[Row(tuple(_workload_cells(result, c)), task=f"row-{c.recommended.row}") for c in result.workloads],
        workload_heads=_workload_heads(result),
        compared=_compared(result),
        data=markup(json.dumps(_data(result), allow_nan=False).replace("<", "\\u003c")),
        heads=_heads(result),
        rows=_rows(result),
        hidden=max(0, len(result.pareto) - MOST_ROWS),
        warnings=[f"{line[:1].upper()}{line[1:]}" for line in result.warnings],
        merged=sweep_phrasing.hidden(result, len(result.pareto)),
        interactions=[
            (sweep_phrasing.objective(o), units.percent(share))
            for o in result.objectives
            if (share := result.interactions.get(o.name)) is not None
        ],
        searched=result.method in ("nsga2", "tpe"),
        reasons=[(reason, f"{count:,}") for reason, count in result.reasons.items()],
        failed=f"{result.failed:,}",
        fixed=[(name, sweep_phrasing.value(v, "")) for name, v in result.fixed.items()],
        meaning=MEANING,
        scheduler=result.scheduler,
        method=result.method,
    )


def _tiles(result: SweepResult) -> list[tuple[str, str, str]]:
    chosen, best = sweep_phrasing.recommended(result), sweep_phrasing.best(result)
    tiles = []
    for o in result.objectives[:4]:
        at_best = sweep_phrasing.value(best.objectives[o.name], o.unit)
        note = f"{at_best} at the best {sweep_phrasing.objective(result.objectives[0])}"
        tiles.append(
            (
                f"{sweep_phrasing.objective(o)}, recommended",
                sweep_phrasing.value(chosen.objectives[o.name], o.unit),
                note,
            )
        )
    rate = result.configs_per_s
    note = "kept from before" if rate is None else f"{units.count(rate)} per second"
    tiles.append(("Configurations", f"{result.evaluated:,}", note))
    tiles.append(("On the front", f"{len(result.pareto):,}", f"{result.failed:,} impossible"))
    return tiles


def _heads(result: SweepResult) -> list[tuple[str, bool]]:
    return [
        ("row", True),
        *((sweep_phrasing.objective(o), True) for o in result.objectives),
        *((a.name, True) for a in result.parameters),
    ]


def _rows(result: SweepResult) -> list[Row]:
    chosen = sweep_phrasing.recommended(result)
    rows = []
    for p in result.pareto[:MOST_ROWS]:
        cells: list[Cell] = [(str(p.row), p.row)]
        cells += [(sweep_phrasing.value(p.objectives[o.name], o.unit), p.objectives[o.name]) for o in result.objectives]
        for a in result.parameters:
            value = p.parameters[a.name]
            cells.append((sweep_phrasing.value(value, a.unit), None if isinstance(value, str) else value))
        rows.append(Row(tuple(cells), strong=p.row == chosen.row, task=f"row-{p.row}"))
    return rows


def _compared(result: SweepResult) -> dict[str, Any]:
    """The recommended configuration, the best one and the base device, a row for each quantity."""
    points = [
        ("recommended", sweep_phrasing.recommended(result)),
        (f"best {sweep_phrasing.objective(result.objectives[0])}", sweep_phrasing.best(result)),
    ]
    points += [("base device", result.base)] if result.base is not None else []
    rows = []
    for axis in (*result.objectives, *result.parameters):
        cells: list[Cell] = [(sweep_phrasing.short(axis), None)]
        for _, p in points:
            cells.append((sweep_phrasing.value(_value(p, axis.name), axis.unit), None))
        rows.append(Row(tuple(cells)))
    return {"heads": [("", False), *((name, True) for name, _ in points)], "rows": rows}


def _value(p: SweepPoint, name: str) -> Any:
    return p.objectives[name] if name in p.objectives else p.parameters[name]


def _data(result: SweepResult) -> dict[str, Any]:
    """What the page's script knows: every configuration that is drawn, and why some of them cost what they cost."""
    axes, scales = sweep_svg.parallel_axes(result)
    chosen, best = sweep_phrasing.recommended(result), sweep_phrasing.best(result)
    first = [chosen.row, *((best.row,) if best.row != chosen.row else ())]
    names = {chosen.row: f"row {chosen.row} (recommended)", -1: "the base device"}
    return {
        "axes": [sweep_phrasing.short(a) for a in axes],
        "objectives": [sweep_phrasing.objective(o) for o in result.objectives],
        "first": first,
        "points": [
            {
                "row": p.row,
                "name": names.get(p.row, f"row {p.row}"),
                "at": [round(sweep_svg.place_on(p, a, s), 4) for a, s in zip(axes, scales, strict=True)],
                "value": [_number(_value(p, a.name)) for a in axes],
                "shown": [sweep_phrasing.value(_value(p, a.name), a.unit) for a in axes],
            }
            for p in sweep_svg.drawn_points(result)
        ],
        "why": {str(e.row): _why(result, e) for e in result.explanations},
    }


def _why(result: SweepResult, e: PointExplanation) -> dict[str, Any]:
    shares = sorted(e.time_shares.items(), key=lambda item: -item[1])
    energy = sorted(e.energy_j.items(), key=lambda item: (item[0] == "total", -item[1]))
    dots = [
        [layer.macs_per_byte, layer.macs_per_s, f"{layer.name}: {layer.limit}", layer.share]
        for layer in e.layers
        if layer.macs_per_byte and layer.macs_per_s
    ]
    unit_of = {a.name: a.unit for a in result.parameters}
    return {
        "time": [[name, share] for name, share in shares if share >= 0.0005],
        "layers": [{"name": x.name, "limit": x.limit, "share": x.share} for x in e.layers],
        "roofline": {"peak": e.macs_per_s_peak, "bandwidth": e.bytes_per_s, "points": dots}
        if dots and e.macs_per_s_peak and e.bytes_per_s
        else None,
        "energy": [[part, units.joules(joule)] for part, joule in energy],
        "neighbours": [
            [
                f"{n.parameter} {sweep_phrasing.value(n.value, unit_of.get(n.parameter, ''))}",
                *(
                    (sweep_phrasing.value(n.objectives[o.name], o.unit) for o in result.objectives)
                    if not n.failed
                    else (n.failed, *("" for _ in result.objectives[1:]))
                ),
            ]
            for n in e.neighbours
        ],
    }


def write_sweep(result: SweepResult, folder: Path) -> tuple[Path, ...]:
    """Writes sweep.html, pareto.csv, pareto.svg, parallel.svg, sensitivity.svg and sweep.json into `folder`.

    Raises BadFile where they cannot be written, as `write_report` does.
    """
    pictures = _drawn(result)
    contents = {
        "sweep.html": sweep_html(result, pictures),
        "pareto.csv": pareto_csv(result),
        **{f"{name}.svg": str(wide) for name, (wide, _) in pictures.items()},
        SWEEP_FILE: json.dumps(sweep_document(result), allow_nan=False, indent=1) + "\n",
    }
    return write_files(Path(folder), contents)
