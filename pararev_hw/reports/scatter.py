"""Predicted against measured, as one SVG document per quantity: logarithmic, with the diagonal and 10 % around it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pararev_hw.reports import svg, units
from pararev_hw.reports.axis import LogAxis
from pararev_hw.types import Validation, ValidationCase

Quantity = Literal["latency_s", "peak_bytes", "energy_j"]
QUANTITIES: Mapping[Quantity, tuple[str, str, Callable[[float | None], str]]] = {
    "latency_s": ("time of a step", "s", units.seconds),
    "peak_bytes": ("peak memory", "B", units.size),
    "energy_j": ("energy of a step", "J", units.joules),
}

SIDE, LEFT, GAP = 372.0, 78.0, 102.0  # a panel is a square
LEFT_NARROW, RIGHT_NARROW = 72.0, 18.0
BENEATH = 54.0  # a panel's ticks and the name of its axis
RADIUS = 5.0
_COLOURS = ("forward", "recompute", "backward", "update", "other")  # of families, in the order of their names


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a panel is."""

    left: float
    top: float
    side: float

    @property
    def bottom(self) -> float:
        return self.top + self.side


@dataclass(frozen=True, slots=True)
class _Mark:
    """A point: where, what it belongs to, what a reader is told of it."""

    predicted: float
    measured: float
    colour: str
    square: bool
    hollow: bool
    tooltip: str


def scatter_svg(validation: Validation, quantity: Quantity, width: float = svg.WIDTH) -> str:
    """Each case as a point; beside it, or beneath where that is too narrow, the simpler predictions (of latency) or
    the error over size (of the others)."""
    name, kind, show = QUANTITIES[quantity]
    colours = _colours(validation.cases)
    marks = [m for c in validation.cases if (m := _mark(c, quantity, colours[_family(c)], show)) is not None]
    simpler = _simpler(validation) if quantity == "latency_s" else []
    values = [v for m in (*marks, *simpler) for v in (m.predicted, m.measured)]
    narrow = width < svg.WIDTH
    left = LEFT_NARROW if narrow else LEFT
    legend, y = _legend(colours, validation.cases, left if not narrow else 12.0, width - 12.0)
    first = _Place(left, y + 38, width - left - RIGHT_NARROW if narrow else SIDE)
    second = replace(first, top=first.bottom + BENEATH + 44) if narrow else replace(first, left=left + SIDE + GAP)
    panels = [_panel(marks, values, kind, first, "predicted by the profile")]
    if quantity == "latency_s" and simpler:
        panels += [_panel(simpler, values, kind, second, "predicted more simply"), _simple_legend(validation, second)]
    else:
        panels.append(_errors(marks, kind, second))
    label = f"Predicted against measured {name} of {len(marks)} cases on {validation.title}"
    return svg.figure(second.bottom + BENEATH, label, [legend, *panels], f"scatter-{quantity.replace('_', '-')}", width)


def _family(c: ValidationCase) -> str:
    """The network's name up to its depth."""
    prefix = re.match(r"[^\d]+", c.network)
    return prefix[0].rstrip("_- ") if prefix else c.network


def _colours(cases: Sequence[ValidationCase]) -> dict[str, str]:
    families = sorted({_family(c) for c in cases})
    return {f: _COLOURS[min(k, len(_COLOURS) - 1)] for k, f in enumerate(families)}


def _mark(c: ValidationCase, quantity: Quantity, colour: str, show: Callable[[float | None], str]) -> _Mark | None:
    error = c.error(quantity)
    if error is None:
        return None
    predicted, measured = (float(getattr(side, quantity)) for side in (c.predicted, c.measured))
    if not (predicted > 0 and measured > 0):
        return None
    tooltip = f"{c.name}: predicted {show(predicted)}, measured {show(measured)}"
    return _Mark(predicted, measured, colour, c.mode == "infer", c.dtype != "float32", tooltip)


def _simpler(validation: Validation) -> list[_Mark]:
    """The simpler predictions of latency, a colour for each."""
    marks = []
    for k, name in enumerate(validation.baselines):
        for c in validation.cases:
            if c.measured is None or not c.baselines.get(name, 0.0) > 0:
                continue
            tooltip = (
                f"{c.name}, {name}: {units.seconds(c.baselines[name])}, measured {units.seconds(c.measured.latency_s)}"
            )
            marks.append(_Mark(c.baselines[name], c.measured.latency_s, _simple_colour(k), k % 2 == 1, False, tooltip))
    return marks


def _simple_colour(k: int) -> str:
    return ("other", "update")[min(k, 1)]


def _panel(marks: Sequence[_Mark], values: Sequence[float], kind: str, at: _Place, title: str) -> str:
    x = LogAxis.around(values, at.left, at.left + at.side, kind)
    y = LogAxis(x.low, x.high, at.bottom, at.top, kind)
    parts = [svg.text(at.left, at.top - 10, title, "strong"), _band(x, y), _grid(x, y, at)]
    parts.append(svg.text(at.left + at.side / 2, at.bottom + 40, "measured", "mid quiet"))
    diagonal = (
        f"M{svg.number(x.px(x.low))} {svg.number(y.px(x.low))}L{svg.number(x.px(x.high))} {svg.number(y.px(x.high))}"
    )
    parts.append(svg.element("path", d=diagonal, class_="rule"))
    parts += [_drawn(m, x.px(m.measured), y.px(m.predicted)) for m in marks]
    return "".join(parts)


