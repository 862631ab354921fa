"""Latency against memory: every way that was tried and is not beaten, with the recommended ones named."""

from __future__ import annotations

from collections.abc import Callable

from pararev_hw.reports import phrasing, svg, units
from pararev_hw.types import Prediction, Study

LEFT, RIGHT, TOP, HEIGHT = 84.0, svg.WIDTH - 34.0, 40.0, 300.0
RADIUS = 5.0
_Scale = Callable[[float], float]  # a value in px


def front_svg(study: Study) -> str:
    """The front as one SVG document: peak memory across, latency upwards, the recommended schedule ringed."""
    points = [*study.front]
    points += [p for p in (study.sequential, study.chosen) if not any(p is q for q in points)]
    low, high = min(p.peak_bytes for p in points), max(p.peak_bytes for p in points)
    room = 0.08 * (high - low) or max(1.0, 0.1 * high)
    first, last = max(0.0, low - room), high + room
    slowest = max(p.latency_s for p in points) * 1.1

    def x(size: float) -> float:
        return LEFT + (size - first) / (last - first) * (RIGHT - LEFT)

    def y(time_s: float) -> float:
        return TOP + HEIGHT * (1 - time_s / slowest) if slowest > 0 else TOP + HEIGHT

    parts = [_axes(first, last, slowest, x, y)]
    if study.memory_limit_bytes is not None and first <= study.memory_limit_bytes <= last:
        at = x(study.memory_limit_bytes)
        words = "memory limit" if study.limit_given else "memory of the sequential step"
        parts.append(
            svg.element("path", d=f"M{svg.number(at)} {TOP}V{TOP + HEIGHT}", class_="rule", stroke_dasharray="4 3")
        )
        parts.append(svg.text(at + 5, TOP + HEIGHT - 8, words, "small quiet halo"))
    line = "".join(
        f"{'L' if k else 'M'}{svg.number(x(p.peak_bytes))} {svg.number(y(p.latency_s))}"
        for k, p in enumerate(study.front)
    )
    parts.append(svg.element("path", d=line, class_="rule"))
    parts += [_point(study, p, x(p.peak_bytes), y(p.latency_s)) for p in points]
    parts += _names(study, x, y)
    label = f"Latency against peak memory of {study.graph.model} on {study.device.title}: {len(study.front)} ways"
    return svg.figure(TOP + HEIGHT + 52, label, parts, "front")


def _axes(first: float, last: float, slowest: float, x: _Scale, y: _Scale) -> str:
    time_unit, time_name = units.scale(slowest, "s")
    marks = units.ticks(slowest / time_unit, 5)
    parts = [svg.text(LEFT, TOP - 16, f"latency of the step, {time_name}", "quiet")]
    for mark, label in zip(marks, units.labels(marks), strict=True):
        at = svg.number(y(mark * time_unit))
        parts.append(svg.element("path", d=f"M{LEFT} {at}H{RIGHT}", class_="grid"))
        parts.append(svg.text(LEFT - 8, y(mark * time_unit) + 4, label, "end quiet"))
    size_unit, size_name = units.scale(last, "B")
    step = units.ticks((last - first) / size_unit, 6)[1] if last > first else 1.0
    k = int(first / size_unit / step) + 1
    ticks = tuple(step * n for n in range(k, int(last / size_unit / step) + 1))
    for mark, label in zip(ticks, units.labels(ticks) if len(ticks) > 1 else map(str, ticks), strict=True):
        across = x(mark * size_unit)
        parts.append(svg.element("path", d=f"M{svg.number(across)} {TOP + HEIGHT}v4", class_="rule"))
        parts.append(svg.text(across, TOP + HEIGHT + 18, label, "mid quiet"))
    parts.append(svg.element("path", d=f"M{LEFT} {TOP + HEIGHT}H{RIGHT}", class_="rule"))
    parts.append(svg.text(RIGHT, TOP + HEIGHT + 36, f"peak memory, {size_name}", "end quiet"))
    return "".join(parts)


def _point(study: Study, p: Prediction, x: float, y: float) -> str:
    words = (
        f"{units.seconds(p.latency_s)}, {units.size(p.peak_bytes)}: "
        f"{', '.join((p.scheduler + ' ' + phrasing.way(p, study.device), *p.choices))}"
    )
    kind = "r-optimizer" if p is study.sequential else "p-backward" if p.choices else "p-forward"
    dot = svg.element("circle", svg.title(words), cx=x, cy=y, r=RADIUS, class_=kind)
    if p is not study.chosen:
        return dot
    ring = svg.element("circle", cx=x, cy=y, r=RADIUS + 4, fill="none", stroke="var(--ink)", stroke_width=2)
    return ring + dot


def _names(study: Study, x: _Scale, y: _Scale) -> list[str]:
    """The names of the recommended points, one beneath the other where they are the same."""
    shown: list[tuple[Prediction, str]] = [(study.sequential, "sequential, as now")]
    words = {"fastest": "fastest", "within_memory": "fastest within the limit", "least_memory": "least memory"}
    shown += [(r.prediction, words[r.name]) for r in study.recommendations]
    by_point: dict[tuple[float, float], list[str]] = {}
    for p, name in shown:
        by_point.setdefault((x(p.peak_bytes), y(p.latency_s)), []).append(name)
    parts: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    for (px, py), names in sorted(by_point.items()):
        text = ", ".join(names)
        width = svg.text_width(text)
        right = px + 12 + width <= RIGHT
        left = px + 12 if right else px - 12 - width
        at = py - 8
        while any(left < b[2] and left + width > b[0] and abs(at - b[1]) < 15 for b in boxes):
            at -= 15
        boxes.append((left, at, left + width, at))
        parts.append(svg.text(left, at, text, "halo"))
    return parts
