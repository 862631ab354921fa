"""The report in a real browser: it renders, sorts, logs no error and asks for nothing from outside."""

from __future__ import annotations

import re
import socketserver
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pararev_hw import pipeline
from pararev_hw.devices import load_device
from pararev_hw.reports import write_comparison, write_report, write_sweep
from pararev_hw.tracing import trace_step
from pararev_hw.types import (
    Comparison,
    LayerLimit,
    PointExplanation,
    SweepAxis,
    SweepNeighbour,
    SweepPoint,
    SweepResult,
)
from tests.helpers import hand_built_study
from tests.helpers.browser import CHROMIUM, chromium, console, seen_in, with_probe

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

# Runs inside a copy of the page, after the page's own script: presses heads, and writes down what it sees.
PROBE = """  const table = document.getElementById("task-table");
  const heads = [...table.tHead.rows[0].cells];
  const column = (k) => [...table.tBodies[0].rows].map((r) => r.cells[k].dataset.value ?? r.cells[k].textContent);
  const press = (k) => { heads[k].querySelector("button").click(); return heads[k].getAttribute("aria-sort"); };
  seen.first = [heads[4].getAttribute("aria-sort"), column(4)];
  seen.start = [press(3), column(3)];
  seen.again = [press(3), column(3)];
  seen.name = [press(0), column(0)];
  seen.marked = heads.filter((h) => h.hasAttribute("aria-sort")).length;
  seen.status = document.getElementById("sort-status").textContent;
  seen.focus = heads.every((h) => h.querySelector("button").tabIndex === 0);
  seen.requests = performance.getEntriesByType("resource").map((e) => e.name);
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const texts = [...document.querySelectorAll("svg text")];
  seen.texts = texts.length;
  const heights = texts.map((t) => t.getBoundingClientRect().height).filter((h) => h > 0);
  seen.smallest = Math.min(...heights);
  seen.shown = heights.length;
  seen.clipped = texts.filter((t) => {
    const own = t.getBoundingClientRect(), all = t.ownerSVGElement.getBoundingClientRect();
    return own.left < all.left - 1 || own.right > all.right + 1;
  }).map((t) => t.textContent);
  seen.overlaps = [...document.querySelectorAll("svg")].flatMap((figure) => {
    const boxes = [...figure.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    const bad = [];
    for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
      const a = boxes[i][1], b = boxes[j][1];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 4) bad.push(boxes[i][0] + " on " + boxes[j][0]);
    }
    return bad;
  });
  const wide = document.documentElement.clientWidth;
  seen.cut = [...document.querySelectorAll("table, .picture svg")].filter((e) => {
    const shown = e.getBoundingClientRect();
    return shown.width > 0 && shown.right > wide + 1;
  }).map((e) => e.id || e.querySelector("caption")?.textContent || e.getAttribute("class"));
  const gantt = document.querySelector("svg.gantt");
  const before = gantt.viewBox.baseVal.width;
  document.querySelector("#gantt .zoom [data-zoom='1.5']").click();
  seen.zoomed = before / gantt.viewBox.baseVal.width;
  gantt.parentElement.dispatchEvent(new KeyboardEvent("keydown", { key: "0", bubbles: true }));
  seen.whole = gantt.viewBox.baseVal.width === before;
  seen.height = document.documentElement.scrollHeight;
  seen.zoomKeys = [...document.querySelectorAll(".picture, .zoom button")].every((e) => e.tabIndex === 0);
  const box = gantt.querySelector("[data-task]");
  box.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  seen.hot = [...document.querySelectorAll(".hot")].map((e) => e.tagName);
  const others = [...document.querySelectorAll(".hot")].filter((e) => e.dataset.task !== box.dataset.task);
  seen.cold = others.length;
  seen.span = Number(document.querySelector(".memory .span").getAttribute("width"));
  const field = document.querySelector("[data-filter='task-table']");
  field.value = "backward";
  field.dispatchEvent(new Event("input"));
  seen.filtered = [...table.tBodies[0].rows].filter((r) => r.getBoundingClientRect().height > 0).length;
  seen.dimmed = document.querySelectorAll("svg.gantt .dim").length;
"""


