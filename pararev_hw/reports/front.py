"""Latency against memory: every way that was tried and is not beaten, with the recommended ones named."""

from __future__ import annotations

from itertools import count

from pararev_hw.reports import phrasing, svg, units
from pararev_hw.reports.plane import LEFT, RADIUS, Plane
from pararev_hw.types import Comparison, Prediction, Study

TOP = 40.0
LINE_PX = 15.0  # between the baselines of two names
# Classes of a comparison's networks; past these, the points' tooltips tell them apart.
_COLOURS = ("p-forward", "p-recompute", "p-backward", "p-update", "r-gradient", "r-other")


def front_svg(study: Study, width: float = svg.WIDTH) -> str:
    """The front as one SVG document: peak memory across, latency upwards, the recommended schedule ringed."""
    points = [*study.front]
    points += [p for p in (study.sequential, study.chosen) if not any(p is q for q in points)]
    plane = Plane.around(points, TOP, width)
    parts = [plane.axes()]
    if study.memory_limit_bytes is not None and plane.first <= study.memory_limit_bytes <= plane.last:
        at = plane.x(study.memory_limit_bytes)
        words = "memory limit" if study.limit_given else "memory of the sequential step"
        d = f"M{svg.number(at)} {TOP}V{svg.number(plane.bottom)}"
        parts.append(svg.element("path", d=d, class_="rule", stroke_dasharray="4 3"))
        parts.append(_beside(words, at, plane.bottom - 8, plane.right, "small quiet halo"))
    parts.append(svg.element("path", d=plane.line(study.front), class_="rule"))
    parts += [_point(study, p, plane) for p in points]
    parts += _names(study, plane)
    label = f"Latency against peak memory of {study.graph.model} on {study.device.title}: {len(study.front)} ways"
    return svg.figure(plane.bottom + 52, label, parts, "front", width)


def _beside(words: str, x: float, y: float, right: float, class_: str) -> str:
    """Words to the right of `x`, or to its left where they do not fit."""
    size = svg.text_width(words)
    return svg.text(x + 5 if x + 5 + size <= right + 30 else x - 5 - size, y, words, class_)


def fronts_svg(comparison: Comparison, width: float = svg.WIDTH) -> str:
    """The fronts of all networks in one plane; a square marks the sequential step, rings the fastest way and the
    fastest within the memory of that step."""
    studies = comparison.studies
    kinds = [_COLOURS[k % len(_COLOURS)] for k in range(len(studies))]
    signs = [("rect", kind, s.graph.model) for kind, s in zip(kinds, studies, strict=True)]
    legend, y = svg.legend(signs, 12.0, width - 12.0)
    points = (p for s in studies for p in (*s.front, s.sequential, *_ringed(s)))
    plane = Plane.around(list(points), y + 44, width)
    parts = [legend, plane.axes()]
    parts += [_front_of(study, kind, plane) for kind, study in zip(kinds, studies, strict=True)]
    label = f"Latency against peak memory of {len(studies)} networks on {comparison.device.title}"
    return svg.figure(plane.bottom + 52, label, parts, "fronts", width)


def _front_of(study: Study, kind: str, plane: Plane) -> str:
    stroke = f"stroke:var(--{'phase' if kind.startswith('p') else 'role'}{kind[1:]})"
    parts = [svg.element("path", d=plane.line(study.front), fill="none", style=stroke, stroke_width=1.5)]
    x, y = plane.x(study.sequential.peak_bytes) - 5, plane.y(study.sequential.latency_s) - 5
    words = f"{study.graph.model}, sequential: {_costs(study.sequential)}"
    parts.append(svg.element("rect", svg.title(words), x=x, y=y, width=10, height=10, class_=kind))
    ringed = {id(p) for p in _ringed(study)}
    for p in {id(p): p for p in (*study.front, *_ringed(study))}.values():
        if p is study.sequential:
            continue
        x, y = plane.x(p.peak_bytes), plane.y(p.latency_s)
        words = f"{study.graph.model}: {_costs(p)}: {phrasing.how(p, study.device)}"
        parts.append(svg.element("circle", svg.title(words), cx=x, cy=y, r=4, class_=kind))
        if id(p) in ringed:
            parts.append(svg.element("circle", cx=x, cy=y, r=8, fill="none", style=stroke, stroke_width=2))
    return "".join(parts)


def _ringed(study: Study) -> tuple[Prediction, ...]:
    return tuple(p for n in ("fastest", "within_memory") if (p := study.recommended(n)) is not None)


def _costs(p: Prediction) -> str:
    return f"{units.seconds(p.latency_s)}, {units.size(p.peak_bytes)}"


def _point(study: Study, p: Prediction, plane: Plane) -> str:
    x, y = plane.x(p.peak_bytes), plane.y(p.latency_s)
    words = f"{_costs(p)}: {phrasing.how(p, study.device)}"
    kind = "r-optimizer" if p is study.sequential else "p-backward" if p.choices else "p-forward"
    dot = svg.element("circle", svg.title(words), cx=x, cy=y, r=RADIUS, class_=kind)
    if p is not study.chosen:
        return dot
    ring = svg.element("circle", cx=x, cy=y, r=RADIUS + 4, fill="none", stroke="var(--ink)", stroke_width=2)
    return ring + dot


def _names(study: Study, plane: Plane) -> list[str]:
    """The names of the recommended points, one beneath the other where they are the same."""
    labelled: list[tuple[Prediction, str]] = [(study.sequential, "sequential, as now")]
    labelled += [(w.prediction, w.short_name) for w in phrasing.recommended_ways(study)]
    by_point: dict[tuple[float, float], list[str]] = {}
    for p, name in labelled:
        by_point.setdefault((plane.x(p.peak_bytes), plane.y(p.latency_s)), []).append(name)
    parts: list[str] = []
    # each point keeps its place free; a name is as high as LINE_PX
    dots = [(plane.x(p.peak_bytes), plane.y(p.latency_s)) for p in (*study.front, study.sequential)]
    boxes = [(x - RADIUS, y + RADIUS, x + RADIUS, y + RADIUS) for x, y in dots]
    for (px, py), names in sorted(by_point.items()):
        together = ", ".join(names)
        fits = svg.text_width(together) + 12 <= max(plane.right - px, px)
        for words_here in (together,) if fits else names:
            width = svg.text_width(words_here)
            left = px + 12 if px + 12 + width <= plane.right else max(LEFT + 4, px - 12 - width)
            near = (py - 8 + LINE_PX * step for k in count() for step in (-k, k))  # not as high as the axis's name
            at = next(
                y
                for y in near
                if y >= plane.top
                and not any(left < b[2] and left + width > b[0] and abs(y - b[1]) < LINE_PX for b in boxes)
            )
            boxes.append((left, at, left + width, at))
            parts.append(svg.text(left, at, words_here, "halo"))
    return parts
