"""The block graph: the forward phase with names, what follows it in compact form, the critical path along the top.

Columns are steps that must follow one another; what stands in one column may run at the same time. A deep network is
wrapped into bands like lines of text. Edges that a longer path implies are not drawn: they constrain nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pararev_hw.reports import naming, svg, units
from pararev_hw.reports.layered import Layout, layout, reduced, successors
from pararev_hw.types import PHASES, Study, Task

LEFT = MARGIN = 30.0
MOST_NODES = 300  # of a panel, before chains are folded; a panel that is larger still is cut, and says so
LABEL_PX = 11.0
LABEL_ROOM_PX = 100.0
FOLDED_LABEL_PX = 90.0  # where chains are folded


@dataclass(frozen=True, slots=True)
class _Node:
    """One box: a task, or a chain of tasks that was folded into one box."""

    tasks: tuple[Task, ...]
    label: str
    section: str
    critical: bool

    @property
    def join(self) -> bool:
        return all(t.branch == "join" for t in self.tasks)


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes of a panel in px."""

    row: float
    box: float  # height of a box
    gap: float  # between columns
    most_rows: int
    named: bool
    right: float = svg.WIDTH - MARGIN


_NAMED = _Style(row=28, box=20, gap=16, most_rows=6, named=True)
_COMPACT = _Style(row=13, box=9, gap=6, most_rows=10, named=False)


def graph_svg(study: Study, width: float = svg.WIDTH) -> str:
    """The block-dependency graph as one SVG document."""
    return graph_svgs(study, (width,))[0]


def graph_svgs(study: Study, widths: Sequence[float]) -> tuple[str, ...]:
    """The block-dependency graph in several widths, arranged once."""
    panels = _panels(study)
    legend = _legend(study)
    label = f"Block-dependency graph of {study.graph.model}: {len(study.chosen_graph.tasks)} tasks"
    drawings = []
    for width in widths:
        drawn, y = svg.legend(legend, LEFT, width - MARGIN)
        parts, y = [drawn], y + 24
        for panel in panels:
            drawn, y = _drawn(panel, width - MARGIN, y)
            parts.append(drawn)
        drawings.append(svg.figure(y, label, parts, "graph", width))
    return tuple(drawings)


def _panels(study: Study) -> list[_Panel]:
    """The forward pass, and what comes after it."""
    tasks = study.chosen_graph.tasks
    later = [p for p in PHASES[1:] if any(t.phase == p for t in tasks)]
    phases: list[tuple[tuple[str, ...], _Style, str]] = [
        (("forward",), _NAMED, "Forward: tasks in one column may run at the same time")
    ]
    if later:
        phases.append((tuple(later), _COMPACT, f"{', '.join(later).capitalize()} (names on hover)"))
    panels = []
    for of_panel, style, heading in phases:
        inside = [i for i, t in enumerate(tasks) if t.phase in of_panel]
        if inside:
            panels.append(_panel(study, inside, style, heading))
    return panels


def _legend(study: Study) -> list[tuple[str, str, str]]:
    tasks, path = study.chosen_graph.tasks, study.critical_path
    phases = {t.phase for t in tasks}
    items: list[tuple[str, str, str]] = [("rect", f"p-{phase}", phase) for phase in PHASES if phase in phases]
    if any(t.branch == "join" for t in tasks):
        items.append(("circle", "p-forward", "sum that joins branches"))
    if path.tasks:
        length = f", {units.seconds(path.length)}" if path.weight == "time_s" else ""
        items.append(("line", "critical", f"critical path{length}"))
    return items


@dataclass(frozen=True, slots=True)
class _Panel:
    """Boxes with their places, whatever the width."""

    title: str
    nodes: Sequence[_Node]
    layout: Layout
    style: _Style


def _panel(study: Study, inside: Sequence[int], style: _Style, heading: str) -> _Panel:
    """One panel of the tasks of these indices."""
    nodes, edges = _nodes(study, inside)
    title = heading
    if len(nodes) < len(inside):
        title = f"{heading.split(':')[0]}: {len(inside)} tasks, chains folded into {len(nodes)} boxes"
    most = MOST_NODES if style.named else 5 * MOST_NODES
    if len(nodes) > most:
        title += f", of which the first {most} are drawn (all are in report.json)"
        nodes = nodes[:most]
        edges = [(i, j) for i, j in edges if j < most]
    path = [k for k, node in enumerate(nodes) if node.critical]
    drawn_edges = reduced(len(nodes), edges, frozenset(pairwise(path)))
    return _Panel(title, nodes, layout(len(nodes), drawn_edges, path, style.most_rows), style)


def _drawn(panel: _Panel, right: float, y: float) -> tuple[str, float]:
    """A panel from `y` down. Gives its bottom too."""
    drawn, bottom = _bands(panel.nodes, panel.layout, replace(panel.style, right=right), y + 22)
    return svg.text(LEFT, y + 12, svg.shorten(panel.title, right - LEFT), "strong") + drawn, bottom + 16


