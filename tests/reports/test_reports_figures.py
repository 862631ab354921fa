"""The pictures: valid and self-contained SVG, every placement once, nothing written over anything else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pararev_hw.reports import front_svg, gantt, gantt_svg, graph_svg, memory_svg, svg
from pararev_hw.reports.axis import TimeAxis
from pararev_hw.reports.comparison import compare_svg
from pararev_hw.reports.curve import Steps, thin
from pararev_hw.reports.front import fronts_svg
from pararev_hw.reports.layered import layout, reduced
from pararev_hw.types import Comparison, MemoryCurve, Recommendation, Study
from tests.helpers import hand_built_study

NS = "{http://www.w3.org/2000/svg}"
LONG = "a.very.long.module.path." * 12 + "block"

STUDIES: dict[str, Callable[[], Study]] = {
    "37 layers": hand_built_study.study,
    "165 layers, 2 lanes": lambda: hand_built_study.study((10,) * 4, 2),
    "165 layers, 16 lanes": lambda: hand_built_study.study((10,) * 4, 16),
    "one task": hand_built_study.single_task,
    "a fan of 100 on 40 lanes": lambda: hand_built_study.fan(100, 40),
    "no energy, no spikes": lambda: hand_built_study.study((1, 1), energy=False, spikes=False, mode="infer"),
    "hostile names": lambda: hand_built_study.study(
        (2, 1), model="<script>alert('&')</script>\x00\ud800", rename={"stem": LONG, "head": '"><b>&amp;</b>'}
    ),
}
PARAMETERS = {"gantt": gantt_svg, "front": front_svg, "memory": memory_svg, "graph": graph_svg}


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest) -> Study:
    return STUDIES[request.param]()


def _boxes(root: ET.Element) -> list[tuple[str, float, float, float, float]]:
    """Words with left, top, right, bottom of every text, from estimated widths."""
    boxes = []
    for text in root.iter(f"{NS}text"):
        classes = (text.get("class") or "").split()
        size = 11.0 if {"small", "on", "on-forward"} & set(classes) else svg.FONT_PX
        words = text.text or ""
        width = svg.text_width(words, size)
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        left = x - width if "end" in classes else x - width / 2 if "mid" in classes else x
        boxes.append((words, left, y - 0.75 * size, left + width, y + 0.2 * size))
    return boxes


@pytest.mark.parametrize("name", PARAMETERS)
def test_figures_are_xml_without_references_to_anything_outside(name: str, study: Study) -> None:
    drawn = PARAMETERS[name](study)
    root = ET.fromstring(drawn)
    assert root.tag == f"{NS}svg"
    assert not re.search(r"https?:", drawn.replace("http://www.w3.org/2000/svg", ""))
    assert not re.search(r"url\(|href|@import|<script", drawn)
    assert "prefers-color-scheme:dark" in drawn


@pytest.mark.parametrize("width", [svg.WIDTH, svg.NARROW])
@pytest.mark.parametrize("name", PARAMETERS)
def test_no_text_lies_on_another_or_leaves_the_picture(name: str, width: float, study: Study) -> None:
    root = ET.fromstring(PARAMETERS[name](study, width))
    assert float(root.get("width", 0)) == width
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = _boxes(root)
    assert boxes
    for words, left, top, right, bottom in boxes:
        assert left >= -1 and right <= width + 1 and top >= 0 and bottom <= height, words
    for (a, l0, t0, r0, b0), (b, l1, t1, r1, b1) in combinations(boxes, 2):
        assert r0 <= l1 + 0.5 or r1 <= l0 + 0.5 or b0 <= t1 + 0.5 or b1 <= t0 + 0.5, f"{a!r} on {b!r}"


def test_every_placement_is_drawn_once_in_its_schedule(study: Study) -> None:
    root = ET.fromstring(gantt_svg(study))
    panels = [g for g in root.iter(f"{NS}g") if g.get("class") == "panel"]
    assert len(panels) == 2
    for panel, prediction in zip(panels, (study.sequential, study.chosen), strict=True):
        drawn = Counter(rect.get("data-task") for rect in panel.iter(f"{NS}rect") if rect.get("data-task"))
        # What XML cannot hold is replaced, so names are compared as they are shown.
        expected = Counter(svg._ILLEGAL.sub("\ufffd", p.task) for p in prediction.schedule.placements)
        assert drawn == expected


def test_bars_are_where_their_tasks_run() -> None:
    study = hand_built_study.study((3, 2), 3)
    root = ET.fromstring(gantt_svg(study))
    axis = TimeAxis(0.0, study.sequential.latency_s, gantt.LEFT, svg.WIDTH - gantt.MARGIN)
    chosen = [g for g in root.iter(f"{NS}g") if g.get("class") == "panel"][1]
    rows: dict[int, set[str]] = {}
    bars = {r.get("data-task"): r for r in chosen.iter(f"{NS}rect") if r.get("data-task")}
    for p in study.chosen.schedule.placements:
        bar = bars[p.task]
        assert float(bar.get("x", 0)) == pytest.approx(axis.x(p.start_s), abs=0.02)
        assert float(bar.get("width", 0)) == pytest.approx(max(0.3, axis.x(p.end_s) - axis.x(p.start_s)), abs=0.65)
        rows.setdefault(p.lane, set()).add(bar.get("y", ""))
    assert all(len(ys) == 1 for ys in rows.values()) and len({*map(min, rows.values())}) == len(rows)


def test_a_schedule_too_long_to_draw_box_by_box_still_counts_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    study = hand_built_study.study((10,) * 4, 4)
    monkeypatch.setattr(gantt, "MOST_BOXES", 10)
    root = ET.fromstring(gantt_svg(study))
    panel = [g for g in root.iter(f"{NS}g") if g.get("class") == "panel"][1]
    rects = list(panel.iter(f"{NS}rect"))
    merged = sum(int(r.get("data-tasks", 0)) for r in rects)
    assert merged > 0
    assert merged + sum(r.get("data-task") is not None for r in rects) == len(study.chosen.schedule.placements)


def test_a_host_row_is_drawn_where_a_host_clock_exists() -> None:
    study = hand_built_study.study()
    assert ">host<" in gantt_svg(study)
    silent = tuple(replace(p, host_s=0.0) for p in study.predictions)
    assert ">host<" not in gantt_svg(replace(study, predictions=silent))


def test_the_recommended_sequential_step_is_drawn_once() -> None:
    root = ET.fromstring(gantt_svg(replace(hand_built_study.study(), best=0)))
    assert sum(g.get("class") == "panel" for g in root.iter(f"{NS}g")) == 1


def test_the_block_graph_names_every_forward_task_and_shows_every_later_one() -> None:
    study = hand_built_study.study((10,) * 4, 2)
    root = ET.fromstring(graph_svg(study))
    titles = [t.text or "" for t in root.iter(f"{NS}title")]
    shown = {t.split(": ")[0] for t in titles if ": " in t}
    assert shown == {t.id for t in study.graph.tasks}
    emphasised = {t.split(": ")[0] for t in titles if t.endswith("on the critical path")}
    assert emphasised == set(study.critical_path.tasks)


def test_a_graph_with_very_many_tasks_is_folded_and_says_so() -> None:
    drawn = graph_svg(hand_built_study.study((40,) * 4, 2, mode="infer"))
    assert "chains folded" in drawn or "the first 300 are drawn" in drawn
    assert float(ET.fromstring(drawn).get("height", 0)) < 6000


@pytest.mark.parametrize("width", [svg.WIDTH, svg.NARROW])
@pytest.mark.parametrize("draw", [compare_svg, fronts_svg])
def test_comparison_picture_is_valid_and_legible(draw: Callable[[Comparison, float], str], width: float) -> None:
    studies = (STUDIES["37 layers"](), STUDIES["hostile names"](), STUDIES["no energy, no spikes"]())
    drawn = draw(Comparison(studies[0].device, studies), width)
    boxes = _boxes(ET.fromstring(drawn))
    for (a, l0, t0, r0, b0), (b, l1, t1, r1, b1) in combinations(boxes, 2):
        assert r0 <= l1 or r1 <= l0 or b0 <= t1 or b1 <= t0, f"{a!r} on {b!r}"
    assert all(left >= 0 and right <= width for _, left, _, right, _ in boxes)


def test_a_comparison_draws_the_way_within_memory_and_every_front() -> None:
    study = hand_built_study.study()
    slow, fast = study.predictions[1], study.chosen
    between = Recommendation("within_memory", slow)
    study = replace(study, recommendations=(Recommendation("fastest", fast), between), front=(slow, fast))
    comparison = Comparison(study.device, (study, replace(study, best=0)))
    boxes = ET.fromstring(compare_svg(comparison)).iter(f"{NS}rect")
    bars = [box.get("class") for box in boxes if box.find(f"{NS}title") is not None]
    # three quantities of the first network three times, of the second, whose sequential step is chosen, twice
    assert Counter(bars) == {"r-optimizer": 6, "p-backward": 6, "p-forward": 3}
    root = ET.fromstring(fronts_svg(comparison))
    dots = [c for c in root.iter(f"{NS}circle") if c.get("r") == "4"]
    rings = [c for c in root.iter(f"{NS}circle") if c.get("r") == "8"]
    assert len(dots) == len(rings) == 4
    assert all(float(a.get("cx", 0)) < float(b.get("cx", 0)) for a, b in (dots[:2], dots[2:])) == (
        slow.peak_bytes < fast.peak_bytes
    )


def test_the_memory_peak_survives_thinning_and_is_labelled() -> None:
    study = hand_built_study.study()
    count = 50_000
    live = [1000 + k % 7 for k in range(count)]
    live[31_337] = 5 << 30
    curve = MemoryCurve(tuple(k * 1e-7 for k in range(count)), {"saved": tuple(live)})
    predictions = (*study.predictions[:-1], replace(study.chosen, memory=curve))
    drawn = memory_svg(replace(study, predictions=predictions))
    assert "peak 5.00 GiB at 3.13 ms" in drawn
    assert len(drawn) < 200_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=300), st.integers(4, 40))
def test_thinning_keeps_ends_extremes_and_the_limit(live: list[int], most: int) -> None:
    curve = Steps(tuple(float(k) for k in range(len(live))), float(len(live)), {"a": tuple(live), "b": tuple(live)})
    thinned = thin(curve, most)
    assert len(thinned.starts_s) <= most or len(live) <= most
    assert max(thinned.total) == max(curve.total) and min(thinned.total) == min(curve.total)
    assert thinned.starts_s[0] == 0.0 and thinned.starts_s[-1] == curve.starts_s[-1]
    at = dict(zip(curve.starts_s, curve.bytes["a"], strict=True))
    assert all(at[t] == v for t, v in zip(thinned.starts_s, thinned.bytes["a"], strict=True))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 24))
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    return count, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


def _closure(count: int, edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    known = set(edges)
    for k in range(count):
        known |= {(i, j) for i in range(k) for j in range(k + 1, count) if (i, k) in known and (k, j) in known}
    return known


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_leaving_out_implied_edges_changes_no_order(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    kept = reduced(count, edges)
    assert _closure(count, kept) == _closure(count, edges)
    for edge in kept:
        assert edge not in _closure(count, [e for e in kept if e != edge])  # none could be spared


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(1, 6))
@example((10, [*pairwise(range(1, 10)), (0, 9)]), 3)  # node 0 is needed late only, and moves right
def test_the_layout_puts_every_node_once_after_all_that_it_needs(
    graph: tuple[int, list[tuple[int, int]]], most_rows: int
) -> None:
    count, edges = graph
    critical: list[int] = []
    for node in range(count - 1, -1, -1):
        if not critical or (node, critical[0]) in edges:
            critical.insert(0, node)
    drawing = layout(count, edges, critical, most_rows)
    at = {slot.node: c for c, slots in enumerate(drawing.columns) for slot in slots if slot.node is not None}
    assert sorted(at) == list(range(count))
    assert all(at[src] < at[dst] for src, dst in edges)
    for slots in drawing.columns:
        assert sum(slot.node is not None for slot in slots) <= most_rows
        assert len({slot.row for slot in slots}) == len(slots)
    rows = {slot.node: slot.row for slots in drawing.columns for slot in slots if slot.node is not None}
    assert all(rows[node] == 0 for node in critical)
    # Each edge is either drawn through all the columns between its ends, or cut.
    pieces = Counter((link.src, link.dst) for link in drawing.links)
    for edge in edges:
        assert (pieces[edge] == at[edge[1]] - at[edge[0]]) != (edge in drawing.cut)
    for src, dst in pieces:
        chain = sorted((link for link in drawing.links if (link.src, link.dst) == (src, dst)), key=lambda k: k.column)
        assert chain[0].row == rows[src] and chain[-1].to_row == rows[dst]
        assert all(a.to_row == b.row and a.column + 1 == b.column for a, b in pairwise(chain))
