"""Pictures of a sweep: objectives against each other with the Pareto front, parallel coordinates, sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pararev_hw.reports import svg, sweep_phrasing
from pararev_hw.reports.axis import Axis
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult

TOP, PANEL, LEFT, GAP = 44.0, 380.0, 84.0, 96.0
MOST_POINTS, MOST_FRONT = 1500, 600
MOST_LINES, MOST_FRONT_LINES = 300, 120
_BASE = "var(--ink, #1a1f26)"
_ACCENT, _OTHER, _CHOSEN = "var(--phase-forward)", "var(--phase-other)", "var(--phase-recompute)"


def pareto_svg(result: SweepResult) -> str:
    """The first objective against the second, and against the third where there is one; the front stands out.

    With one objective, that objective over the parameter that matters most to it.
    """
    first = result.objectives[0]
    if len(result.objectives) > 1:
        pairs = [(first, o) for o in result.objectives[1:3]]
    else:
        shares = result.sensitivity.get(first.name, {})
        axes = sorted(result.parameters, key=lambda a: -(shares.get(a.name) or 0.0))[:1]
        pairs = [(a, first) for a in axes] or [(first, first)]
    width = PANEL if len(pairs) == 2 else svg.WIDTH - LEFT - 40
    parts = [_legend(result)]
    for k, (x, y) in enumerate(pairs):
        parts.append(_panel(result, x, y, LEFT + k * (PANEL + GAP), width))
    names = " and ".join(f"{sweep_phrasing.objective(y)} over {sweep_phrasing.objective(x)}" for x, y in pairs)
    label = f"{names} of {result.evaluated} configurations, {len(result.pareto)} on the Pareto front"
    return svg.figure(TOP + PANEL + 64, label, parts, "pareto")


def _of(point: SweepPoint, axis: SweepAxis) -> Any:
    return point.objectives[axis.name] if axis.name in point.objectives else point.parameters[axis.name]


def _base(result: SweepResult) -> tuple[SweepPoint, ...]:
    return () if result.base is None else (result.base,)


def _panel(result: SweepResult, x: SweepAxis, y: SweepAxis, left: float, width: float) -> str:
    front, others = _thinned(result.pareto, MOST_FRONT), _thinned(result.sample, MOST_POINTS)
    points = (*front, *others, sweep_phrasing.recommended(result), *_base(result))
    across = Axis.of([_of(p, x) for p in points], x.unit, 0.04)
    up = Axis.of([_of(p, y) for p in points], y.unit, 0.04)
    bottom = TOP + PANEL
    parts = []
    for share, label in across.ticks():
        at = left + share * width
        parts.append(svg.element("line", x1=at, x2=at, y1=TOP, y2=bottom, class_="grid"))
        parts.append(svg.text(at, bottom + 18, label, "quiet mid"))
    for share, label in up.ticks():
        at = bottom - share * PANEL
        parts.append(svg.element("line", x1=left, x2=left + width, y1=at, y2=at, class_="grid"))
        parts.append(svg.text(left - 8, at + 4, label, "quiet end"))
    parts.append(svg.text(left + width / 2, bottom + 42, sweep_phrasing.objective(x), "strong mid"))
    parts.append(svg.text(left, TOP - 10, sweep_phrasing.objective(y), "strong"))

    def dot(p: SweepPoint, radius: float, colour: str, opacity: float) -> str:
        place = {"cx": left + across.share(_of(p, x)) * width, "cy": bottom - up.share(_of(p, y)) * PANEL}
        style = f"fill:{colour};fill-opacity:{opacity:g}"
        return svg.element(
            "circle", svg.title(tooltip(result, p)), r=radius, style=style, data_task=f"row-{p.row}", **place
        )

    parts += [dot(p, 2.2, _OTHER, 0.45) for p in others]
    parts += [dot(p, 3.6, _ACCENT, 0.9) for p in front]
    if result.pareto:
        parts.append(dot(sweep_phrasing.recommended(result), 6.5, _CHOSEN, 1.0))
    if result.base is not None:
        cx = left + across.share(_of(result.base, x)) * width
        cy = bottom - up.share(_of(result.base, y)) * PANEL
        style = f"fill:none;stroke:{_BASE};stroke-width:2"
        title = svg.title(tooltip(result, result.base))
        square = {"x": cx - 6, "y": cy - 6, "width": 12.0, "height": 12.0}
        parts.append(svg.element("rect", title, style=style, data_task="row--1", **square))
    return "".join(parts)


def tooltip(result: SweepResult, p: SweepPoint) -> str:
    """A configuration and its objectives, for a tooltip."""
    values = ", ".join(
        f"{sweep_phrasing.objective(o)} {sweep_phrasing.value(p.objectives[o.name], o.unit)}" for o in result.objectives
    )
    named = ", ".join(f"{a.name} {sweep_phrasing.value(p.parameters[a.name], a.unit)}" for a in result.parameters)
    return f"{'base device' if p.row < 0 else f'row {p.row}'}: {values} ({named})"


def _legend(result: SweepResult) -> str:
    sampled = len(result.sample) > MOST_POINTS or result.evaluated - result.failed > len(result.sample) + len(
        result.pareto
    )
    parts, at = [], LEFT
    for colour, words in (
        (_ACCENT, "Pareto front" + (", over all objectives" if len(result.objectives) > 2 else "")),
        (_CHOSEN, "recommended"),
        (_OTHER, "other configurations" + (" (a sample)" if sampled else "")),
        *(((_BASE, "base device"),) if result.base is not None else ()),
    ):
        parts.append(svg.element("circle", cx=at + 6, cy=12, r=5, style=f"fill:{colour}"))
        parts.append(svg.text(at + 16, 16, words))
        at += 16 + svg.text_width(words) + 24
    return "".join(parts)


def _thinned(points: Sequence[SweepPoint], most: int) -> list[SweepPoint]:
    """At most so many of the points, evenly taken."""
    step = -(-len(points) // most) if points else 1
    return list(points[::step])


def _lines(result: SweepResult) -> tuple[list[SweepPoint], list[SweepPoint]]:
    """Configurations of the front, and others, that the parallel coordinates show."""
    return _thinned(result.pareto, MOST_FRONT_LINES), _thinned(result.sample, MOST_LINES)


def parallel_axes(result: SweepResult) -> tuple[list[SweepAxis], list[Axis]]:
    """The axes of the parallel coordinates, and the scale of each."""
    axes = [*result.parameters, *result.objectives]
    drawn = drawn_points(result)
    return axes, [Axis.of([_of(p, a) for p in drawn], a.unit, 0.02) for a in axes]


def drawn_points(result: SweepResult) -> list[SweepPoint]:
    """Every configuration that a picture or the page's table shows, each once."""
    front, others = _thinned(result.pareto, MOST_FRONT), _thinned(result.sample, MOST_POINTS)
    lines = _lines(result)
    chosen = [sweep_phrasing.recommended(result)] if result.pareto else []
    points = (*front, *lines[0], *lines[1], *others, *chosen, *_base(result))
    return list({p.row: p for p in points}.values())


