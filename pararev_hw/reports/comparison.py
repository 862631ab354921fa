"""Several networks on one device: latency, memory and energy per step, sequential and parallel, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pararev_hw.atomic import write_files
from pararev_hw.reports import phrasing, svg, units
from pararev_hw.reports.document import assumptions, dump, not_modelled, total_sops
from pararev_hw.reports.first_lines import first_lines
from pararev_hw.reports.front import fronts_svg
from pararev_hw.reports.page import Cell, Row, both_widths, render, words_cell
from pararev_hw.reports.provenance import standing
from pararev_hw.reports.shown_ways import EAGER, FASTEST, SEQUENTIAL, WITHIN, WITHIN_LIMIT, shown_ways
from pararev_hw.reports.trade_offs import TradeOffs, same_graphs, trade_offs
from pararev_hw.types import SCHEMA_VERSION, Comparison, Prediction, Study

NAME_PX, GAP, VALUE_PX = 176.0, 24.0, 66.0
BAR, BETWEEN = 15.0, 12.0
_CLASSES = {
    EAGER: "r-other",
    SEQUENTIAL: "r-optimizer",
    WITHIN: "p-backward",
    WITHIN_LIMIT: "p-backward",
    FASTEST: "p-forward",
}

_Quantity = tuple[str, Callable[[Prediction], float | None], Callable[[float | None], str]]
_QUANTITIES: tuple[_Quantity, ...] = (
    ("latency", lambda p: p.latency_s, units.seconds),
    ("peak memory", lambda p: p.peak_bytes, units.size),
    ("energy", lambda p: p.energy_j.get("total"), units.joules),
)


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON-ready data: a row per network, in SI units."""
    offs = trade_offs(comparison)
    return {
        "schema_version": SCHEMA_VERSION,
        "device": {"name": comparison.device.name, "title": comparison.device.title, "kind": comparison.device.kind},
        "answer": verdict(comparison),
        "equal_time_s": None if offs is None else offs.equal_time_s,
        "equal_memory_bytes": None if offs is None else offs.equal_memory_bytes,
        "same_graphs": [list(pair) for pair in same_graphs(comparison)],
        "networks": [
            _network(study) | asdict(off)
            for study, off in zip(comparison.studies, () if offs is None else offs.networks, strict=True)
        ],
    }


def _network(study: Study) -> dict[str, Any]:
    graph = study.graph
    return {
        "model": graph.model,
        "mode": graph.mode,
        "batch": graph.batch,
        "timesteps": graph.timesteps,
        "parameters": graph.parameters,
        "flops": sum(t.flops for t in graph.tasks),
        "sops": total_sops(graph),
        "answer": phrasing.answer(study),
        "sequential": _cost(study.sequential),
        "parallel": _cost(study.chosen),
        "within_memory": None if (within := study.recommended("within_memory")) is None else _cost(within),
        "eager_s": None if study.eager is None else study.eager.latency_s,
        "speedup": phrasing.ratio(study.sequential.latency_s, study.chosen.latency_s),
        "parallel_limit": phrasing.parallel_limit(study),
        **({} if study.energy_model is None else {"energy_model": study.energy_model.document()}),
        "assumptions": assumptions(study),
        "not_modelled": not_modelled(study),
    }


def _cost(prediction: Prediction) -> dict[str, Any]:
    return {
        "scheduler": prediction.scheduler,
        "launch": prediction.launch,
        "lanes": phrasing.lanes_used(prediction),
        "choices": list(prediction.choices),
        "latency_s": prediction.latency_s,
        "expected_error": None if prediction.expected_error is None else asdict(prediction.expected_error),
        "peak_bytes": prediction.peak_bytes,
        "energy_j": dict(prediction.energy_j),
        "standing": prediction.provenance,
    }


