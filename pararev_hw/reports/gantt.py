"""The Gantt chart: the sequential step on top, the chosen schedule beneath on the same time axis, and a close-up.

A row is a lane. Sections of the network are bracketed above the rows, so that a step of hundreds of tasks can still be
read; the close-up shows the busiest stretch of the chosen schedule wide enough to name its tasks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from pararev_hw.reports import naming, phrasing, svg, units
from pararev_hw.reports.axis import TimeAxis
from pararev_hw.types import PHASES, BlockGraph, Placement, Prediction, Study, Task

LEFT, MARGIN = 84.0, 34.0
CLOSE_UP_TASKS = 40  # steps of more tasks get a close-up
CLOSE_UP_TYPICAL = 14  # typical tasks across the width of the close-up: some 60 px each
MOST_BRACKET_ROWS = 3
MOST_BOXES = 6000  # past that, neighbours narrower than half a px are drawn as one box


@dataclass(frozen=True, slots=True)
class _Chart:
    """What every panel needs to know about the study."""

    tasks: Mapping[str, Task]
    section: Mapping[str, str]  # by block
    critical: frozenset[str]
    noun: str

    def phase(self, task_id: str) -> str:
        return self.tasks[task_id].phase if task_id in self.tasks else "other"

    def tooltip(self, p: Placement) -> str:
        span = f"{units.seconds(p.end_s - p.start_s)}, from {units.seconds(p.start_s)} to {units.seconds(p.end_s)}"
        critical = ", on the critical path" if p.task in self.critical else ""
        return f"{p.task}: {self.phase(p.task)}, {span}, {self.noun} {p.lane}{critical}"


def gantt_svg(study: Study, width: float = svg.WIDTH) -> str:
    """The Gantt chart of the sequential and the chosen schedule as one SVG document."""
    chart = _chart(study.chosen_graph, study)
    predictions = (study.sequential,) if study.best == 0 else (study.sequential, study.chosen)
    end_s = max(max(p.latency_s, p.schedule.makespan_s, _last_end(p)) for p in predictions)
    right = width - MARGIN
    axis = TimeAxis(0.0, end_s, LEFT, right)
    window = _busiest(study.chosen)
    legend, y = _legend(chart, study, right)
    parts, top, y = [legend], y + 36, y + 24
    for prediction in predictions:
        marked = window if prediction is study.chosen else None
        drawn, y = _panel(
            _chart(study.graph_of(prediction), study), prediction, axis, y, _heading(prediction, study), "panel", marked
        )
        parts.append(drawn)
    parts.insert(1, axis.draw(top, y))
    y += 34
    if window is not None:
        axis = TimeAxis(*window, LEFT, right)
        inside = [p for p in study.chosen.schedule.placements if p.end_s > window[0] and p.start_s < window[1]]
        noted = f"Close-up of the stretch marked above: {len(inside)} tasks"
        drawn, bottom = _panel(chart, study.chosen, axis, y, noted, "close-up", None)
        parts += [axis.draw(y + 12, bottom), drawn]
        y = bottom + 34
    label = f"Gantt chart of {study.graph.model} on {study.device.title}: " + "; ".join(
        _heading(p, study) for p in predictions
    )
    return svg.figure(y, label, parts, "gantt", width)


def _chart(graph: BlockGraph, study: Study) -> _Chart:
    return _Chart(
        {t.id: t for t in graph.tasks},
        naming.sections(t.block for t in graph.tasks),
        frozenset(study.critical_path.tasks),
        phrasing.lane_noun(study.device),
    )


def _last_end(prediction: Prediction) -> float:
    return max((p.end_s for p in prediction.schedule.placements), default=0.0)


def _heading(prediction: Prediction, study: Study) -> str:
    if study.chip is not None:
        way = phrasing.way(prediction, study.device).replace("with", "on", 1)
    elif prediction is study.sequential:
        way = phrasing.sequential_way(study)
    else:
        way = f"recommended: {prediction.scheduler} {phrasing.way(prediction, study.device)}"
    return f"{way[:1].upper()}{way[1:]}, {units.seconds(prediction.latency_s)}"


def _legend(chart: _Chart, study: Study, right: float) -> tuple[str, float]:
    present = {chart.phase(p.task) for s in (study.sequential, study.chosen) for p in s.schedule.placements}
    items = [("rect", f"p-{phase}", phase) for phase in (*PHASES, "other") if phase in present]
    items += [("line", "critical", "critical path")] if chart.critical else []
    return svg.legend(items, LEFT, right)


def _row_height(lanes: int) -> float:
    return 26.0 if lanes <= 2 else 22.0 if lanes <= 4 else 20.0 if lanes <= 16 else max(4.0, 320.0 / lanes)


def _panel(
    chart: _Chart,
    prediction: Prediction,
    axis: TimeAxis,
    y: float,
    heading: str,
    class_: str,
    marked: tuple[float, float] | None,
) -> tuple[str, float]:
    """One schedule from `y` down: heading, brackets, the host's row, a row per lane in use. Gives its bottom too."""
    placements = [p for p in prediction.schedule.placements if p.end_s >= axis.start_s and p.start_s <= axis.end_s]
    overview = class_ == "panel"
    parts = [svg.text(LEFT, y + 12, svg.shorten(heading, axis.right - LEFT), "strong")]
    y += 20
    brackets, y = _brackets(chart, placements, axis, y)
    parts.append(brackets)
    if prediction.host_s > 0 and overview:
        parts.append(_host_row(prediction, axis, y))
        y += 24
    lanes = sorted({p.lane for p in placements})
    height = _row_height(len(lanes))
    rows = {lane: y + k * height for k, lane in enumerate(lanes)}
    bottom = y + len(lanes) * height
    every = max(1, round(14 / height))
    for k, lane in enumerate(lanes):
        parts.append(
            svg.element("rect", x=LEFT, y=rows[lane] + 1, width=axis.right - LEFT, height=height - 2, class_="band")
        )
        if k % every == 0:
            parts.append(svg.text(LEFT - 8, rows[lane] + height / 2 + 4, f"{chart.noun} {lane}", "end quiet"))
    parts.append(_boxes(chart, placements, axis, rows, height - 2, overview))
    if marked is not None:
        x, w = axis.x(marked[0]), axis.x(marked[1]) - axis.x(marked[0])
        parts.append(
            svg.element(
                "rect", x=x, y=y - 2, width=max(3.0, w), height=bottom - y + 4, rx=3,
                fill="none", stroke="var(--ink)", stroke_width=1.5, stroke_dasharray="4 3",
            )
        )  # fmt: skip
    return svg.element("g", "".join(parts), class_=class_), bottom + 10


