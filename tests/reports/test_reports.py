"""The report's files, its document, its trace, its tables and its sentence."""

from __future__ import annotations

import ast
import gzip
import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import pararev_hw.reports as reports
from pararev_hw import limits
from pararev_hw.atomic import write_files
from pararev_hw.devices import load_device, load_host, with_host
from pararev_hw.errors import BadFile
from pararev_hw.reports import naming, page, units
from pararev_hw.reports.document import dump
from pararev_hw.reports.layers import layer_table
from pararev_hw.reports.perfetto import trace_json
from pararev_hw.reports.replay_script import run_script
from pararev_hw.reports.text import folded
from pararev_hw.types import Comparison, DeviceParameter, LayerEnergy, ModelEnergy, Recommendation, Study
from tests.helpers import hand_built_study
from tests.helpers.json_schema import schema, wrong

FILES = (
    "report.html",
    "report.json",
    "gantt.svg",
    "front.svg",
    "memory.svg",
    "graph.svg",
    "layers.csv",
    "trace.perfetto.json",
)


class _Page(HTMLParser):
    """Tags, their attributes, ids, and the words of a page."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(v for k, v in attrs if k == "id" and v)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words += data


def _strip(text: str) -> str:
    return text.replace("\u00a0", " ")


# ---------------------------------------------------------------------------------------------------------------
# Files


def test_a_report_is_eight_files_and_nothing_else(tmp_path: Path) -> None:
    written = reports.write_report(hand_built_study.study(), tmp_path / "new" / "out")
    assert [p.name for p in written] == list(FILES)
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == sorted(FILES)
    assert all(p.stat().st_size > 500 for p in written)


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [p.read_bytes() for p in reports.write_report(hand_built_study.study(), tmp_path / "a")]
    assert first == [p.read_bytes() for p in reports.write_report(hand_built_study.study(), tmp_path / "b")]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadFile, match="cannot write") as raised:
        reports.write_report(hand_built_study.single_task(), tmp_path / "file" / "out")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_replaced_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("older")
    (tmp_path / "graph.svg").mkdir()
    with pytest.raises(BadFile, match=r"graph\.svg"):
        reports.write_report(hand_built_study.single_task(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.svg", "report.html"]
    assert (tmp_path / "report.html").read_text() == "older"


def test_a_write_that_fails_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for folder in (tmp_path / "new" / "deeper", tmp_path / "kept"):
        with pytest.raises(BadFile):
            write_files(folder, {"a.txt": "first", "gone/b.txt": "its folder does not exist"})
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    # A limit on file size stands in for the full disk: the system refuses the write in the middle of report.html.
    (tmp_path / "report.html").write_text("older")
    program = (
        "import resource, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.helpers import hand_built_study; from pararev_hw.errors import BadFile\n"
        "from pararev_hw.reports import write_report\n"
        "study = hand_built_study.study(); sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    write_report(study, Path(sys.argv[1]))\n"
        "except BadFile as error:\n    print(error); sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1), done.stderr
    assert "report.html" in done.stdout and "File too large" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "older"


# ---------------------------------------------------------------------------------------------------------------
# report.json


def test_report_json_is_the_document_with_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    study = hand_built_study.study()
    reports.write_report(study, tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["schema_version"] == 1
    assert document["answer"] == reports.answer(study)
    assert len(document["predictions"]) == 3 and document["best"] == 2
    keys = {"device", "scheduler", "lanes", "makespan_s", "sequential_s", "speedup", "lower_bound_s", "gap", "optimal"}
    for held, prediction in zip(document["predictions"], study.predictions, strict=True):
        assert keys | {"peak_bytes", "energy_j", "placements"} <= set(held)
        assert held["makespan_s"] == prediction.schedule.makespan_s
        assert held["energy_j"]["total"] == prediction.energy_j["total"]
        assert {p["task"] for p in held["placements"]} == {t["id"] for t in document["tasks"]}
        assert set(held["placements"][0]) == {"task", "lane", "start_s", "end_s"}
    assert {t["id"] for t in document["tasks"]} >= set(document["critical_path"]["tasks"])
    assert {f["standing"] for f in document["device"]["figures"]} == {"published", "assumed"}
    assert all(f["source"] for f in document["device"]["figures"])
    assert document["totals"]["flops"] == sum(t.flops for t in study.graph.tasks)
    assert document["not_modelled"] and document["assumptions"]


def test_a_report_of_many_tasks_gives_them_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    study = hand_built_study.study()
    monkeypatch.setattr(limits, "MANY_TASKS", len(study.graph.tasks))
    few = json.loads(dump(reports.report_document(study)))
    monkeypatch.setattr(limits, "MANY_TASKS", len(study.graph.tasks) - 1)
    many = json.loads(dump(reports.report_document(study)))
    assert list(wrong(many, schema("report"))) == []
    assert many.keys().isdisjoint({"tasks", "edges"}) and few.keys().isdisjoint({"task_columns", "edge_columns"})
    assert reports.by_row(many) == few == reports.by_row(few)


def test_writing_says_what_it_does_and_about_how_long_the_rest_takes(tmp_path: Path) -> None:
    lines: list[str] = []
    reports.write_report(hand_built_study.study(), tmp_path, progress=lines.append)
    assert [line.partition(" (")[0] for line in lines] == [
        "drawing the report's pictures",
        "writing the report's trace",
        "writing report.json",
        "writing report.html",
    ]
    assert lines[0].endswith("(1 of 4)") and all(line.endswith(" left)") for line in lines[1:])


def test_the_trace_of_many_tasks_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = hand_built_study.study()
    plain, zipped = tmp_path / "trace.perfetto.json", tmp_path / "trace.perfetto.json.gz"
    assert plain in reports.write_report(study, tmp_path)
    text = plain.read_text()
    monkeypatch.setattr(limits, "MANY_TASKS", len(study.graph.tasks) - 1)
    assert zipped in reports.write_report(study, tmp_path)
    assert gzip.decompress(zipped.read_bytes()).decode() == text
    assert not plain.exists()  # it would show an older report
    content = zipped.read_bytes()
    reports.write_report(study, tmp_path)
    assert zipped.read_bytes() == content  # it holds no time of day
    monkeypatch.undo()
    reports.write_report(study, tmp_path)
    assert (plain.read_text(), zipped.exists()) == (text, False)


def test_json_has_null_for_what_is_not_finite_or_not_known() -> None:
    assert json.loads(dump({"a": [float("inf"), float("nan"), 1.5, None]})) == {"a": [None, None, 1.5, None]}
    bare = reports.report_document(hand_built_study.study((1,), spikes=False, energy=False))
    assert bare["totals"]["sops"] is None and bare["totals"]["energy_j"] is None
    assert bare["totals"]["compute_only_energy_j"] is None


def test_compute_only_energy_is_nine_tenths_of_a_picojoule_for_each_synaptic_operation() -> None:
    study = hand_built_study.study()
    sops = sum(t.sops or 0 for t in study.graph.tasks)
    assert reports.report_document(study)["totals"]["compute_only_energy_j"] == pytest.approx(sops * 0.9e-12)


def test_the_page_gives_the_papers_figure_with_its_analog_layers() -> None:
    study = replace(hand_built_study.study(), forward_j_by_model={"papers": 3.5e-3, "lemaire2022": 4e-3})
    text = page.report_html(study)
    assert "compute only" in text and "3.50 mJ by their usual figure" in text and "lemaire2022 4.00 mJ" in text
    assert reports.report_document(study)["totals"]["forward_j_by_model"] == {"papers": 3.5e-3, "lemaire2022": 4e-3}


def test_ops_without_a_formula_are_named_as_not_modelled() -> None:
    study = hand_built_study.study((1,), unknown={"aten.mystery.default": 3, "custom::op": 1})
    document = reports.report_document(study)
    assert document["totals"]["unknown_ops"] == {"aten.mystery.default": 3, "custom::op": 1}
    assert any("aten.mystery.default (3 in the step)" in line for line in document["not_modelled"])
    assert "aten.mystery.default" in page.report_html(study) and "4 without a formula" in page.report_html(study)
    assert document["answer"].startswith("The work of 4 of ")  # before anything else
    assert reports.comparison_lines(Comparison(study.device, (study,)))[0].startswith(f"{study.graph.model}: The work")


def test_a_model_of_the_literature_that_was_asked_for_is_given_by_phase_and_layer() -> None:
    layers = (LayerEnergy("a", "forward", {"mac": 3e-9}), LayerEnergy("b", "forward", {"ac": 2e-9}),
              LayerEnergy("a", "recompute", {"mac": 5e-9}))  # fmt: skip
    energy = ModelEnergy("papers", "45 nm", layers, ("memory", "backward"))
    study = replace(hand_built_study.study(), energy_model=energy)
    document = reports.report_document(study)
    assert document["energy_model"] == {
        "name": "papers",
        "source": "45 nm",
        "total_j": pytest.approx(10e-9),
        "by_phase": {"forward": pytest.approx(5e-9), "recompute": pytest.approx(5e-9)},
        "not_modelled": ["memory", "backward"],
        "layers": [
            {"module": "a", "phase": "forward", "total_j": 3e-9, "parts_j": {"mac": 3e-9}},
            {"module": "b", "phase": "forward", "total_j": 2e-9, "parts_j": {"ac": 2e-9}},
            {"module": "a", "phase": "recompute", "total_j": 5e-9, "parts_j": {"mac": 5e-9}},
        ],
    }
    assert "forward 5.00 nJ, recompute 5.00 nJ per step. Most of it: a 80 %, b 20 %." in document["answer"]
    both = Comparison(study.device, (study, study))
    assert "papers (45 nm), per step: " in " ".join(reports.comparison_lines(both))
    assert reports.comparison_document(both)["networks"][1]["energy_model"]["total_j"] == pytest.approx(10e-9)
    assert "energy_model" not in reports.report_document(hand_built_study.study())


# ---------------------------------------------------------------------------------------------------------------
# The page


@pytest.mark.parametrize("stages", [(2, 2, 2, 2), (10, 10, 10, 10)])
def test_the_page_is_well_formed_has_every_section_and_needs_nothing_else(stages: tuple[int, ...]) -> None:
    study = hand_built_study.study(stages)
    text = page.report_html(study)
    parsed = _Page(text)
    assert parsed.open == []
    sections = ("totals", "gantt", "front", "memory", "graph", "critical", "energy", "tasks", "origin")
    assert set(sections) <= set(parsed.ids) and max(parsed.ids.values()) == 1
    assert parsed.tags["svg"] == 2 * 4 and parsed.tags["script"] == 1  # wide, and narrow for a telephone
    assert set(parsed.references) == {"data:,"}
    assert re.findall(r"https?://[^\"'\s<]*", text) == ["http://www.w3.org/2000/svg"] * 8
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    for needed in ('name="viewport"', "@media print", "prefers-color-scheme", "Content-Security-Policy"):
        assert needed in text
    words = _strip(parsed.words)
    for line in reports.answer_lines(study):
        assert line in words
        assert words.index(line) < words.index("Summary")
    for line in (*study.chosen.assumptions, *study.chosen.not_modelled, *study.graph.assumptions):
        assert line in words
    for name, figure in study.device.parameters.items():
        assert name in words and figure.source in words and figure.provenance in words


def test_the_page_lists_every_task_once_the_longest_first() -> None:
    study = hand_built_study.study((10,) * 4, 4)
    rows = re.search(r'<table id="task-table".*?</table>', page.report_html(study), re.S)
    assert rows
    names = re.findall(r'<tr data-task="[^"]*"><td[^>]*>(.*?)</td>', rows[0].replace("<wbr/>", ""))
    assert sorted(names) == sorted(t.id for t in study.graph.tasks)
    took = {p.task: p.end_s - p.start_s for p in study.chosen.schedule.placements}
    assert [took[n] for n in names] == sorted(took.values(), reverse=True)
    assert 'aria-sort="descending">time</th>' in rows[0]


def test_a_task_table_that_is_cut_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 10)
    text = page.report_html(hand_built_study.study())
    assert "The 10 longest tasks; 93 more are in" in text
    monkeypatch.setattr(limits, "MANY_TASKS", 50)
    monkeypatch.setattr(page, "ROWS_OF_MANY", 5)
    text = page.report_html(hand_built_study.study())
    path = len(hand_built_study.study().critical_path.tasks)
    assert "The 5 longest tasks; 98 more are in" in text  # of 103
    assert f"The first 5 tasks of the path, in order ({path - 5} more are in report.json)" in text


@pytest.mark.parametrize(
    "attack", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "&lt;i&gt;"]
)
def test_given_names_are_shown_as_they_are_and_never_obeyed(attack: str) -> None:
    plain = hand_built_study.study((1, 1))
    study = hand_built_study.study((1, 1), model=attack, rename={"stem": attack})
    study = replace(
        study,
        device=replace(study.device, title=attack, notes=(attack,)),
        graph=replace(study.graph, assumptions=(attack,)),
    )
    parsed, usual = _Page(page.report_html(study)), _Page(page.report_html(plain))
    assert parsed.open == []
    assert {t: parsed.tags[t] for t in ("script", "img", "i", "b")} == {
        t: usual.tags[t] for t in ("script", "img", "i", "b")
    }
    assert parsed.words.count(attack) >= 4


@pytest.mark.parametrize("cold", [True, False])
def test_tiny_and_bare_studies_make_whole_reports(cold: bool, tmp_path: Path) -> None:
    one = hand_built_study.single_task()
    if cold:
        still = tuple(
            replace(
                p,
                latency_s=0.0,
                memory=replace(p.memory, times_s=(), bytes={}),
                energy_j={"total": 0.0},
                energy_by_phase_j={},
                schedule=replace(p.schedule, placements=(), makespan_s=0.0, sequential_s=0.0, lower_bound_s=0.0),
            )
            for p in one.predictions
        )
        one = replace(
            one, predictions=still, critical_path=replace(one.critical_path, tasks=(), length=0.0, by_phase={})
        )
    written = reports.write_report(one, tmp_path)
    assert _Page(written[0].read_text()).open == []
    assert ("No memory curve" in (tmp_path / "memory.svg").read_text()) == cold


# ---------------------------------------------------------------------------------------------------------------
# The trace


@pytest.mark.parametrize("lanes", [1, 2, 16])
def test_the_trace_has_every_task_as_a_complete_event_on_a_named_lane(lanes: int) -> None:
    study = hand_built_study.study((4, 3), lanes)
    events = reports.trace_document(study)["traceEvents"]
    json.dumps(events, allow_nan=False)
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {e["pid"] for e in events if e["name"] == "process_name"} == {1, 2}
    for pid, prediction in ((1, study.sequential), (2, study.chosen)):
        slices = {e["name"]: e for e in events if e["ph"] == "X" and e["pid"] == pid and e["cat"] != "host"}
        assert len(slices) == len(prediction.schedule.placements)
        for p in prediction.schedule.placements:
            e = slices[p.task]
            assert e["ts"] == pytest.approx(p.start_s * 1e6, abs=1e-3)
            assert e["dur"] == pytest.approx((p.end_s - p.start_s) * 1e6, abs=2e-3)
            assert e["tid"] == p.lane and (pid, p.lane) in named
        for lane in {p.lane for p in prediction.schedule.placements}:
            here = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices.values() if e["tid"] == lane)
            assert all(end <= start + 1e-6 for (_, end), (start, _) in pairwise(here))


def test_each_event_says_what_its_task_is_and_stands_on_a_line_of_plain_json() -> None:
    study = hand_built_study.study((4, 3), 2, model='a "quoted" \\ näme')
    tasks = {t.id: t for t in (*study.graph.tasks, *study.chosen_graph.tasks)}
    first, *lines, last, _ = trace_json(study).split("\n")
    assert first == '{"traceEvents": [' and last.startswith('], "displayTimeUnit": "ns"')
    events = [json.loads(line.removesuffix(",")) for line in lines]
    assert [json.dumps(e) for e in events] == [line.removesuffix(",") for line in lines]
    slices = [e for e in events if e["ph"] == "X" and e["cat"] != "host"]
    for e in slices:
        t = tasks[e["name"]]
        assert e["cat"] == t.phase
        costs = {"flops": t.flops, "read_bytes": t.read_bytes, "write_bytes": t.write_bytes, "sops": t.sops}
        place = {"phase": t.phase, "block": t.block, "branch": t.branch}
        assert e["args"] == {"critical": t.id in study.critical_path.tasks, **place, **costs}


def test_flows_join_exactly_the_edges_that_cross_lanes() -> None:
    study = hand_built_study.study((4, 3), 3)
    events = [e for e in reports.trace_document(study)["traceEvents"] if e["pid"] == 2]
    slices = [e for e in events if e["ph"] == "X"]

    def slice_at(e: dict[str, float]) -> str:
        inside = [s for s in slices if s["tid"] == e["tid"] and 0 <= e["ts"] - s["ts"] < s["dur"] - 5e-4]  # a half ns
        assert len(inside) == 1
        return str(inside[0]["name"])

    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert set(starts) == set(ends)
    assert all(starts[k]["ts"] <= ends[k]["ts"] and ends[k]["bp"] == "e" for k in starts)
    lane = {p.task: p.lane for p in study.chosen.schedule.placements}
    pairs = [(study.graph.tasks[e.src].id, study.graph.tasks[e.dst].id) for e in study.graph.edges]
    crossing = sorted((a, b) for a, b in pairs if lane[a] != lane[b])
    assert crossing and sorted((slice_at(starts[k]), slice_at(ends[k])) for k in starts) == crossing


def test_the_memory_counter_reaches_the_predicted_peak() -> None:
    study = hand_built_study.study()
    counters = [e for e in reports.trace_document(study)["traceEvents"] if e["ph"] == "C" and e["pid"] == 2]
    assert max(sum(e["args"].values()) for e in counters) == study.chosen.peak_bytes
    assert [e["ts"] for e in counters] == sorted(e["ts"] for e in counters)


def test_the_trace_file_is_json(tmp_path: Path) -> None:
    written = reports.write_report(hand_built_study.study((1,), model='a "quoted" <name>'), tmp_path)
    trace = json.loads(written[-1].read_text())
    assert set(trace) >= {"traceEvents", "displayTimeUnit"}
    assert trace["otherData"]["model"] == 'a "quoted" <name>'


# ---------------------------------------------------------------------------------------------------------------
# Words, numbers, tables


def test_the_answer_gives_both_times_the_gain_the_memory_and_the_bound() -> None:
    study = hand_built_study.study()
    said = reports.answer(study)
    gain = study.sequential.latency_s / study.chosen.latency_s
    for part in (
        "On NVIDIA H200 SXM (datasheet and assumed figures, not calibrated), one training step of pararevsnn37 ",
        "pararevsnn37 (batch 32, T = 4) takes ",
        f"{study.sequential.latency_s * 1e3:.1f} ms and 1.14 GiB of live tensors in eager PyTorch, on one stream.",
        f"Recommended: {study.chosen.latency_s * 1e3:.2f} ms ({gain:.2f}x), 1.11 GiB, ",
        "heft with 2 streams as a CUDA graph.",
        "the limit of parallel streams is 1.33x for the network (tasks by block).",
    ):
        assert part in said
    assert "\n" not in said and said.endswith(".")


def test_the_answer_names_what_is_recommended_and_its_memory() -> None:
    study = hand_built_study.study()
    fast, slow = study.predictions[2], study.predictions[1]
    least_bytes = study.sequential.peak_bytes
    fast, slow = replace(fast, peak_bytes=least_bytes * 2), replace(slow, peak_bytes=round(least_bytes * 1.01))
    three = (
        Recommendation("fastest", replace(fast, choices=("2 gradients split",))),
        Recommendation("within_memory", slow),
        Recommendation("least_memory", study.sequential),
    )
    study = replace(study, recommendations=three, memory_limit_bytes=study.sequential.peak_bytes)
    lines = reports.answer_lines(study)
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "Fastest",
        "Fastest within 1.14 GiB, the memory of that step",
        "Least memory",
    ]
    assert lines[1].endswith("heft with 2 streams as a CUDA graph, 2 gradients split.")
    assert lines[3].endswith("the sequential step itself.")
    given = reports.answer_lines(replace(study, memory_limit_bytes=900 << 20, limit_given=True))
    assert given[2].startswith("Fastest within 900 MiB: ")


def test_a_way_that_exceeds_the_limit_reads_as_more_and_least_memory_is_told_once() -> None:
    study = hand_built_study.study()
    limit = study.sequential.peak_bytes
    fastest = replace(study.predictions[2], peak_bytes=limit + limit // 4000)
    within = replace(study.predictions[2], latency_s=fastest.latency_s * 1.1, peak_bytes=limit)
    least = replace(within, latency_s=fastest.latency_s * 1.2, peak_bytes=limit - limit // 4000)
    ways = (("fastest", fastest), ("within_memory", within), ("least_memory", least))
    study = replace(
        study,
        recommendations=tuple(Recommendation(n, p) for n, p in ways),  # type: ignore[arg-type]
        memory_limit_bytes=limit,
    )
    lines = reports.answer_lines(study)
    assert lines[2].startswith("Fastest within 1.1406 GiB, the memory of that step, and least memory: "), lines[2]
    assert ", 1.1409 GiB, " in lines[1]
    # memory that does matter is told apart
    small = replace(least, peak_bytes=limit - limit // 50)
    study = replace(study, recommendations=(*study.recommendations[:2], Recommendation("least_memory", small)))
    assert reports.answer_lines(study)[3].startswith("Least memory: ")


def test_axes_that_nothing_tells_are_asked_for_first() -> None:
    study = hand_built_study.study()
    asked = "input axes not known: the first of (6, 3, 2, 8, 8) is taken for the batch; say which it is with --layout"
    graph = replace(study.graph, assumptions=(*study.graph.assumptions, asked))
    assert reports.answer_lines(replace(study, graph=graph))[0] == f"I{asked[1:]}."
    assert not reports.answer_lines(study)[0].startswith("Input axes")


def _with_times(study: Study, latency_s: float, speedup: float) -> Study:
    schedule = replace(study.chosen.schedule, makespan_s=latency_s, sequential_s=latency_s * speedup)
    chosen = replace(study.chosen, latency_s=latency_s, schedule=schedule)
    return replace(study, predictions=(*study.predictions[:-1], chosen))


def test_the_answer_gives_the_bound_of_the_device_where_it_is_the_tighter_one() -> None:
    study = hand_built_study.study()
    schedule = replace(study.chosen.schedule, lower_bound_s=study.chosen.schedule.sequential_s / 1.2, bound_by="work")
    tighter = replace(study, predictions=(*study.predictions[:-1], replace(study.chosen, schedule=schedule)))
    assert reports.answer(tighter).endswith(
        "the limit of parallel streams is 1.33x for the network (tasks by block) and 1.20x on this GPU."
    )
    assert "this GPU" not in reports.answer(study)


@pytest.mark.parametrize(
    ("sequential_s", "latency_s", "wanted"),
    [
        (3.0, 1.5, "Of the recommended 2.00x, parallel streams give 1.60x and the CUDA graph 1.25x"),  # 3 / 1.5 / 1.6
        (2.4, 1.5, "The recommended 1.60x comes from parallel streams"),
        (1.92, 1.5, "Parallel streams make the recommended step 1.60x faster; the CUDA graph costs 20 % of that, "
                   "which leaves 1.28x"),  # 1.28 / 1.6 = 0.8
    ],
)  # fmt: skip
def test_the_recommended_gain_is_told_as_its_factors(sequential_s: float, latency_s: float, wanted: str) -> None:
    study = _with_times(hand_built_study.study(), latency_s, 1.6)
    sequential = replace(study.sequential, latency_s=sequential_s)
    study = replace(study, predictions=(sequential, *study.predictions[1:]))
    assert f"{wanted}; the limit" in reports.answer(study)
    chosen = replace(study.chosen, choices=("2 recomputations just in time",))
    rewritten = reports.answer(replace(study, predictions=(*study.predictions[:-1], chosen)))
    if "costs" in wanted:
        assert "the CUDA graph and the rewrites, which save memory, cost 20 % of that" in rewritten


def test_where_memory_leaves_no_room_the_answer_says_what_the_fastest_way_gains() -> None:
    study = hand_built_study.study()
    fast = replace(study.chosen, choices=("2 gradients split",))
    study = replace(study, best=0, predictions=(*study.predictions[:-1], fast), memory_limit_bytes=900 << 20)
    study = replace(study, recommendations=(Recommendation("fastest", fast),))
    gain = fast.schedule.sequential_s / fast.schedule.makespan_s
    answer = reports.answer(study)
    assert f"in the fastest way, with 1.11 GiB, they give {gain:.2f}x once the step is rewritten; the limit" in answer
    assert "Within 900 MiB parallel streams gain nothing; " in answer
    assert "for the network as traced (tasks by block)" in answer


def test_the_answer_admits_that_parallel_gains_nothing() -> None:
    study = hand_built_study.study()
    graph_only = _with_times(study, study.predictions[1].latency_s, 1.0)
    assert "Parallel streams gain nothing in the recommended schedule" in reports.answer(graph_only)
    nothing = _with_times(study, study.sequential.latency_s, 1.0)
    assert "None of the 2 other schedules tried is faster" in reports.answer(nothing)
    assert "No other schedule was tried" in reports.answer(replace(study, predictions=study.predictions[:1], best=0))
    said = reports.answer(hand_built_study.single_task())
    assert "With tasks by block, every task waits for the one before it" in said and "--granularity op" in said
    path = study.critical_path
    little = replace(study, critical_path=replace(path, length=study.chosen.schedule.sequential_s / 1.08))
    assert "is 1.08x for the network (tasks by block; --granularity op looks inside them)" in reports.answer(little)
    hidden = reports.answer(replace(little, op_parallelism=1.56))
    assert "(tasks by block; single operations as tasks would allow up to 1.56x: --granularity op)" in hidden
    assert "is 1.08x for the network (tasks by block)" in reports.answer(replace(little, op_parallelism=1.09))


@pytest.mark.parametrize(
    ("prediction", "others", "wanted"),
    [
        ("measured", ("measured",), "(figures calibrated by measurement)"),
        ("published", ("published", "measured"), "(datasheet figures, calibrated in part)"),
        ("published", ("published",), "(datasheet figures, not calibrated)"),
        ("assumed", ("assumed",), "(assumed figures, not calibrated)"),
    ],
)
def test_the_answer_says_where_the_figures_come_from(prediction: Any, others: tuple[Any, ...], wanted: str) -> None:
    study = hand_built_study.study((1, 1), standing=prediction)
    figures = {f"figure {k}": DeviceParameter(1.0, "somewhere", other) for k, other in enumerate(others)}
    assert wanted in reports.answer(replace(study, device=replace(study.device, parameters=figures)))


_SHARED = "how streams share the card is assumed"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rtx3090", f"(speeds fitted to published measurements of this card; {_SHARED})"),
        ("a100", "(CUDA cores fitted to published measurements of this card, tensor cores and memory bandwidth as on"),
        ("gtx1080ti", "(CUDA cores fitted to published measurements of this card, memory bandwidth as on other cards"),
        ("rtx4090", f"(datasheet rates, efficiencies transferred from other cards; {_SHARED})"),
        ("edge8", "(datasheet and assumed figures, not calibrated)"),
    ],
)
def test_the_answer_says_which_speeds_of_a_gpu_were_fitted(name: str, wanted: str) -> None:
    study = hand_built_study.study((1, 1), standing="assumed")
    assert wanted in reports.answer(replace(study, device=load_device(name)))


def test_a_report_names_the_host_that_was_given_and_says_whether_its_pace_was_measured(tmp_path: Path) -> None:
    device = with_host(load_device("rtx3090"), load_host("server"))
    study = replace(hand_built_study.study((1, 1), standing="assumed"), device=device)
    assert "NVIDIA GeForce RTX 3090 with host server (speeds" in " ".join(reports.answer(study).split())
    reports.write_report(study, tmp_path)
    text = (tmp_path / "report.html").read_text().replace("\xa0", " ")
    assert "with host server" in text and f"{units.seconds(6e-6)} per operation: assumed" in text
    note = "Launched by host server, a server CPU of today: 6 us per operation, assumed."
    assert note in json.loads((tmp_path / "report.json").read_text())["assumptions"]


def test_a_gpu_with_measured_figures_is_calibrated_in_part() -> None:
    study, device = hand_built_study.study((1, 1), standing="assumed"), load_device("rtx3090")
    measured = replace(device.parameters["matrix_elements_per_unit"], provenance="measured")
    device = replace(device, parameters={**device.parameters, "matrix_elements_per_unit": measured})
    said = reports.answer(replace(study, device=device))
    assert "(speeds fitted to published measurements of this card; calibrated in part)" in said


def test_sections_are_the_parts_that_hold_several_blocks() -> None:
    blocks = ["stem", "fc", *(f"downs.{k}" for k in range(3)), "stages.0"]
    blocks += [f"stages.{s}.blocks.{b}" for s in range(4) for b in range(10)]
    section = naming.sections(blocks)
    assert (
        section["stages.2.blocks.7"] == "stages.2" and section["stem"] == "stem" and section["stages.0"] == "stages.0"
    )
    flat = [f"layer{k}" for k in range(50)]
    assert naming.sections(flat) == {name: name for name in flat}
    assert naming.sections(["layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"])["layer2.1"] == "layer2"
    assert naming.sections([]) == {}
    ops = [f"layer{k}.aten.{op}.default" for k in range(3) for op in ("add", "mul")]
    assert naming.sections(ops)["layer1.aten.mul.default"] == "layer1"


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (units.seconds(0.0213), "21.3 ms"),
        (units.seconds(999.7e-6), "1.00 ms"),
        (units.seconds(0.0), "0 s"),
        (units.seconds(float("inf")), "not known"),
        (units.size(2040109466), "1.90 GiB"),
        (units.size(0), "0 B"),
        (units.joules(3.1e-5), "31.0 µJ"),
        (units.joules(None), "not known"),
        (units.count(412), "412"),
        (units.count(2_374_728_000), "2.37 G"),
        (units.times(1.4321), "1.43x"),
        (units.percent(0.083), "8.3 %"),
        (units.percent(0.06), "6.0 %"),
        (units.percent(0.4), "40 %"),
    ],
)
def test_numbers_for_people(shown: str, wanted: str) -> None:
    assert shown == wanted


@given(st.floats(1e-12, 1e9))
def test_what_is_shown_is_the_value_to_three_digits(value: float) -> None:
    number, unit = units.seconds(value).split(" ")
    scale = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.0051)


@given(st.floats(1.0, 1e6), st.integers(3, 12))
def test_ticks_are_even_start_at_zero_and_stay_inside(largest: float, about: int) -> None:
    marks = units.ticks(largest, about)
    assert marks[0] == 0 and marks[-1] <= largest * (1 + 1e-6)
    assert 1 <= len(marks) - 1 <= about
    assert len({*units.labels(marks)}) == len(marks)


def test_tables_show_names_as_they_are() -> None:
    hostile = hand_built_study.study((1, 1), model="[bold]net[/bold]")
    console = Console(file=io.StringIO(), width=200)
    proved = replace(hostile.chosen, schedule=replace(hostile.chosen.schedule, optimal=True))
    console.print(reports.study_table(replace(hostile, predictions=(*hostile.predictions[:-1], proved))))
    console.print(reports.comparison_table(Comparison(hostile.device, (hostile, hand_built_study.study()))))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("[bold]net[/bold]") == 2
    assert "10.0 ms" in shown and "5.60 ms" in shown and "optimal" in shown


def test_a_terminal_of_80_columns_shows_every_figure_with_its_unit() -> None:
    study = hand_built_study.study()
    rewritten = replace(
        study.chosen, choices=("split",), launch="graph", scheduler="memory-list", peak_bytes=1_150_600,
        latency_s=0.0691, energy_j={"total": 0.0957},
    )  # fmt: skip
    by_module = replace(study.graph, granularity="module" if study.graph.granularity != "module" else "op")
    study = replace(
        study, predictions=(*study.predictions[:1], rewritten), best=1, memory_limit_bytes=1_150_500,
        variants={("split",): by_module}, rewrites={("split",): ("split a",)},
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    console.print(reports.study_table(study))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("memory-list")]
    assert row[:2] == ["memory-list", "rewritten"] and row[-7:-5] == ["69.1", "ms"]
    assert row[-4:] == ["1.0973", "MiB", "95.7", "mJ"]  # 1_150_600 / 2**20, with digits that tell it from the limit


def test_a_comparison_holds_both_ways_of_every_network_in_order(tmp_path: Path) -> None:
    studies = (hand_built_study.study(), hand_built_study.study(lanes=1, model="revsnn37", energy=False))
    written = reports.write_comparison(Comparison(studies[0].device, studies), tmp_path)
    assert [p.name for p in written] == ["compare.html", "compare.json", "compare.svg"]
    document = json.loads(written[1].read_text())
    assert [n["model"] for n in document["networks"]] == ["pararevsnn37", "revsnn37"]
    for held, study in zip(document["networks"], studies, strict=True):
        assert held["sequential"]["latency_s"] == study.sequential.latency_s
        assert held["parallel"]["peak_bytes"] == study.chosen.peak_bytes
    assert document["networks"][1]["parallel"]["energy_j"] == {}
    parsed = _Page(written[0].read_text())
    assert parsed.open == [] and set(parsed.references) == {"data:,"} and parsed.tags["svg"] == 2
    assert "pararevsnn37 takes the least time: 5.60 ms per step with 1.11 GiB of memory" in _strip(parsed.words)


def test_reports_see_only_types_graphs_and_errors() -> None:
    folder = Path(reports.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pararev_hw"):
                rooms = [node.module] if node.module != "pararev_hw" else [f"pararev_hw.{a.name}" for a in node.names]
                for room in rooms:
                    pattern = r"pararev_hw\.(errors|limits|types|graph|reports|atomic|documents|progress|rooms)\b"
                    assert re.match(pattern, room or ""), (path.name, room)


def test_importing_reports_brings_in_nothing_heavy() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'jinja2', 'networkx', 'numpy'} & {*sys.modules}"
    program = f"import sys, pararev_hw.reports; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_of_a_document_is_what_it_holds_and_null_where_that_is_no_number(value: object) -> None:
    def finite(v: object) -> object:
        if isinstance(v, float):
            return v if math.isfinite(v) else None
        if isinstance(v, dict):
            return {name: finite(inner) for name, inner in v.items()}
        return [finite(inner) for inner in v] if isinstance(v, list) else v

    document = {"held": value, "numbers": (1.5, math.inf), "none": {}}
    assert json.loads(dump(document)) == {"held": finite(value), "numbers": [1.5, None], "none": {}}


def test_the_script_of_a_file_names_it_wherever_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "own.py").write_text("")
    monkeypatch.chdir(tmp_path)
    study, folder = hand_built_study.study(), tmp_path / "out" / "first"
    for target, wanted in (
        ("nets/own.py:make", f"{tmp_path}/nets/own.py:make"),
        ("nets/own.py", f"{tmp_path}/nets/own.py"),
        ("pararevsnn21", "pararevsnn21"),
        ("package.module:make", "package.module:make"),
    ):
        script = run_script(study, target, {}, folder)
        assert script is not None
        line = next(line for line in script.splitlines() if line.startswith("TARGET = "))
        place, colon, factory = str(eval(line.removeprefix("TARGET = "), {"HERE": folder})).rpartition(":")
        shown = f"{os.path.normpath(place)}:{factory}" if colon else os.path.normpath(factory)
        assert shown == wanted


def test_the_script_of_a_module_finds_its_folder_from_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    monkeypatch.chdir(tmp_path)
    study, folder = hand_built_study.study(), tmp_path / "out" / "first"
    script = run_script(study, "package.module:make", {}, folder)
    line = next(line for line in str(script).splitlines() if line.startswith("sys.path"))
    path: list[str] = []
    eval(line, {"HERE": folder, "sys": SimpleNamespace(path=path)})
    assert [os.path.normpath(p) for p in path] == [str(tmp_path)]
    assert "sys.path" not in str(run_script(study, "pararevsnn21", {}, folder))


def test_names_of_layers_break_at_dots_and_nowhere_else() -> None:
    assert folded("stages.0.blocks.0.f.conv2", 24) == "stages.0.blocks.0.f.\nconv2"
    assert folded("stages.0.conv", 80) == "stages.0.conv"
    assert folded("averyverylongname.b", 6) == "averyverylongname.\nb"
    assert folded("the network itself", 6) == "the network itself"
    study = hand_built_study.study()
    layers = tuple(replace(x, module=f"stages.0.blocks.{k}.f.conv2") for k, x in enumerate(study.layers))
    console = Console(width=66, record=True, file=io.StringIO())
    console.print(layer_table(layers, 66))
    printed = console.export_text()
    assert "conv2" in printed and not re.search(r"con\s*\n|conv\s*\n", printed)