def compare_svg(comparison: Comparison, width: float = svg.WIDTH) -> str:
    """Bars of every network for latency, memory and energy, as one SVG document: side by side, or where that is too
    narrow one beneath the other."""
    present = {name for s in comparison.studies for name, _ in shown_ways(s)}
    legend, y = svg.legend([("rect", _CLASSES[n], n) for n in _CLASSES if n in present], 12.0, width - 12.0)
    stacked = width < svg.WIDTH
    name_px = 12.0 if stacked else NAME_PX
    column_px = width - 24.0 if stacked else (width - NAME_PX - 24.0 - 2 * GAP) / 3
    parts, bottom = [legend], y
    for k, quantity in enumerate(_QUANTITIES):
        top = (bottom if stacked else y) + 36
        left = name_px if stacked else name_px + k * (column_px + GAP)
        if not stacked and k == 0:
            parts += _names(comparison, top + 12)
        drawn, bottom = _bars(comparison, quantity, (left, top), column_px, stacked)
        parts.append(drawn)
    label = f"Latency, memory and energy per step of {len(comparison.studies)} networks on {comparison.device.title}"
    return svg.figure(bottom, label, parts, "compare", width)


def _bars(
    comparison: Comparison, quantity: _Quantity, place: tuple[float, float], column_px: float, with_names: bool
) -> tuple[str, float]:
    """The bars of one quantity from `place` down, under the networks' names where `named`. Gives the bottom too."""
    name, value_of, show = quantity
    left, top = place
    parts = [svg.text(left, top, name if name == "peak memory" else f"{name} per step", "strong")]
    values = [value_of(p) for s in comparison.studies for _, p in shown_ways(s)]
    most = max((v for v in values if v is not None), default=0.0)
    y = top + 12
    for study in comparison.studies:
        if with_names:
            parts.append(svg.text(left, y + 10, svg.shorten(study.graph.model, column_px), "quiet"))
            y += 16
        for way, p in shown_ways(study):
            value = value_of(p)
            size = (column_px - VALUE_PX) * value / most if value and most > 0 else 0.0
            if value is not None:
                tooltip = svg.title(f"{study.graph.model}, {way}: {show(value)}")
                box = {"x": left, "y": y, "width": max(1.0, size), "height": BAR}
                parts.append(svg.element("rect", tooltip, class_=_CLASSES[way], **box))
            parts.append(svg.text(left + size + 6, y + BAR - 4, show(value), "small"))
            y += BAR + 2
        y += BETWEEN
    return "".join(parts), y


def _names(comparison: Comparison, y: float) -> list[str]:
    """The networks' names beside their bars."""
    parts = []
    for study in comparison.studies:
        height = (BAR + 2) * len(shown_ways(study))
        name = svg.shorten(study.graph.model, NAME_PX - 36)
        words = svg.text(NAME_PX - 12, y + height / 2 + 4, name, "end")
        parts.append(f"<g>{svg.title(study.graph.model)}{words}</g>")
        y += height + BETWEEN
    return parts


def comparison_html(comparison: Comparison) -> str:
    """The comparison as one HTML document that needs nothing but itself."""
    heads = [("network", False), ("batch", True), ("way", False), ("schedule", False), ("latency", True),
             ("gain", True), ("memory", True), ("energy", True)]  # fmt: skip
    with_fronts = all(s.front for s in comparison.studies) and bool(comparison.studies)
    return render(
        "compare.html.j2",
        title=f"{len(comparison.studies)} networks on {comparison.device.title}",
        device=comparison.device.title,
        count=len(comparison.studies),
        answer=comparison_lines(comparison),
        bars=both_widths(compare_svg, comparison),
        fronts=both_widths(fronts_svg, comparison) if with_fronts else None,
        heads=heads,
        rows=[row for study in comparison.studies for row in _rows(study)],
        answers=[(s.graph.model, phrasing.answer(s)) for s in comparison.studies],
        assumptions=list(dict.fromkeys(a for s in comparison.studies for a in assumptions(s))),
        not_modelled=list(dict.fromkeys(a for s in comparison.studies for a in not_modelled(s))),
    )


def verdict(comparison: Comparison) -> str:
    """`comparison_lines` as one text."""
    return " ".join(comparison_lines(comparison))


