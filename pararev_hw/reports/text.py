"""Tables for the terminal. Names go in as plain text: Rich markup inside them is not obeyed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from pararev_hw.reports import phrasing, units
from pararev_hw.reports.shown_ways import shown_ways
from pararev_hw.types import Comparison, Study


def study_table(study: Study) -> Table:
    """The schedules that were tried, the recommended one in bold."""
    table = plain_table(f"{study.graph.model} on {study.device.title}")
    rewritten = any(p.choices for p in study.predictions)
    launched = any(p.launch for p in study.predictions)
    digits = phrasing.memory_digits(study)
    columns_of(
        table,
        ("schedule", *(("step",) * rewritten), *(("launch",) * launched), phrasing.lane_noun(study.device) + "s"),
        ("latency", "gain", "memory", "energy", *(() if rewritten else ("gap",))),
    )
    for column in table.columns[-4:]:
        column.no_wrap = True  # the words for a step give way, not its figures
    table.columns[0].min_width = max(len(p.scheduler) for p in study.predictions)
    for k, p in enumerate(study.predictions):
        gain = phrasing.ratio(study.sequential.latency_s, p.latency_s)
        cells = (
            p.scheduler,
            *((phrasing.step_words(study, p),) * rewritten),
            *((p.launch or "-",) * launched),
            str(phrasing.lanes_used(p)),
            units.seconds(p.latency_s),
            "-" if gain is None else units.times(gain),
            units.size(p.peak_bytes, digits),
            units.joules(p.energy_j.get("total")),
            *(() if rewritten else (gap(p.schedule.gap, p.schedule.optimal),)),
        )
        table.add_row(*map(Text, cells), style="bold" if k == study.best else None)
    return table


def gap(value: float, optimal: bool) -> str:
    """How far above the lower bound, in words."""
    return "optimal" if optimal else "none" if value < 5e-5 else units.percent(value)


def comparison_table(comparison: Comparison) -> Table:
    """Latency, memory and energy per step of each network: the sequential step, the fastest way within its memory (or
    the limit), the fastest."""
    predictions = [p for s in comparison.studies for _, p in shown_ways(s) if p is not s.eager]
    ways = {phrasing.launch(p, comparison.device) for p in predictions}
    launched = f", {ways.pop()}" if len(ways) == 1 and all(ways) else ""
    table = plain_table(f"One step on {comparison.device.title}{launched}")
    columns_of(table, ("network", "schedule"), ("latency", "gain", "memory", "energy"))
    for s in comparison.studies:
        title = f"{s.graph.model} (batch {s.graph.batch})"
        for _, p in shown_ways(s):
            gain = phrasing.ratio(s.base.latency_s, p.latency_s)
            cells = (
                title if p is s.base else "",
                ", ".join(
                    (
                        "eager PyTorch" if p is s.eager else p.scheduler,
                        phrasing.lanes(p, comparison.device),
                        *([phrasing.step_words(s, p)] * bool(p.choices)),
                    )
                ),
                units.seconds(p.latency_s),
                "" if p is s.base else "-" if gain is None else units.times(gain),
                units.size(p.peak_bytes),
                units.joules(p.energy_j.get("total")),
            )
            table.add_row(*map(Text, cells), end_section=p is s.chosen)
    return table


GAP = 2  # between two columns of a plain table


def folded(name: str, room: int) -> str:
    """A dotted name in lines of at most so many characters, broken after dots; a part that is longer stays whole."""
    lines = [""]
    for part in re.findall(r"[^.]+\.?|\.", name):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def plain_table(title: str) -> Table:
    """A table without side borders: eight columns fit into a terminal of 80."""
    return Table(title=Text(title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))


_LEAST_WIDTH = {"network": 10, "schedule": 10, "step": len("rewritten")}


def columns_of(table: Table, names: Sequence[str], numbers: Sequence[str]) -> None:
    for name in names:
        table.add_column(name, overflow="fold", min_width=_LEAST_WIDTH.get(name))
    for number in numbers:
        table.add_column(number, justify="right")
