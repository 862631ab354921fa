"""What a person reads of a sweep: the sentence, the pictures, the page, the CSV."""

import csv
import io
import itertools
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pararev_hw.reports import sweep_phrasing, sweep_table, write_sweep
from pararev_hw.reports.axis import APART, MOST_TICKS, Axis
from pararev_hw.sweeps.edges import idle
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


def test_the_front_fits_the_terminal_whole_and_names_what_it_leaves_out() -> None:
    found = result(*((16.0 - k, 94e-3 + k, 2.0 - k / 9) for k in range(9)))
    names = [f"{part}_energy_j_per_byte" for part in ("dram", "noc", "register", "global_buffer")]
    axes = (*found.parameters, *(SweepAxis(n, "J/B") for n in names))
    points = tuple(
        replace(p, parameters={**p.parameters, **dict.fromkeys(names, (k + 1) * 1e-12)})
        for k, p in enumerate(found.pareto)
    )
    found = replace(found, parameters=axes, pareto=points, recommended=points[0])
    for width in (60, 80, 200):
        console = Console(width=width, file=io.StringIO(), force_terminal=False)
        console.print(sweep_table(found, width))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in text and all(len(line) <= width for line in text.splitlines())
        for k, p in enumerate(points):
            line = next(x for x in text.splitlines() if x.split()[:1] == [str(k)])
            assert sweep_phrasing.value(p.objectives["latency_s"], "s") in line
            assert sweep_phrasing.value(p.objectives["energy_j"], "J") in line
        shown, _, left_out = " ".join(text.split()).partition("too wide to be shown here")
        columns = shown.count("1.00 pJ/B")  # of the first row
        assert columns + sum(sweep_phrasing.short(a) in left_out for a in axes[2:]) == 4
        assert columns < 4 if width == 60 else columns == 4


def test_figures_of_any_unit_have_three_digits_and_a_prefix() -> None:
    shown = {
        ("W", 3.1234): "3.12 W", ("W", 0.0005): "500 µW", ("J s", 1.871e-8): "18.7 nJ s", ("B/s", 68e9): "68.0 GB/s",
        ("W/B", 3.85e-8): "38.5 nW/B", ("Hz", 8e8): "800 MHz", ("cycle", 0.1): "0.1 cycle", ("bit", 16.0): "16 bit",
    }  # fmt: skip
    for (unit, quantity), words in shown.items():
        assert sweep_phrasing.value(quantity, unit) == words


def test_a_parameter_of_a_grid_that_changes_nothing_is_named() -> None:
    found = result((4.0, 1.0, 3.0), (1.0, 1.05, 1.0))
    nothing = {o.name: {"lanes": 1.0, "sram_bytes_per_lane": 1e-16} for o in found.objectives}
    found = replace(found, sensitivity=nothing)
    assert idle(found) == ("varying sram_bytes_per_lane changes no objective here",)
    assert idle(replace(found, method="random")) == ()


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