def comparison_lines(comparison: Comparison) -> tuple[str, ...]:
    """The comparison in a few sentences: which network takes least time and least memory (for each sample where batches
    differ), what each takes where the others' time or memory is given, and which do not differ."""
    if not comparison.studies:
        return ("Nothing was compared.",)
    per_sample = len({s.graph.batch for s in comparison.studies}) > 1
    each = "for each sample" if per_sample else "per step"

    def cost(s: Study) -> str:
        time_s = s.chosen.latency_s / (s.graph.batch if per_sample else 1)
        return f"{units.seconds(time_s)} {each} with {units.size(s.chosen.peak_bytes)} of memory"

    ranked = sorted(comparison.studies, key=lambda s: s.chosen.latency_s / (s.graph.batch if per_sample else 1))
    best, *rest = ranked
    origin = standing(best.chosen, comparison.device)
    least = "the least time"
    if rest and rest[0].chosen.latency_s <= best.chosen.latency_s * (1 + phrasing.SAME) and not per_sample:
        least = "no more time than the others, and no less"
    opening = (
        f"On {comparison.device.title} ({origin}), {best.graph.model} takes {least}: {cost(best)}, "
        f"{phrasing.way(best.chosen, comparison.device)}"
    )
    others = [f"{s.graph.model} takes {cost(s)}" for s in rest]
    first = [f"{s.graph.model}: {line}" for s in comparison.studies for line in first_lines(s.graph)]
    lines = [*first, opening + (f"; {'; '.join(others)}." if others else ".")]
    lines += [
        f"{a} and {b} have the same graph here (the same work and the same longest chain of it): they cannot differ by "
        "what may run in parallel. Give them more blocks."
        for a, b in same_graphs(comparison)
    ]
    lines += _energy_model_line(comparison, per_sample)
    offs = trade_offs(comparison)
    if offs is not None and len(comparison.studies) > 1:
        lines += [_equal_line(comparison, offs)] if not per_sample else []
        lines += _batches_line(comparison, offs)
    return tuple(lines)


def _energy_model_line(comparison: Comparison, per_sample: bool) -> list[str]:
    """The energy of every network by the model of the literature that was asked for."""
    energies = [(s, s.energy_model) for s in comparison.studies if s.energy_model is not None]
    if not energies:
        return []
    model = energies[0][1]
    each = ", ".join(
        f"{s.graph.model} {units.joules(e.total_j / (s.graph.batch if per_sample else 1))}" for s, e in energies
    )
    return [
        f"By the energy model {model.model} ({model.source}), {'for each sample' if per_sample else 'per step'}: "
        f"{each}; left out: {', '.join(model.not_modelled)}."
    ]


def _equal_line(comparison: Comparison, offs: TradeOffs) -> str:
    pairs = list(zip(comparison.studies, offs.networks, strict=True))
    memory = ", ".join(f"{s.graph.model} {units.size(o.memory_at_equal_time_bytes)}" for s, o in pairs)
    time = ", ".join(f"{s.graph.model} {units.seconds(o.time_at_equal_memory_s)}" for s, o in pairs)
    return (
        f"Memory at equal time ({units.seconds(offs.equal_time_s)}): {memory}. "
        f"Time at equal memory ({units.size(offs.equal_memory_bytes)}): {time}."
    )


def _batches_line(comparison: Comparison, offs: TradeOffs) -> list[str]:
    pairs = zip(comparison.studies, offs.networks, strict=True)
    batches = ", ".join(f"{s.graph.model} {o.largest_batch:,}" for s, o in pairs if o.largest_batch is not None)
    scaled = "Largest batch whose sequential step fits, scaled from this one (`pararev-hw capacity` traces it)"
    return [f"{scaled}: {batches}."] if batches else []


def _rows(study: Study) -> list[Row]:
    """A row for each way that is shown of a network."""
    rows = []
    for way, p in shown_ways(study):
        gain = phrasing.ratio(study.base.latency_s, p.latency_s)
        cells: list[Cell] = [
            words_cell(study.graph.model),
            (str(study.graph.batch), study.graph.batch),
            words_cell(way),
            words_cell(phrasing.how(p, study.device)),
        ]
        for name, value_of, show in _QUANTITIES:
            cells.append((show(value_of(p)), value_of(p)))
            if name == "latency":
                cells.append(("-" if gain is None else units.times(gain), gain))
        rows.append(Row(tuple(cells), strong=p is study.chosen))
    return rows


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Writes compare.html, compare.json, compare.svg and, where there are fronts, fronts.svg into `folder` and gives
    their paths in that order.

    Raises BadFile where they cannot be written, as `write_report` does.
    """
    contents = {
        "compare.html": comparison_html(comparison),
        "compare.json": dump(comparison_document(comparison)),
        "compare.svg": compare_svg(comparison),
    }
    if comparison.studies and all(s.front for s in comparison.studies):
        contents["fronts.svg"] = fronts_svg(comparison)
    return write_files(Path(folder), contents)