class _Recorder(socketserver.StreamRequestHandler):
    """Notes the first line of whatever asks, and answers nothing."""

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().decode(errors="replace").strip())  # type: ignore[attr-defined]


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that every request of the browser would have to pass, and what it was asked for."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Recorder) as server:
        server.asked = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked  # type: ignore[attr-defined]
        server.shutdown()


@pytest.mark.parametrize(
    ("stages", "lanes", "window"), [((2,) * 4, 2, "1280,900"), ((10,) * 4, 16, "1280,900"), ((10,) * 4, 16, "400,900")]
)
def test_the_report_renders_sorts_and_asks_for_nothing(
    stages: tuple[int, ...], lanes: int, window: str, tmp_path: Path, proxy: tuple[str, list[str]]
) -> None:
    study = hand_built_study.study(stages, lanes, model="<script>document.title='broken'</script>")
    report = write_report(study, tmp_path / "out")[0]
    probe = tmp_path / "probe.html"
    probe.write_text(with_probe(report.read_text(encoding="utf-8"), PROBE), encoding="utf-8")
    address, asked = proxy
    done = chromium(probe, tmp_path / "profile", "--dump-dom", f"--proxy-server={address}", f"--window-size={window}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert console(done) == []
    assert "<title>broken</title>" not in done.stdout
    seen = seen_in(done.stdout)
    assert seen["requests"] == []
    assert [line for line in asked if "google" not in line and "gvt1" not in line] == []  # the browser's own errands

    took = [p.end_s - p.start_s for p in study.chosen.schedule.placements]
    starts = sorted(p.start_s for p in study.chosen.schedule.placements)
    order, values = seen["first"]  # type: ignore[misc]
    assert order == "descending" and [*map(float, values)] == sorted(took, reverse=True)
    order, values = seen["start"]  # type: ignore[misc]
    assert order == "descending" and [*map(float, values)] == starts[::-1]
    order, values = seen["again"]  # type: ignore[misc]
    assert order == "ascending" and [*map(float, values)] == starts
    order, values = seen["name"]  # type: ignore[misc]
    assert order == "ascending" and sorted(values) == sorted(t.id for t in study.graph.tasks)
    assert [v[0] for v in values] == sorted(v[0] for v in values)
    assert seen["marked"] == 1 and seen["focus"] is True and seen["status"] == "Sorted by task, ascending"
    # What a telephone shows is drawn for it: a line of text is 12 px high or more.
    assert seen["shown"] > 20 and seen["smallest"] >= 12  # type: ignore[operator]
    # Wide and long tables and pictures scroll in their own boxes, the page itself is neither wide nor without end.
    assert seen["height"] < 20_000  # type: ignore[operator]
    assert seen["overflow"] == 0
    assert seen["texts"] and seen["clipped"] == [] and seen["overlaps"] == []
    assert seen["cut"] == []

    # Zoom by button and by key, one task everywhere, a filter.
    assert seen["zoomed"] == pytest.approx(1.5) and seen["whole"] is True and seen["zoomKeys"] is True
    assert {"rect", "TR"} <= set(seen["hot"]) and seen["cold"] == 0 and seen["span"] >= 2  # type: ignore[call-overload, operator]
    backward = [t for t in study.graph.tasks if t.phase == "backward"]
    assert seen["filtered"] == len(backward) and seen["dimmed"]


def test_the_instruments_of_these_tests_see_what_they_look_for(tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('seen')</script><img src='http://figures.example/a.png'>", encoding="utf-8")
    address, asked = proxy
    done = chromium(page, tmp_path / "profile", "--dump-dom", f"--proxy-server={address}")
    assert any("seen" in line for line in console(done))
    assert any("figures.example/a.png" in line for line in asked)


@pytest.mark.parametrize("scheme", [0, 1])
def test_the_untouched_report_and_the_comparison_raise_no_console_error(scheme: int, tmp_path: Path) -> None:
    study = hand_built_study.study()
    report = write_report(study, tmp_path)[0]
    compare = write_comparison(Comparison(study.device, (study, study)), tmp_path)[0]
    for k, page in enumerate((report, compare)):
        shot = tmp_path / f"{k}.png"
        flags = (f"--screenshot={shot}", "--window-size=800,600", f"--blink-settings=preferredColorScheme={scheme}")
        done = chromium(page, tmp_path / f"profile{k}", *flags)
        assert done.returncode == 0 and console(done) == []
        red, green, blue = _corner(shot)
        assert (red + green + blue < 200) == (scheme == 0), "dark paper for those who ask for it, white for the rest"


def _corner(png: Path) -> tuple[int, int, int]:
    """The colour of the top left pixel of an 8-bit RGB or RGBA PNG."""
    data = png.read_bytes()
    at, stream, channels = 8, b"", 3
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            channels = {2: 3, 6: 4}[body[9]]
        if kind == b"IDAT":
            stream += body
        at += 12 + length
    # The first pixel of the first row has no neighbour to be predicted from: it stands as it is.
    first = zlib.decompress(stream)[1 : 1 + channels]
    return first[0], first[1], first[2]


SWEEP_PROBE = """
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getBoundingClientRect().width);
  const panel = document.getElementById("pinned");
  const heads = () => [...panel.querySelectorAll("table")[0].tHead.rows[0].cells].map((c) => c.textContent);
  seen.first = heads();
  seen.why = panel.querySelectorAll(".why").length;
  seen.roof = panel.querySelectorAll(".roof circle").length;
  const rows = [...document.querySelectorAll("tr[data-task^='row-']")];
  const enter = new KeyboardEvent("keydown", { key: "Enter", bubbles: true });
  rows.find((r) => r.dataset.task === "row-3").dispatchEvent(enter);
  seen.keyboard = heads();
  const [third] = shown("svg.pareto circle[data-task='row-2']");
  third.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen.clicked = heads();
  seen.pins = new Set([...document.querySelectorAll(".pin")].map((e) => e.dataset.task)).size;
  const [line] = shown("svg.parallel polyline[data-task='row-2']");
  line.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  seen.hot = [...document.querySelectorAll(".hot")].map((e) => e.tagName + e.dataset.task);
  const [zone] = shown("[data-axis='0']"), box = zone.getBoundingClientRect();
  const at = (share, type) => zone.dispatchEvent(new PointerEvent(type, {
    bubbles: true, pointerId: 1, clientX: box.left + box.width / 2, clientY: box.bottom - share * box.height }));
  at(0.5, "pointerdown"); at(1, "pointermove"); at(1, "pointerup");
  seen.brushed = shown("svg.parallel polyline.dim").map((e) => e.dataset.task).sort();
  seen.left = rows.filter((r) => !r.classList.contains("out")).map((r) => r.dataset.task).sort();
  seen.status = document.getElementById("range-status").textContent;
  zone.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  seen.cleared = document.querySelectorAll(".dim, tr.out").length;
  zone.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  seen.arrow = shown("svg.parallel polyline.dim").length;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const wide = document.documentElement.clientWidth;
  const all = [...document.querySelectorAll("table, svg")];
  seen.cut = all.filter((e) => e.getBoundingClientRect().right > wide + 1).length;
"""


def _sweep() -> SweepResult:
    """Four configurations of 1, 2, 4 and 8 cores, all on the front; the second is recommended."""
    points = tuple(
        SweepPoint(k, {"lanes": 2.0**k, "network": "<b>net"}, {"latency_s": 8.0 / 2**k, "energy_j": 1.0 + k})
        for k in range(4)
    )
    layers = (LayerLimit("conv1", "SRAM", 0.6, 10.0, 1e9), LayerLimit("conv2", "PE array", 0.4, 100.0, 5e9))
    step = (SweepNeighbour("lanes", 4.0, {"latency_s": 2.0, "energy_j": 3.0}),)
    shares = {"SRAM": 0.5, "PE array": 0.3, "waiting": 0.2}
    return SweepResult(
        name="<script>sweep", device="a chip", scheduler="heft", method="grid",
        parameters=(SweepAxis("lanes", "", log=True),), fixed={"network": "<b>net"},
        objectives=(SweepAxis("latency_s", "s", label="latency"), SweepAxis("energy_j", "J", label="energy")),
        evaluated=4, failed=0, reasons={}, resumed=0, configs_per_s=10.0, pareto=points[::-1], sample=(),
        sensitivity={"latency_s": {"lanes": 1.0}, "energy_j": {"lanes": 1.0}}, combinations=4, recommended=points[1],
        explanations=(PointExplanation(1, shares, layers, {"mac": 1.0, "total": 1.0}, step, 1e10, 1e9),),
    )  # fmt: skip


@pytest.mark.parametrize("window", ["1280,900", "400,900"])
def test_the_sweep_page_pins_compares_brushes_and_explains(window: str, tmp_path: Path) -> None:
    page = write_sweep(_sweep(), tmp_path)[0]
    done = chromium(page, tmp_path / "profile0", "--dump-dom", f"--window-size={window}")
    assert done.returncode == 0 and console(done) == [], done.stderr[-2000:]
    probe = tmp_path / "probe.html"
    probe.write_text(with_probe(page.read_text(encoding="utf-8"), SWEEP_PROBE), encoding="utf-8")
    done = chromium(probe, tmp_path / "profile", "--dump-dom", f"--window-size={window}")
    assert done.returncode == 0 and console(done) == [], done.stderr[-2000:]
    seen = seen_in(done.stdout)
    # the recommended configuration and the fastest one stand there at first, the first with its reasons
    assert seen["first"] == ["", "row 1 (recommended)", "row 3", "second / first"]
    assert seen["why"] == 2 and seen["roof"] == 2
    assert seen["keyboard"] == ["", "row 1 (recommended)"], "Enter on a pinned row lets it go"
    assert seen["clicked"] == ["", "row 1 (recommended)", "row 2", "second / first"] and seen["pins"] == 2
    assert {"polylinerow-2", "circlerow-2", "TRrow-2"} <= set(seen["hot"])  # type: ignore[call-overload]
    # from the middle of the axis of 1 to 8 cores upwards: 4 and 8 are left
    assert set(seen["brushed"]) == {"row-0", "row-1"}  # type: ignore[call-overload]
    assert seen["left"] == ["row-2", "row-3"]
    assert seen["status"] == "2 of the 4 configurations drawn are within the ranges"
    assert seen["cleared"] == 0 and seen["arrow"] == 1  # 8 cores stand at the upper end
    assert seen["overflow"] == 0 and seen["cut"] == 0


def test_the_report_is_whole_without_script(tmp_path: Path) -> None:
    study = hand_built_study.study()
    report = write_report(study, tmp_path)[0]
    text = re.sub(r"<script>.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.S)
    bare = tmp_path / "bare.html"
    bare.write_text(text, encoding="utf-8")
    done = chromium(bare, tmp_path / "profile", "--dump-dom")
    assert done.returncode == 0 and console(done) == []
    assert all(t.id in done.stdout for t in study.graph.tasks)
    assert done.stdout.count("<svg") == 2 * 4  # wide, and narrow for a telephone


# Words of three letters and more that stand on two lines: a box on each.
BROKEN = """  document.querySelector(".path").closest("details").open = true;
  const walk = document.createTreeWalker(document.querySelector(".path"), NodeFilter.SHOW_TEXT);
  seen.words = 0;
  seen.broken = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode())
    for (const word of node.data.matchAll(/[A-Za-z]{3,}/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      seen.words += 1;
      if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) seen.broken.push(word[0]);
    }
"""


@pytest.mark.parametrize("width", [1280, 600])
def test_no_word_of_a_critical_path_is_broken(tmp_path: Path, width: int) -> None:
    layers = [m for _ in range(3) for m in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    net = nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(256, 10))
    step = trace_step(net, torch.zeros(2, 4, 8, 8), granularity="op")
    assert any("native_batch_norm_backward" in t.id for t in step.graph.tasks)
    write_report(pipeline.study(step.graph, load_device("h200")), tmp_path)
    page = tmp_path / "probe.html"
    page.write_text(with_probe((tmp_path / "report.html").read_text(), BROKEN))
    seen = seen_in(chromium(page, tmp_path / "profile", f"--window-size={width},900", "--dump-dom").stdout)
    assert seen["words"] != 0 and seen["broken"] == []