def _band(x: LogAxis, y: LogAxis) -> str:
    """The area within 10 % of the measurement."""
    upper = [(x.low, x.low * 1.1), (x.high / 1.1, x.high), (x.high, x.high)]
    lower = [(x.high, x.high * 0.9), (x.low / 0.9, x.low), (x.low, x.low)]
    points = " ".join(f"{svg.number(x.px(m))},{svg.number(y.px(p))}" for m, p in (*upper, *lower))
    return svg.element("polygon", svg.title("within 10 %"), points=points, class_="band")


def _grid(x: LogAxis, y: LogAxis, at: _Place) -> str:
    marks = x.ticks()
    lines = "".join(
        f"M{svg.number(x.px(v))} {svg.number(at.top)}V{svg.number(at.bottom)}"
        f"M{svg.number(at.left)} {svg.number(y.px(v))}H{svg.number(at.left + at.side)}"
        for v, _ in marks
    )
    parts = [svg.element("path", d=lines, class_="grid"), _frame(at)]
    parts += [svg.text(x.px(v), at.bottom + 18, words, "mid quiet") for v, words in _apart(x)]
    parts += [svg.text(at.left - 8, y.px(v) + 4, words, "end quiet") for v, words in marks]
    return "".join(parts)


def _apart(x: LogAxis) -> list[tuple[float, str]]:
    """The ticks whose labels do not touch."""
    readable: list[tuple[float, str]] = []
    until = -math.inf
    for v, words in x.ticks():
        half = svg.text_width(words) / 2 + 2
        if x.px(v) - half >= until:
            readable.append((v, words))
            until = x.px(v) + half
    return readable


def _frame(at: _Place) -> str:
    return svg.element("rect", x=at.left, y=at.top, width=at.side, height=at.side, class_="rule")


def _errors(marks: Sequence[_Mark], kind: str, at: _Place) -> str:
    """The signed error of each case over what was measured."""
    left, right = at.left, at.left + at.side
    x = LogAxis.around([m.measured for m in marks], left, right, kind)
    most = max([abs(m.predicted / m.measured - 1) for m in marks] or [0.0]) * 1.15
    most = max(most, 0.005)
    step = units.ticks(2 * most, 6)[1]

    def px(error: float) -> float:
        return at.top + at.side / 2 * (1 - error / most)

    marked = [k * step for k in range(-int(most / step), int(most / step) + 1)]
    lines = "".join(f"M{svg.number(left)} {svg.number(px(e))}H{svg.number(right)}" for e in marked)
    title = svg.text(left, at.top - 10, "error of the prediction", "strong")
    zero = f"M{svg.number(left)} {svg.number(px(0))}H{svg.number(right)}"
    parts = [title, svg.element("path", d=lines, class_="grid"), _frame(at)]
    parts.append(svg.element("path", d=zero, class_="rule"))
    parts += [svg.text(left - 8, px(e) + 4, f"{100 * e:+.3g} %" if e else "0 %", "end quiet") for e in marked]
    parts += [svg.text(x.px(v), at.bottom + 18, words, "mid quiet") for v, words in _apart(x)]
    parts.append(svg.text(left + at.side / 2, at.bottom + 40, "measured", "mid quiet"))
    parts += [_drawn(m, x.px(m.measured), px(m.predicted / m.measured - 1)) for m in marks]
    return "".join(parts)


def _drawn(m: _Mark, x: float, y: float) -> str:
    return _symbol(x, y, m.colour, m.square, m.hollow, svg.title(m.tooltip))


def _symbol(x: float, y: float, colour: str, square: bool, hollow: bool, inner: str = "") -> str:
    paint = f"fill:var(--paper);stroke:var(--phase-{colour});stroke-width:2" if hollow else "stroke:var(--paper)"
    if square:
        corner = {"x": x - RADIUS + 0.5, "y": y - RADIUS + 0.5, "width": 2 * RADIUS - 1, "height": 2 * RADIUS - 1}
        return svg.element("rect", inner, class_=f"p-{colour}", style=paint, **corner)
    return svg.element("circle", inner, class_=f"p-{colour}", style=paint, cx=x, cy=y, r=RADIUS)


def _legend(
    colours: Mapping[str, str], cases: Sequence[ValidationCase], left: float, right: float
) -> tuple[str, float]:
    """Families by colour; what a square and a hollow mark mean, where there are any. Gives the last baseline too."""
    rows = [(colour, False, False, family) for family, colour in colours.items()]
    if any(c.mode == "infer" for c in cases):
        rows.append(("other", True, False, "inference"))
    if any(c.dtype != "float32" for c in cases):
        rows.append(("other", False, True, "half precision"))
    parts, x, y = [], left, 24.0
    for colour, square, hollow, label in rows:
        size = 2 * RADIUS + 6 + svg.text_width(label)
        if x + size > right and x > left:
            x, y = left, y + 20
        parts.append(_symbol(x + RADIUS, y - 4, colour, square, hollow))
        parts.append(svg.text(x + 2 * RADIUS + 6, y, label))
        x += size + 16
    return "".join(parts), y


def _simple_legend(validation: Validation, at: _Place) -> str:
    parts, x = [], at.left + 170
    for k, name in enumerate(validation.baselines):
        parts.append(_symbol(x + RADIUS, at.top - 14, _simple_colour(k), k % 2 == 1, False))
        parts.append(svg.text(x + 2 * RADIUS + 6, at.top - 10, name))
        x += 2 * RADIUS + 6 + svg.text_width(name) + 14
    return "".join(parts)
