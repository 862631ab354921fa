"""Pictures of a sweep: objectives against each other with the Pareto front, parallel coordinates, sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pararev_hw.reports import svg, sweep_phrasing
from pararev_hw.reports.axis import Axis
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult

PANEL, LEFT, GAP, BELOW = 380.0, 84.0, 96.0, 100.0
AXES_NARROW = 4  # axes of parallel coordinates beside each other on a narrow screen
MOST_POINTS, MOST_FRONT = 1500, 600
MOST_LINES, MOST_FRONT_LINES = 300, 120
_BASE = "var(--ink, #1a1f26)"
_ACCENT, _OTHER, _CHOSEN = "var(--phase-forward)", "var(--phase-other)", "var(--phase-recompute)"


def pareto_svg(result: SweepResult, width: float = svg.WIDTH) -> str:
    """The first objective against the second, and against the third where there is one; the front stands out.

    With one objective, that objective over the parameter that matters most to it. Panels that have no room beside each
    other stand one below the other.
    """
    first = result.objectives[0]
    if len(result.objectives) > 1:
        pairs = [(first, o) for o in result.objectives[1:3]]
    else:
        shares = result.sensitivity.get(first.name, {})
        axes = sorted(result.parameters, key=lambda a: -(shares.get(a.name) or 0.0))[:1]
        pairs = [(a, first) for a in axes] or [(first, first)]
    legend, top = _legend(result, width)
    side_by_side = len(pairs) == 2 and width >= svg.WIDTH
    across = PANEL if side_by_side else width - LEFT - 40
    parts, bottom = [legend], top
    title_of: dict[int, str] = {}
    for k, (x, y) in enumerate(pairs):
        left, top = (LEFT + k * (PANEL + GAP), top) if side_by_side else (LEFT, top + k * (PANEL + BELOW))
        parts.append(_panel(result, x, y, left, top, across, title_of))
        bottom = top + PANEL
    names = " and ".join(f"{sweep_phrasing.objective(y)} over {sweep_phrasing.objective(x)}" for x, y in pairs)
    label = f"{names} of {result.evaluated} configurations, {len(result.pareto)} on the Pareto front"
    return svg.figure(bottom + 64, label, parts, "pareto", width)


def _of(point: SweepPoint, axis: SweepAxis) -> Any:
    return point.objectives[axis.name] if axis.name in point.objectives else point.parameters[axis.name]


def _base(result: SweepResult) -> tuple[SweepPoint, ...]:
    return () if result.base is None else (result.base,)


def _panel(
    result: SweepResult, x: SweepAxis, y: SweepAxis, left: float, top: float, width: float, title_of: dict[int, str]
) -> str:
    """One objective over another; `title_of` keeps the tooltip of each row for the other panel."""
    front, others = _thinned(result.pareto, MOST_FRONT), _thinned(result.sample, MOST_POINTS)
    points = (*front, *others, sweep_phrasing.recommended(result), *_base(result))
    across = Axis.of([_of(p, x) for p in points], x.unit, 0.04)
    up = Axis.of([_of(p, y) for p in points], y.unit, 0.04)
    bottom = top + PANEL
    parts = []
    for share, label in across.ticks():
        at = left + share * width
        parts.append(svg.element("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(svg.text(at, bottom + 18, label, "quiet mid"))
    for share, label in up.ticks():
        at = bottom - share * PANEL
        parts.append(svg.element("line", x1=left, x2=left + width, y1=at, y2=at, class_="grid"))
        parts.append(svg.text(left - 8, at + 4, label, "quiet end"))
    parts.append(svg.text(left + width / 2, bottom + 42, sweep_phrasing.objective(x), "strong mid"))
    parts.append(svg.text(left, top - 10, sweep_phrasing.objective(y), "strong"))

    def dot(p: SweepPoint, radius: float, colour: str, opacity: float) -> str:
        place = {"cx": left + across.share(_of(p, x)) * width, "cy": bottom - up.share(_of(p, y)) * PANEL}
        style = f"fill:{colour};fill-opacity:{opacity:g}"
        if p.row not in title_of:
            title_of[p.row] = svg.title(tooltip(result, p))
        return svg.element("circle", title_of[p.row], r=radius, style=style, data_task=f"row-{p.row}", **place)

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
    value_list = ", ".join(f"{a.name} {sweep_phrasing.value(p.parameters[a.name], a.unit)}" for a in result.parameters)
    return f"{sweep_phrasing.base_name(result) if p.row < 0 else f'row {p.row}'}: {values} ({value_list})"


def _legend(result: SweepResult, width: float) -> tuple[str, float]:
    """The signs, in lines of this width, and where the picture may begin below them."""
    sampled = len(result.sample) > MOST_POINTS or result.evaluated - result.failed > len(result.sample) + len(
        result.pareto
    )
    parts, at, y = [], LEFT if width >= svg.WIDTH else 12.0, 12.0
    first = at
    for colour, words in (
        (_ACCENT, "Pareto front" + (", over all objectives" if len(result.objectives) > 2 else "")),
        (_CHOSEN, "recommended"),
        (_OTHER, "other configurations" + (" (a sample)" if sampled else "")),
        *(((_BASE, sweep_phrasing.base_name(result)),) if result.base is not None else ()),
    ):
        if at > first and at + 16 + svg.text_width(words) > width:
            at, y = first, y + 20
        if colour == _BASE:  # a square, as in the picture
            style = f"fill:none;stroke:{_BASE};stroke-width:2"
            parts.append(svg.element("rect", x=at + 1, y=y - 5, width=10, height=10, style=style))
        else:
            parts.append(svg.element("circle", cx=at + 6, cy=y, r=5, style=f"fill:{colour}"))
        parts.append(svg.text(at + 16, y + 4, words))
        at += 16 + svg.text_width(words) + 24
    return "".join(parts), y + 32


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
    chosen += [p for c in result.workloads for p in (c.recommended, c.best, *([c.shared] if c.shared else []))]
    points = (*front, *lines[0], *lines[1], *others, *chosen, *_base(result))
    return list({p.row: p for p in points}.values())


def place_on(point: SweepPoint, axis: SweepAxis, scale: Axis) -> float:
    """Where a configuration lies on an axis, a share of its length from below."""
    return scale.share(_of(point, axis))


def parallel_svg(result: SweepResult, width: float = svg.WIDTH) -> str:
    """Parallel coordinates: a line per configuration through all parameters and objectives; on a narrow screen in
    bands, each of which begins with the last axis of the one above."""
    axes, scales = parallel_axes(result)
    front, others = _lines(result)
    per_band = len(axes) if width >= svg.WIDTH else AXES_NARROW
    bands = [range(k, min(k + per_band, len(axes))) for k in range(0, max(1, len(axes) - 1), max(1, per_band - 1))]
    height = 300.0 if len(bands) == 1 else 220.0
    left, each = (60.0 if width >= svg.WIDTH else 48.0), height + 88.0
    step = (width - left - 80.0) / max(1, min(per_band, len(axes)) - 1)
    parts = []
    for n, band in enumerate(bands):
        top = 64.0 + n * each
        frame = _Band(tuple(band), left, step, top, height)
        parts += [frame.line(result, p, axes, scales, _OTHER, 0.7, 0.25) for p in others]
        parts += [frame.line(result, p, axes, scales, _ACCENT, 1.2, 0.55) for p in front]
        if result.pareto:
            parts.append(frame.line(result, sweep_phrasing.recommended(result), axes, scales, _CHOSEN, 3.0, 1.0))
        if result.base is not None:
            parts.append(frame.line(result, result.base, axes, scales, f"{_BASE};stroke-dasharray:6 4", 2.0, 0.9))
        parts += [frame.axis(place, axes[k], scales[k], k) for place, k in enumerate(band)]
    label = f"Parallel coordinates of {len(front)} configurations of the front and {len(others)} others"
    return svg.figure(64.0 + len(bands) * each - 64.0, label, parts, "parallel", width)


@dataclass(frozen=True, slots=True)
class _Band:
    """Axes of parallel coordinates beside each other: which, where the first stands, how far apart, and their ends."""

    axes: tuple[int, ...]
    left: float
    step: float
    top: float
    height: float

    def line(
        self,
        result: SweepResult,
        p: SweepPoint,
        axes: Sequence[SweepAxis],
        scales: Sequence[Axis],
        colour: str,
        width: float,
        opacity: float,
    ) -> str:
        """A configuration."""
        places = (
            f"{svg.number(self.left + n * self.step)},"
            f"{svg.number(self.top + self.height * (1 - scales[k].share(_of(p, axes[k]))))}"
            for n, k in enumerate(self.axes)
        )
        style = f"fill:none;stroke:{colour};stroke-width:{width:g};stroke-opacity:{opacity:g}"
        title = svg.title(tooltip(result, p))
        return svg.element("polyline", title, points=" ".join(places), style=style, data_task=f"row-{p.row}")

    def axis(self, n: int, axis: SweepAxis, scale: Axis, k: int) -> str:
        """The n-th axis of the band, with its name, its ticks and the range that can be drawn on it."""
        at, last = self.left + n * self.step, len(self.axes) - 1
        name = svg.shorten(sweep_phrasing.short(axis), max(60.0, 2 * self.step - 16))
        place = "mid" if 0 < n < last else "end" if n else ""
        end = at + 66 if n == last and n else at - 48 if not n else at
        height = self.top - 14 - 16 * (n % 2)
        words = svg.text(end, height, name, f"strong {place}".strip())
        keys = f"range of {axis.name}: arrow keys move the upper end, with Shift the lower one, Escape clears"
        zone = {"class_": "zone", "data_axis": str(k), "tabindex": "0", "aria_label": keys}
        parts = [
            svg.element("line", x1=at, x2=at, y1=self.top, y2=self.top + self.height, class_="rule"),
            f"<g>{svg.title(axis.name)}{words}</g>",
            svg.element("rect", x=at - 10, y=self.top, width=20, height=self.height, **zone),
            svg.element("rect", class_="range", x=at, y=self.top, width=0, height=0),
        ]
        for share, label in scale.ticks():
            short_label = svg.shorten(label, max(34.0, self.step - 10), 11)
            parts.append(svg.text(at + 5, self.top + self.height * (1 - share) + 4, short_label, "small halo"))
        return "".join(parts)


def sensitivity_svg(result: SweepResult, width: float = svg.WIDTH) -> str:
    """A bar per parameter and objective: the share of the objective's variance that the parameter explains alone.
    Objectives that have no room beside each other stand one below the other."""
    rows = sorted(
        result.parameters,
        key=lambda a: -max((f.get(a.name) or 0.0 for f in result.sensitivity.values()), default=0.0),
    )
    wide = width >= svg.WIDTH
    left, row, top = 236.0 if wide else 170.0, 24.0, 40.0
    column = (width - left - 16.0) / (max(1, len(result.objectives)) if wide else 1)
    each = top + row * len(rows) + 12
    parts = []
    for k, o in enumerate(result.objectives):
        x, above = (left + k * column, 0.0) if wide else (left, k * each)
        parts.append(svg.text(x, above + 24, svg.shorten(sweep_phrasing.objective(o), column - 12), "strong"))
        room = column - 64.0
        for j, a in enumerate(rows):
            share, y = result.sensitivity[o.name].get(a.name), above + top + j * row
            if share is None:
                parts.append(svg.text(x, y + 14, "not known", "small quiet"))
                continue
            parts.append(
                svg.element("rect", x=x, y=y + 3, width=max(1.0, room * share), height=row - 9, class_="p-forward")
            )
            parts.append(
                svg.text(x + room * share + 6, y + 15, f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %", "small")
            )
        for j, a in enumerate(rows if k == 0 or not wide else ()):
            name = svg.shorten(a.name if wide else sweep_phrasing.short(a), left - 20)
            parts.append(f"<g>{svg.title(a.name)}{svg.text(left - 12, above + top + j * row + 15, name, 'end')}</g>")
    label = (
        f"How much of the variance of {len(result.objectives)} objectives each of {len(rows)} parameters explains alone"
    )
    return svg.figure(each if wide else each * max(1, len(result.objectives)), label, parts, "sensitivity", width)
