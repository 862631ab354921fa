"""What a validation and the paper check show: JSON that its schema describes, pictures of every case, escaped words."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.devices import load_device
from pararev_hw.reports import (
    paper_document,
    validation_answer,
    validation_document,
    validation_html,
    write_paper,
    write_validation,
)
from pararev_hw.reports.axis import MOST_LOG_TICKS, LogAxis
from pararev_hw.reports.paper import differences, paper_html, paper_svg
from pararev_hw.reports.scatter import scatter_svg
from pararev_hw.types import PaperCheck, PaperRow
from pararev_hw.validation import paper
from tests.helpers.json_schema import schema, wrong
from tests.helpers.validation_helpers import case, validation

SVG = "{http://www.w3.org/2000/svg}"
CASES = (
    case(0.1, 0.2),
    case(0.5, 0.4, name="msresnet34", mode="infer", dtype="bfloat16", held_out="shape"),
    case(0.3, None, name="revsresnet37"),
)
WITH_ENERGY = (case(0.1, 0.2, energy_j=(3.0, 2.0)), case(0.3, 0.3, energy_j=(5.0, 5.0)))


def marks(drawn: str) -> list[str]:
    """The tooltips of the points."""
    root = ET.fromstring(drawn)
    points = (e for e in root.iter() if e.tag in (f"{SVG}circle", f"{SVG}rect"))
    return [t.text or "" for e in points if (t := e.find(f"{SVG}title")) is not None]


def test_memory_that_steps_had_mapped_in_is_told_where_it_is_notable() -> None:
    cases = [case(0.1, 0.1, mapped_in_bytes=size) for size in (None, 0, 100 << 10, 2 << 20, 600 << 10)]  # of 1 MiB
    answer = validation_answer(validation(cases))
    assert "In 2 of 5 cases each step had memory mapped in anew that the allocator had let go, up to 2.00 MiB" in answer
    assert [c["mapped_in_bytes"] for c in validation_document(validation(cases))["cases"]][2] == 100 << 10
    assert "mapped in anew" not in validation_answer(validation(cases[:3]))


def test_only_pairs_that_measurement_tells_apart_are_ranked_beside_all() -> None:
    steady, wide = (0.99, 1.0, 1.01), (0.5, 1.05, 1.6)  # medians 1 and 1.05, the spread of one of them 0.55
    far = tuple(3 * s for s in steady)
    cases = [
        case(predicted_s, samples[1], samples_s=samples)
        for predicted_s, samples in ((1.2, steady), (1.1, wide), (2.0, far))
    ]
    document = validation_document(validation(cases))
    # of three pairs the first two are predicted in the wrong order, and their measurement leaves it open
    assert document["latency"]["kendall_tau"] == pytest.approx((2 - 1) / 3)
    assert document["kendall_tau_told_apart"] == 1.0
    exchanged = [replace(cases[0], predicted=replace(cases[0].predicted, latency_s=4.0)), *cases[1:]]
    assert validation(exchanged).kendall_tau_told_apart == pytest.approx((1 - 1) / 2)
    assert validation(cases[:2]).kendall_tau_told_apart is None


@pytest.mark.parametrize("cases", [CASES, WITH_ENERGY, CASES[2:], ()], ids=["two", "energy", "failed", "none"])
@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_the_document_is_what_its_schema_says(cases: tuple, tolerance: float | None) -> None:
    document = json.loads(json.dumps(validation_document(validation(cases), tolerance), allow_nan=False))
    assert list(wrong(document, schema("validation"))) == []


def test_the_document_says_what_the_cases_say() -> None:
    document = validation_document(validation(CASES), 0.1)
    assert [c["error"]["latency"] for c in document["cases"]] == [-0.5, pytest.approx(0.25), None]
    assert document["latency"]["mape"] == pytest.approx(0.375)
    assert document["by_held_out"]["shape"]["mape"] == pytest.approx(0.25)
    assert document["baselines"]["roofline"]["mape"] == pytest.approx((0.75 + 0.375) / 2)
    assert document["energy"] is None
    assert document["within"] is False  # one case failed


def test_within_is_every_quantity_and_every_case() -> None:
    good = validation((case(0.1, 0.1, energy_j=(1.0, 1.2)),))
    assert good.within(0.2)
    assert not good.within(0.1)  # energy is 17 % off
    assert not validation(()).within(1.0)
    assert not validation((case(0.1, 0.1), CASES[2])).within(1.0)


def test_every_measured_case_is_a_point_and_so_is_every_simpler_prediction() -> None:
    told = marks(scatter_svg(validation(CASES), "latency_s"))
    assert sum("predicted" in t for t in told) == 2
    assert sum("roofline" in t for t in told) == 2
    assert len(marks(scatter_svg(validation(CASES), "peak_bytes"))) == 2 * 2  # beside it the error over size
    assert len(marks(scatter_svg(validation(WITH_ENERGY), "energy_j"))) == 2 * 2


def test_points_lie_as_far_right_as_they_took_long() -> None:
    found = validation([case(0.01 * k, 0.02 * k, baselines={}) for k in (1, 2, 4, 9)])
    root = ET.fromstring(scatter_svg(found, "latency_s"))
    points = [e for e in root.iter(f"{SVG}circle") if e.find(f"{SVG}title") is not None][:4]
    xs, ys = ([float(e.attrib[key]) for e in points] for key in ("cx", "cy"))
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)  # up is more


def test_the_page_needs_nothing_else_and_escapes_what_failed() -> None:
    page = validation_html(validation(CASES))
    assert "http://www.w3.org/2000/svg" in page
    assert page.count("http:") + page.count("https:") == page.count("http://www.w3.org/2000/svg")
    assert "&lt;out&gt; &amp; of memory" in page
    assert "<out>" not in page
    assert "x: not run" in page
    assert "a note" in page
    assert "interrupted" not in page
    assert "interrupted" in validation_html(validation(CASES, interrupted=True))


def test_the_answer_names_the_errors_and_the_failures() -> None:
    said = validation_answer(validation(CASES))
    assert "within 38 % on average" in said
    assert "1 of 3 cases failed" in said
    assert "the time of one step of a network" in validation_answer(validation(CASES[:1]))
    assert "nothing was measured" in validation_answer(validation(CASES[2:]))
    of_the_user = validation_answer(replace(validation(CASES), suite="targets"))
    assert "never saw" in said and "never saw" not in of_the_user and "steps is predicted within" in of_the_user


def test_files_are_those_of_what_was_measured(tmp_path: Path) -> None:
    names = {p.name for p in write_validation(validation(CASES), tmp_path / "a", 0.1)}
    assert names == {"validation.html", "validation.json", "latency.svg", "memory.svg"}
    assert {p.name for p in write_validation(validation(WITH_ENERGY), tmp_path / "b")} == names | {"energy.svg"}
    assert json.loads((tmp_path / "a" / "validation.json").read_text())["tolerance"] == 0.1


@given(st.floats(1e-9, 1e9), st.floats(1, 1e6), st.sampled_from(["s", "B", "J"]))
def test_ticks_are_few_and_on_the_axis(low: float, ratio: float, kind: str) -> None:
    axis = LogAxis.around((low, low * ratio), 0.0, 100.0, kind)
    found = [v for v, _ in axis.ticks()]
    assert len(found) <= MOST_LOG_TICKS
    assert found == sorted(found)
    assert all(axis.low <= v <= axis.high for v in found)
    places = [axis.px(v) for v in (axis.low, *found, axis.high)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (pytest.approx(0), pytest.approx(100))


# ---- the paper


def check(rows: tuple[PaperRow, ...]) -> PaperCheck:
    return PaperCheck("A paper", "A device", rows, ("assumed <this>",), ("a headline",))


ROWS = (
    PaperRow("training time", "A / B", "2 lanes", "table", 0.8, {"eager": 0.4, "graph": 0.8}),
    PaperRow("training time", "C / B", "2 lanes", "table", 0.5, {"eager": 0.5, "graph": 0.75}),
    PaperRow("memory per image", "A / B", "", "table", 2.0, {"": 1.0}),
)


def test_differences_are_means_by_quantity_and_way() -> None:
    assert differences(check(ROWS)) == {
        "training time": {"2 lanes, eager": pytest.approx(0.25), "2 lanes, graph": pytest.approx(0.25)},
        "memory per image": {"one form": pytest.approx(0.5)},
    }


@pytest.mark.parametrize("rows", [ROWS, ()])
def test_the_paper_document_is_what_its_schema_says(rows: tuple[PaperRow, ...], tmp_path: Path) -> None:
    found = check(rows)
    assert list(wrong(json.loads(json.dumps(paper_document(found))), schema("paper"))) == []
    assert [p.name for p in write_paper(found, tmp_path)] == ["paper.html", "paper.json", "paper.svg"]
    assert len(marks(paper_svg(found))) == sum(1 + len(r.predicted) for r in rows)
    assert "assumed &lt;this&gt;" in paper_html(found)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check without its deepest networks and its event data."""
    monkeypatch.setattr(paper, "_TRAINING_H", {k: paper._TRAINING_H[k] for k in (21, 37)})
    monkeypatch.setattr(paper, "_PAIRS", {21: 1, 37: 2, 165: 1})
    monkeypatch.setattr(paper, "_COMPARED", ((18, 21),))
    monkeypatch.setattr(paper, "_EVENT_TRAINING_H", {})