def _host_row(prediction: Prediction, axis: TimeAxis, y: float) -> str:
    """How long the host is busy, as one bar: a prediction holds the host's total, not its single launches."""
    share = prediction.host_s / prediction.latency_s if prediction.latency_s > 0 else 0.0
    launching = f"launching for {units.seconds(prediction.host_s)} in all"
    tooltip = f"The host is busy for {units.seconds(prediction.host_s)} in all ({units.percent(share)} of the step)"
    width = axis.x(prediction.host_s) - LEFT
    bar = svg.element(
        "rect", svg.title(tooltip), x=LEFT, y=y + 3, width=max(1.0, width), height=16, rx=2,
        fill="var(--paper)", stroke="var(--quiet)", stroke_dasharray="3 2",
    )  # fmt: skip
    inside = svg.text_width(launching, 11) + 12 <= width
    label = svg.text(LEFT + 6 if inside else LEFT + width + 6, y + 15, launching, "small quiet")
    return svg.text(LEFT - 8, y + 15, "host", "end quiet") + bar + label


def _brackets(chart: _Chart, placements: Sequence[Placement], axis: TimeAxis, y: float) -> tuple[str, float]:
    """A labelled bracket over each section's forward and each section's backward, packed into rows from `y` down."""
    spans: dict[tuple[str, str], tuple[float, float]] = {}
    for p in placements:
        phase = chart.phase(p.task)
        section = chart.section[chart.tasks[p.task].block] if p.task in chart.tasks else ""
        if section and phase in ("forward", "backward"):
            start, end = spans.get((phase, section), (p.start_s, p.end_s))
            spans[phase, section] = (min(start, p.start_s), max(end, p.end_s))
    rows: list[float] = []
    parts = []
    for (phase, section), (start, end) in sorted(spans.items(), key=lambda item: (item[1], item[0])):
        x0, x1 = axis.x(start), axis.x(end)
        label = next((n for n in naming.abbreviations(section) if svg.text_width(n, 11) + 2 <= x1 - x0), "")
        row = next((k for k, row_end in enumerate(rows) if row_end <= x0 + 0.01), len(rows))
        if not label or row == MOST_BRACKET_ROWS:
            continue
        rows[row:] = [x1, *rows[row + 1 :]]
        top = y + 18 * row
        path = f"M{svg.number(x0 + 0.75)} {svg.number(top + 17)}v-3H{svg.number(x1 - 0.75)}v3"
        tooltip = f"{section}, {phase}: {units.seconds(start)} to {units.seconds(end)}"
        parts.append(svg.element("path", svg.title(tooltip), d=path, class_="rule"))
        parts.append(svg.text((x0 + x1) / 2, top + 11, label, "mid small quiet halo"))
    return "".join(parts), y + 18 * len(rows) + 3


