"""What a person reads of a sweep: the sentence, the pictures, the page, the CSV."""

import csv
import io
import itertools
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from pararev_hw.reports import sweep_phrasing, write_sweep
from pararev_hw.reports.axis import APART, MOST_TICKS, Axis
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult


def result(*rows: tuple[float, float, float], objectives: int = 2, chosen: int = 0) -> SweepResult:
    """A sweep over cores and SRAM with these (cores, latency, energy) on its front, the chosen one recommended."""
    axes = (SweepAxis("latency_s", "s", label="latency"), SweepAxis("energy_j", "J", label="energy"))[:objectives]
    points = tuple(
        SweepPoint(
            k, {"lanes": c, "sram_bytes_per_lane": 262144.0}, dict(zip(("latency_s", "energy_j"), v, strict=True))
        )
        for k, (c, *v) in enumerate(rows)
    )
    names = ("lanes", "sram_bytes_per_lane")
    return SweepResult(
        name="<b>&sweep",
        device="a chip",
        scheduler="heft",
        method="grid",
        parameters=(SweepAxis("lanes", ""), SweepAxis("sram_bytes_per_lane", "B")),
        fixed={"network": "net"},
        objectives=axes,
        evaluated=10,
        failed=2,
        reasons={"constraint a < b": 2},
        resumed=0,
        configs_per_s=100.0,
        pareto=points,
        sample=points[:1],
        sensitivity={a.name: dict.fromkeys(names, 0.5) for a in axes},
        combinations=10,
        recommended=points[chosen],
    )


def test_the_answer_weighs_the_first_objective_against_the_second() -> None:
    found = result((16.0, 94e-3, 2.0), (8.0, 100e-3, 0.82), (2.0, 200e-3, 0.1), chosen=1)
    assert sweep_phrasing.answer(found) == (
        "Recommended for latency and energy together: 8 cores with 256 KiB of SRAM each: 100 ms, 820 mJ. "
        "The best latency: 16 cores with 256 KiB of SRAM each: 94.0 ms, 2.00 J; "
        "the recommended one has 1.06x its latency and 0.410x its energy."
    )


def test_of_those_that_are_all_but_the_best_the_cheapest_is_named() -> None:
    found = result((16.0, 94e-3, 2.0), (8.0, 94.5e-3, 0.9), (2.0, 200e-3, 0.1), chosen=2)
    assert sweep_phrasing.best(found).row == 1
    assert "The best latency: 8 cores with 256 KiB of SRAM each: 94.5 ms, 900 mJ; " in sweep_phrasing.answer(found)


def test_one_core_reaches_it_and_the_best_may_be_best_in_both() -> None:
    assert sweep_phrasing.answer(result((4.0, 1.0, 3.0), (1.0, 1.05, 1.0), chosen=1)).startswith(
        "Recommended for latency and energy together: 1 core with 256 KiB of SRAM: 1.05 s, 1.00 J. "
    )
    assert "also the best compromise with energy" in sweep_phrasing.answer(result((4.0, 1.0, 3.0), (1.0, 2.0, 1.0)))


@pytest.mark.parametrize("objectives", [1, 2])
def test_everything_is_written_and_escaped(objectives: int, tmp_path: Path) -> None:
    found = result((4.0, 1.0, 3.0), (1.0, 1.05, 1.0), objectives=objectives)
    found = replace(found, sensitivity={o.name: {"lanes": None, "sram_bytes_per_lane": 0.2} for o in found.objectives})
    written = {p.name: p.read_text(encoding="utf-8") for p in write_sweep(found, tmp_path)}
    for name in ("pareto.svg", "parallel.svg", "sensitivity.svg"):
        ET.fromstring(written[name])
    page = written["sweep.html"]
    assert "&lt;b&gt;&amp;sweep" in page and "<b>&sweep" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert "2: constraint a &lt; b" in page
    rows = list(csv.DictReader(io.StringIO(written["pareto.csv"])))
    assert [r["row"] for r in rows] == ["0", "1"] and rows[1]["latency_s"] == "1.05"


@pytest.mark.parametrize(
    "values",
    [[1, 2, 4, 8], [0.1, 0.1001, 5], [3.0], [0, 0, 0], [1e-9, 1e3, 7], list(range(1, 900)), [-5, 5, 2.5, 1, 0, 3, 4]],
)
def test_ticks_stand_apart_on_the_axis(values: list[float]) -> None:
    axis = Axis.of(values, "B", 0.04)
    assert all(0 <= axis.share(v) <= 1 for v in values)
    shares = [s for s, _ in axis.ticks()]
    assert 1 <= len(shares) <= MOST_TICKS + 2 and all(-1e-9 <= s <= 1 + 1e-9 for s in shares)
    assert all(b - a >= APART for a, b in itertools.pairwise(shares))