def _nodes(study: Study, inside: Sequence[int]) -> tuple[list[_Node], list[tuple[int, int]]]:
    """A box per task, edges between boxes; too many tasks have their chains folded."""
    graph = study.chosen_graph
    tasks = [graph.tasks[i] for i in inside]
    number = {i: k for k, i in enumerate(inside)}
    edges = [(number[e.src], number[e.dst]) for e in graph.edges if e.src in number and e.dst in number]
    section = naming.sections(t.block for t in graph.tasks)
    # A section that is the block itself needs no heading: the box says its name.
    heading = {block: "" if name == block else name for block, name in section.items()}
    critical = frozenset(study.critical_path.tasks)
    chains, room_px = [[k] for k in range(len(tasks))], LABEL_ROOM_PX
    if len(tasks) > MOST_NODES:
        kinds = [(heading[t.block], t.phase, t.id in critical) for t in tasks]
        chains, edges = _folded(kinds, reduced(len(tasks), edges))
        room_px = FOLDED_LABEL_PX
    nodes = []
    for chain in chains:
        first = tasks[chain[0]]
        label = _label(first, section[first.block]) + (f" … {len(chain)}" if len(chain) > 1 else "")
        label = svg.shorten(label, room_px, LABEL_PX)
        nodes.append(_Node(tuple(tasks[k] for k in chain), label, heading[first.block], first.id in critical))
    return nodes, edges


def _label(task: Task, section: str) -> str:
    if task.branch == "join":
        return "+"
    choices = naming.labels(task, section)
    if section == task.block:
        return svg.shorten(choices[0], LABEL_ROOM_PX, LABEL_PX)  # no heading above says the rest
    fits = (c for c in choices if svg.text_width(c, LABEL_PX) <= LABEL_ROOM_PX)
    return next(fits, svg.shorten(choices[-1], LABEL_ROOM_PX, LABEL_PX))