def place_on(point: SweepPoint, axis: SweepAxis, scale: Axis) -> float:
    """Where a configuration lies on an axis, a share of its length from below."""
    return scale.share(_of(point, axis))


def parallel_svg(result: SweepResult) -> str:
    """Parallel coordinates: a line per configuration through all parameters and objectives."""
    axes, scales = parallel_axes(result)
    front, others = _lines(result)
    top, height, left = 64.0, 300.0, 60.0
    step = (svg.WIDTH - left - 80.0) / max(1, len(axes) - 1)

    def line(p: SweepPoint, colour: str, width: float, opacity: float) -> str:
        places = (
            f"{svg.number(left + k * step)},{svg.number(top + height * (1 - s.share(_of(p, a))))}"
            for k, (a, s) in enumerate(zip(axes, scales, strict=True))
        )
        style = f"fill:none;stroke:{colour};stroke-width:{width:g};stroke-opacity:{opacity:g}"
        title = svg.title(tooltip(result, p))
        return svg.element("polyline", title, points=" ".join(places), style=style, data_task=f"row-{p.row}")

    parts = [line(p, _OTHER, 0.7, 0.25) for p in others]
    parts += [line(p, _ACCENT, 1.2, 0.55) for p in front]
    if result.pareto:
        parts.append(line(sweep_phrasing.recommended(result), _CHOSEN, 3.0, 1.0))
    if result.base is not None:
        parts.append(line(result.base, f"{_BASE};stroke-dasharray:6 4", 2.0, 0.9))
    for k, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        at = left + k * step
        parts.append(svg.element("line", x1=at, x2=at, y1=top, y2=top + height, class_="rule"))
        name = svg.shorten(sweep_phrasing.short(axis), max(60.0, 2 * step - 16))
        place = "mid" if 0 < k < len(axes) - 1 else "end" if k else ""
        end = at + 66 if k == len(axes) - 1 and k else at - 48 if not k else at
        parts.append(
            f"<g>{svg.title(axis.name)}{svg.text(end, top - 14 - 16 * (k % 2), name, f'strong {place}'.strip())}</g>"
        )
        keys = f"range of {axis.name}: arrow keys move the upper end, with Shift the lower one, Escape clears"
        zone = {"class_": "zone", "data_axis": str(k), "tabindex": "0", "aria_label": keys}
        parts.append(svg.element("rect", x=at - 10, y=top, width=20, height=height, **zone))
        parts.append(svg.element("rect", class_="range", x=at, y=top, width=0, height=0))
        for share, label in scale.ticks():
            shown = svg.shorten(label, max(34.0, step - 10), 11)
            parts.append(svg.text(at + 5, top + height * (1 - share) + 4, shown, "small halo"))
    label = f"Parallel coordinates of {len(front)} configurations of the front and {len(others)} others"
    return svg.figure(top + height + 24, label, parts, "parallel")


def sensitivity_svg(result: SweepResult) -> str:
    """A bar per parameter and objective: the share of the objective's variance that the parameter explains alone."""
    rows = sorted(
        result.parameters,
        key=lambda a: -max((f.get(a.name) or 0.0 for f in result.sensitivity.values()), default=0.0),
    )
    left, row, top = 236.0, 24.0, 40.0
    column = (svg.WIDTH - left - 16.0) / max(1, len(result.objectives))
    parts = []
    for k, o in enumerate(result.objectives):
        x = left + k * column
        parts.append(svg.text(x, 24, svg.shorten(sweep_phrasing.objective(o), column - 12), "strong"))
        room = column - 64.0
        for j, a in enumerate(rows):
            share, y = result.sensitivity[o.name].get(a.name), top + j * row
            if share is None:
                parts.append(svg.text(x, y + 14, "not known", "small quiet"))
                continue
            parts.append(
                svg.element("rect", x=x, y=y + 3, width=max(1.0, room * share), height=row - 9, class_="p-forward")
            )
            parts.append(
                svg.text(x + room * share + 6, y + 15, f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %", "small")
            )
    for j, a in enumerate(rows):
        name = svg.shorten(a.name, left - 20)
        parts.append(f"<g>{svg.title(a.name)}{svg.text(left - 12, top + j * row + 15, name, 'end')}</g>")
    label = (
        f"How much of the variance of {len(result.objectives)} objectives each of {len(rows)} parameters explains alone"
    )
    return svg.figure(top + row * len(rows) + 12, label, parts, "sensitivity")