def _boxes(
    chart: _Chart,
    placements: Sequence[Placement],
    axis: TimeAxis,
    rows: Mapping[int, float],
    height: float,
    overview: bool,
) -> str:
    """A box per placement with its tooltip, its name where it fits, and a bar beneath where it is critical."""
    boxes, names, critical = [], [], []
    for run in _runs(chart, placements, axis):
        first, last = run[0], run[-1]
        phase = chart.phase(first.task)
        x0, x1, y = axis.x(first.start_s), axis.x(last.end_s), rows[first.lane] + 1
        width = x1 - x0
        gap = 0.6 if width > 3 else 0.0  # a hair of paper between neighbours that are wide enough to spare it
        tooltip = chart.tooltip(first) if len(run) == 1 else f"{len(run)} tasks from {first.task} to {last.task}"
        if len(run) == 1:
            data = {"data_task": first.task, "data_start": f"{first.start_s:.9g}", "data_end": f"{first.end_s:.9g}"}
        else:
            data = {"data_tasks": str(len(run))}
        boxes.append(
            svg.element(
                "rect", svg.title(tooltip), x=x0, y=y, width=max(0.3, width - gap), height=height,
                class_=f"p-{phase}", **(data if overview else {}),
            )
        )  # fmt: skip
        if len(run) == 1 and height >= 14 and first.task in chart.tasks:
            task = chart.tasks[first.task]
            name = next((n for n in naming.labels(task) if svg.text_width(n, 11) + 6 <= width), "")
            if name:
                class_ = "mid on-forward" if phase == "forward" else "mid on"
                names.append(svg.text((x0 + x1 - gap) / 2, y + height / 2 + 3, name, class_))
        if any(p.task in chart.critical for p in run):
            thick = 3.0 if height >= 14 else 1.5
            critical.append(f"M{svg.number(x0)} {svg.number(y + height - thick / 2)}H{svg.number(x1 - gap)}")
            line = thick
    if critical:
        boxes.append(svg.element("path", d="".join(critical), class_="critical", stroke_width=line))
    return "".join((*boxes, *names))


def _runs(chart: _Chart, placements: Sequence[Placement], axis: TimeAxis) -> list[list[Placement]]:
    """Placements one by one, or, where there are too many to draw, neighbours below half a px together."""
    if len(placements) <= MOST_BOXES:
        return [[p] for p in placements]
    runs: list[list[Placement]] = []
    ordered = sorted(placements, key=lambda p: (p.lane, p.start_s, p.end_s, p.task))
    px_per_s = axis.px_per_s
    for _, group in groupby(ordered, key=lambda p: (p.lane, chart.phase(p.task))):
        run: list[Placement] = []
        for p in group:
            thin = (p.end_s - p.start_s) * px_per_s < 0.5
            near = thin and bool(run) and (p.start_s - run[-1].end_s) * px_per_s < 0.5
            if near and (run[-1].end_s - run[0].start_s) * px_per_s < 2.0:
                run.append(p)
            else:
                run = [p]
                runs.append(run)
    return runs


def _busiest(prediction: Prediction) -> tuple[float, float] | None:
    """The stretch of the schedule in which its lanes do most, None where all tasks can be read without a close-up."""
    placements = prediction.schedule.placements
    end_s = _last_end(prediction)
    if len(placements) <= CLOSE_UP_TASKS or end_s <= 0:
        return None
    spans = [p.end_s - p.start_s for p in placements]
    typical_s = sum(s * s for s in spans) / (sum(spans) or 1.0)  # the mean weighted by time: tiny sums do not count
    length = min(0.5 * end_s, CLOSE_UP_TYPICAL * typical_s)
    if length <= 0:
        return None
    # Work done up to t is piecewise linear: its slope is the number of lanes that run.
    changes = sorted([(p.start_s, 1) for p in placements] + [(p.end_s, -1) for p in placements])
    at = [t for t, _ in changes]
    running = list(accumulate(step for _, step in changes))
    done = [0.0, *accumulate(running[k] * (at[k + 1] - at[k]) for k in range(len(at) - 1))]

    def work(t: float) -> float:
        k = bisect_right(at, t) - 1
        return done[k] + running[k] * (t - at[k])

    starts = sorted({min(p.start_s, end_s - length) for p in placements if p.start_s >= at[0]})
    return max(
        ((s, s + length) for s in starts),
        key=lambda w: (round((work(w[1]) - work(max(w[0], at[0]))) / length, 6), -w[0]),
    )
