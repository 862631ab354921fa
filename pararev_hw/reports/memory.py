"""The memory curve: what is alive over time by role, stacked, for the chosen schedule; the sequential one as a line."""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.reports import phrasing, svg, units
from pararev_hw.reports.axis import TimeAxis
from pararev_hw.reports.curve import Steps, steps, thin
from pararev_hw.types import Study

LEFT, MARGIN = 84.0, 34.0
LEGEND_PX = 92.0  # of its first words
PLOT_HEIGHT = 300.0
MOST_POINTS = 2000


def memory_svg(study: Study, width: float = svg.WIDTH) -> str:
    """Live memory over time as one SVG document."""
    chosen = steps(study.chosen.memory, study.chosen.latency_s)
    if chosen is None:
        tooltip = "No memory curve: the prediction holds none."
        return svg.figure(60, tooltip, [svg.text(12, 34, tooltip, "quiet")], "memory", width)
    before = steps(study.sequential.memory, study.sequential.latency_s) if study.best != 0 else None
    chosen = thin(chosen, MOST_POINTS)
    before = thin(before, MOST_POINTS) if before else None
    curves = (chosen, before) if before else (chosen,)
    axis = TimeAxis(0.0, max(c.end_s for c in curves), LEFT, width - MARGIN)
    highest = max(max(c.total) for c in curves)
    legend, top = _legend(chosen, before, axis.right)
    top += 34  # room for the label of a peak
    bottom = top + PLOT_HEIGHT
    per_byte = PLOT_HEIGHT / highest if highest > 0 else 0.0

    parts = [legend, axis.draw(top, bottom), _levels(highest, per_byte, bottom, axis.right)]
    parts += _areas(chosen, axis, per_byte, bottom)
    if before:
        line = _outline(before.starts_s, before.total, before.end_s, axis, per_byte, bottom)
        tooltip = f"{phrasing.sequential_way(study)}: peak {units.size(max(before.total))}"
        parts.append(svg.element("path", svg.title(tooltip), d=line, class_="critical", stroke_width=1.2))
    parts.append(_peak(chosen, axis, per_byte, bottom))
    if axis.end_s > 0:  # where a task under the pointer is shown
        parts.append(
            svg.element(
                "rect", x=LEFT, y=top, width=0.01, height=bottom - top, class_="span", fill="var(--ink)",
                fill_opacity=0.18, data_px_per_s=f"{axis.px_per_s!r}",
            )
        )  # fmt: skip
    label = f"Live memory over time of {study.graph.model}: peak {units.size(max(chosen.total))}"
    return svg.figure(bottom + 30, label, parts, "memory", width)


def _legend(curve: Steps, before: Steps | None, right: float) -> tuple[str, float]:
    """Colours of the roles with what each holds at the peak, wrapped into lines. Gives its bottom too."""
    left = LEFT if right > svg.NARROW else 12.0
    parts, x, y = [svg.text(left, 20, "At the peak:", "strong")], left + LEGEND_PX, 20.0
    # Highest layer first, as the areas lie.
    for role in reversed(list(curve.bytes)):
        if max(curve.bytes[role]) == 0:
            continue
        words_ = f"{role} {units.size(curve.bytes[role][curve.peak])}"
        width = 20 + svg.text_width(words_) + 14
        if x + width > right:
            x, y = left + LEGEND_PX, y + 20
        parts.append(svg.element("rect", x=x, y=y - 10, width=14, height=12, rx=2, class_=_class(role)))
        parts.append(svg.text(x + 20, y, words_))
        x += width
    if before:
        y += 20
        d = f"M{svg.number(left + LEGEND_PX)} {svg.number(y - 4)}h22"
        parts.append(svg.element("path", d=d, class_="critical", stroke_width=1.2))
        parts.append(
            svg.text(left + LEGEND_PX + 28, y, f"the sequential step, all roles: peak {units.size(max(before.total))}")
        )
    return "".join(parts), y


def _class(role: str) -> str:
    return f"r-{role}" if role in svg.ROLE_COLOURS else "r-other"


def _levels(highest: float, per_byte: float, bottom: float, right: float) -> str:
    """Horizontal grid lines at round numbers of MiB or GiB."""
    unit, name = units.scale(highest, "B")
    parts = []
    levels = units.ticks(highest / unit, 8)
    for level, label in zip(levels, units.labels(levels), strict=True):
        y = bottom - level * unit * per_byte
        parts.append(svg.element("path", d=f"M{svg.number(LEFT)} {svg.number(y)}H{svg.number(right)}", class_="grid"))
        parts.append(svg.text(LEFT - 8, y + 4, f"{label} {name}" if level else "0", "end quiet"))
    return "".join(parts)


def _areas(curve: Steps, axis: TimeAxis, per_byte: float, bottom: float) -> list[str]:
    """The stacked roles. Each is drawn down to the ground and covered by those beneath it: half the points."""
    stack = [0] * len(curve.starts_s)
    areas = []
    for role, live in curve.bytes.items():
        stack = [below + live_bytes for below, live_bytes in zip(stack, live, strict=True)]
        if max(live) > 0:
            outline = _outline(curve.starts_s, stack, curve.end_s, axis, per_byte, bottom)
            first = svg.number(axis.x(curve.starts_s[0]))
            d = f"{outline}V{svg.number(bottom)}H{first}Z"
            tooltip = f"{role}: at most {units.size(max(live))}, {units.size(live[curve.peak])} at the peak"
            areas.append(svg.element("path", svg.title(tooltip), d=d, class_=_class(role)))
    return areas[::-1]


def _peak(curve: Steps, axis: TimeAxis, per_byte: float, bottom: float) -> str:
    """A mark on the peak and its label, above it and inside the plot's sides."""
    at_s, live = curve.starts_s[curve.peak], curve.total[curve.peak]
    x, y = axis.x(at_s), bottom - live * per_byte
    label = f"peak {units.size(live)} at {units.seconds(at_s)}"
    half = svg.text_width(label) / 2
    middle = min(max(x, LEFT + half), axis.right - half)
    d = f"M{svg.number(x)} {svg.number(y - 1)}l-5 -9h10z"
    mark = svg.element("path", d=d, fill="var(--ink)", stroke="var(--paper)")
    return mark + svg.text(middle, y - 15, label, "mid strong halo")


def _outline(
    starts_s: Sequence[float], values: Sequence[int], end_s: float, axis: TimeAxis, per_byte: float, bottom: float
) -> str:
    """The path along the top of the steps; steps that would be drawn on one another are left out."""
    points: list[str] = []
    last = ("", "")
    for start, value in zip(starts_s, values, strict=True):
        x, y = svg.number(axis.x(start)), svg.number(bottom - value * per_byte)
        if y == last[1]:
            continue
        points.append(f"H{x}V{y}" if points else f"M{x} {y}")
        last = (x, y)
    return "".join(points) + f"H{svg.number(axis.x(end_s))}"