def _folded(
    kinds: Sequence[tuple[str, str, bool]], edges: Sequence[tuple[int, int]]
) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Every chain (one successor, which has one predecessor) of one kind (section, phase, critical or not), and the
    edges between chains: no cycle can come of that, and no parallelism is hidden."""
    out = successors(len(kinds), edges)
    into = [0] * len(kinds)
    for _, dst in edges:
        into[dst] += 1
    head = list(range(len(kinds)))
    for i, after in enumerate(out):
        if len(after) == 1 and into[after[0]] == 1 and kinds[i] == kinds[after[0]]:
            head[after[0]] = head[i]
    chains: dict[int, list[int]] = {}
    for i, h in enumerate(head):
        chains.setdefault(h, []).append(i)
    # Edges enter a chain at its first box and leave it at its last, so the order of the first ones is topological.
    ordered = sorted(chains.values(), key=lambda chain: chain[0])
    number = {i: k for k, chain in enumerate(ordered) for i in chain}
    return ordered, sorted({(number[i], number[j]) for i, j in edges if number[i] != number[j]})


@dataclass(frozen=True, slots=True)
class _Column:
    """Where a column is drawn: its band, its left edge and width."""

    band: int
    x: float
    width: float


def _bands(nodes: Sequence[_Node], drawing: Layout, style: _Style, y: float) -> tuple[str, float]:
    """The layout as boxes and lines, its columns wrapped into bands. Gives the bottom too."""
    columns = _wrapped(nodes, drawing, style)
    tops, bottom = [], y
    headings: list[str] = []
    for band in range(columns[-1].band + 1):
        inside = [c for c, column in enumerate(columns) if column.band == band]
        drawn = _headings(nodes, drawing, columns, inside, bottom, style.right)
        headings.append(drawn)
        tops.append(bottom + (18 if drawn else 0))
        rows = 1 + max(slot.row for c in inside for slot in drawing.columns[c])
        bottom = tops[-1] + rows * style.row + (10 if style.named else 8)

    def middle(c: int, row: int) -> float:
        return tops[columns[c].band] + row * style.row + style.row / 2

    placed: dict[int, tuple[float, float, float]] = {}  # node -> left, right, middle
    boxes = []
    for c, slots in enumerate(drawing.columns):
        for slot in slots:
            if slot.node is not None:
                node, at = nodes[slot.node], middle(c, slot.row)
                left = columns[c].x + (columns[c].width - _width(node, style)) / 2
                placed[slot.node] = (left, left + _width(node, style), at)
                boxes.append(_box(node, left, at, style))
    lines = _lines(nodes, drawing, columns, placed, middle, style)
    return "".join((*headings, *lines, *boxes)), bottom


def _width(node: _Node, style: _Style) -> float:
    if not style.named:
        return style.box
    return style.box if node.label == "+" else max(34.0, svg.text_width(node.label, LABEL_PX) + 10)


def _wrapped(nodes: Sequence[_Node], drawing: Layout, style: _Style) -> list[_Column]:
    """Columns from left to right, a new band where the width is used up."""
    columns: list[_Column] = []
    band, x = 0, LEFT
    for slots in drawing.columns:
        width = max((_width(nodes[s.node], style) for s in slots if s.node is not None), default=4.0)
        if x + width > style.right and x > LEFT:
            band, x = band + 1, LEFT
        columns.append(_Column(band, x, width))
        x += width + style.gap
    return columns


def _headings(
    nodes: Sequence[_Node],
    drawing: Layout,
    columns: Sequence[_Column],
    inside: Sequence[int],
    y: float,
    limit: float,
) -> str:
    """Names of the sections over the columns of one band in which they lie, where there is room."""
    spans: dict[str, tuple[float, float]] = {}
    for c in inside:
        for slot in drawing.columns[c]:
            section = nodes[slot.node].section if slot.node is not None else ""
            if section:
                left, right = columns[c].x, columns[c].x + columns[c].width
                spans[section] = (spans.get(section, (left, right))[0], right)
    parts, free = [], LEFT
    for section, (left, right) in sorted(spans.items(), key=lambda item: (item[1], item[0])):
        x = max(left, free)
        room = max(right, min(limit, x + 40)) - x
        label = next((n for n in naming.abbreviations(section) if svg.text_width(n, 11) <= room), "")
        if label:
            line = f"M{svg.number(x)} {svg.number(y + 15)}H{svg.number(max(right, x + svg.text_width(label, 11)))}"
            parts.append(svg.element("path", svg.title(section), d=line, class_="grid"))
            parts.append(svg.text(x, y + 11, label, "small quiet"))
            free = max(right, x + svg.text_width(label, 11)) + 8
    return "".join(parts)


def _box(node: _Node, left: float, middle: float, style: _Style) -> str:
    """One task (or folded chain): a circle for a sum, a named box else, with its tooltip."""
    first = node.tasks[0]
    more = f" and {len(node.tasks) - 1} more in a chain" if len(node.tasks) > 1 else ""
    critical = ", on the critical path" if node.critical else ""
    tooltip = svg.title(f"{first.id}{more}: {first.phase}, {units.count(_flops(node))} flops{critical}")
    outline: dict[str, str | float] = (
        {"stroke": "var(--ink)", "stroke_width": 2.0 if style.named else 1.5} if node.critical else {}
    )
    if len(node.tasks) == 1:
        outline["data_task"] = first.id
    half = style.box / 2
    class_ = f"p-{first.phase}"
    if node.join:
        shape = svg.element("circle", tooltip, cx=left + half, cy=middle, r=half - 1, class_=class_, **outline)
    else:
        width = _width(node, style)
        shape = svg.element(
            "rect", tooltip, x=left, y=middle - half, width=width, height=style.box, rx=3 if style.named else 1,
            class_=class_, **outline,
        )  # fmt: skip
    if not style.named:
        return shape
    text_class = "mid on-forward" if first.phase == "forward" else "mid on"
    return shape + svg.text(left + _width(node, style) / 2, middle + 4, node.label, text_class)


def _flops(node: _Node) -> int:
    return sum(t.flops + t.vector_flops for t in node.tasks)


def _lines(
    nodes: Sequence[_Node],
    drawing: Layout,
    columns: Sequence[_Column],
    placed: Mapping[int, tuple[float, float, float]],
    middle: Callable[[int, int], float],
    style: _Style,
) -> list[str]:
    """Edges as paths: plain ones in one element, critical ones in another above it."""
    plain: list[str] = []
    critical: list[str] = []
    first = {slot.node: c for c, slots in enumerate(drawing.columns) for slot in slots}
    n = svg.number
    for link in drawing.links:
        here, there = columns[link.column], columns[link.column + 1]
        y0, y1 = middle(link.column, link.row), middle(link.column + 1, link.to_row)
        x0 = placed[link.src][1] if first[link.src] == link.column else here.x
        x1 = placed[link.dst][0] if first[link.dst] == link.column + 1 else there.x
        right = here.x + here.width
        if here.band == there.band:
            bend = (there.x - right) / 2
            curve = f"C{n(right + bend)} {n(y0)} {n(there.x - bend)} {n(y1)} {n(there.x)} {n(y1)}"
            d = f"M{n(x0)} {n(y0)}H{n(right)}{curve if y0 != y1 else ''}H{n(x1)}"
        else:
            # Out to the right with an arrow, in again from the left of the next band.
            d = f"M{n(x0)} {n(y0)}H{n(right + 11)}m-4 -3l4 3l-4 3M{n(LEFT - 16)} {n(y1)}H{n(x1)}"
        (critical if nodes[link.src].critical and nodes[link.dst].critical else plain).append(d)
    stub = style.gap / 4
    for src, dst in drawing.cut:
        (_, x0, y0), (x1, _, y1) = placed[src], placed[dst]
        plain.append(f"M{n(x0)} {n(y0)}h{n(stub)}M{n(x1)} {n(y1)}h{n(-stub)}")
    thin, thick = (1.2, 3.0) if style.named else (0.8, 2.0)
    parts = []
    if plain:
        parts.append(svg.element("path", d="".join(plain), class_="edge", stroke_width=thin))
    if critical:
        parts.append(svg.element("path", d="".join(critical), class_="critical", stroke_width=thick))
    return parts