def test_predicted_ratios_are_those_of_the_theory_where_it_knows(shallow: None) -> None:
    found = paper.paper_check(load_device("h200"))
    rows = {(r.quantity, r.ratio, r.form): r for r in found.rows}
    # one pair: nothing to merge, the same network in another order
    one = rows["training time", "ParaRevSNN21 / RevSNN21", "merged"]
    assert one.predicted["graph"] == pytest.approx(1.0, abs=0.01)
    assert rows["memory per image", "ParaRevSNN21 / RevSNN21", "merged"].predicted[""] == pytest.approx(1.0, abs=0.01)
    two = rows["training time", "ParaRevSNN37 / RevSNN37", "merged"]
    assert two.predicted["graph"] < one.predicted["graph"]
    assert two.published == pytest.approx(1 - 0.158, abs=0.001)  # the paper's own reduction
    assert rows["memory per image", "RevSNN21 / MS-ResNet18", ""].published == pytest.approx(1 / 1.82, abs=0.001)
    assert rows["memory per image", "RevSNN21 / MS-ResNet18", ""].predicted[""] < 1
    assert all(v > 0 for r in found.rows for v in r.predicted.values())
    assert any("35.2 %" in line for line in found.untraced)


def test_a_device_without_a_host_is_compared_one_way(shallow: None) -> None:
    device = load_device("h200")
    single = replace(device, kind="cpu", lanes=1)
    rows = paper.paper_check(single).rows
    assert {launch for r in rows for launch in r.predicted} == {"eager", ""}
    assert "2 lanes" not in {r.form for r in rows}
