"""`report.html`: the whole study on one page that needs nothing but itself, with or without script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, TypeVar

from pararev_hw import limits
from pararev_hw.graph.process_memory import LIBRARY_BYTES, PROCESS_SOURCE, RESERVED_SHARE, process_memory
from pararev_hw.reports import chip as chip_tables
from pararev_hw.reports import phrasing, svg, units
from pararev_hw.reports.against import Line, SideBySide
from pararev_hw.reports.blockgraph import graph_svgs
from pararev_hw.reports.document import assumptions, not_modelled, total_sops
from pararev_hw.reports.front import front_svg
from pararev_hw.reports.gantt import gantt_svg
from pararev_hw.reports.insight_lines import insights
from pararev_hw.reports.layers import CAPTION, HEADS, layer_cells
from pararev_hw.reports.memory import memory_svg
from pararev_hw.reports.provenance import standing
from pararev_hw.reports.text import gap
from pararev_hw.types import PHASES, ChipRun, EnergyParts, Study

MOST_ROWS = 5000  # of the task table
ROWS_OF_MANY = (
    1000  # of it, and of the critical path, where there are many tasks: what a page shows stays some megabytes
)

Cell = tuple[str, float | None]  # what is shown, and what it is sorted by


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; a strong one is set in bold."""

    cells: tuple[Cell, ...]
    strong: bool = False
    bar: float | None = None  # a share of one, drawn in the last cell
    task: str = ""  # the task that the row is about


def words_cell(text: str) -> Cell:
    """A cell that is sorted by its words."""
    return (text, None)


def report_html(
    study: Study,
    script: str | None = None,
    against: SideBySide | None = None,
    pictures: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """The report as one HTML document: no file beside it, no network, every given name escaped.

    `pictures` are those of `drawn`, where they are there already.
    """
    pictures = drawn(study) if pictures is None else pictures
    front, gantt, memory, graph = (tuple(map(markup, pictures[n])) for n in ("front", "gantt", "memory", "graph"))
    return render(
        "page.html.j2",
        title=f"{study.graph.model} on {study.device.title}",
        study=study,
        answer=phrasing.answer_lines(study),
        insights=insights(study),
        recommendations=_recommendations(study),
        front=front,
        memory_note=phrasing.memory_note(study),
        tiles=_tiles(study),
        schedules=_schedules(study),
        gantt=gantt,
        memory=memory,
        graph=graph,
        step_memory=_step_memory(study),
        critical=_critical(study),
        energy=_energy(study),
        tasks=_tasks(study),
        assumptions=assumptions(study),
        not_modelled=not_modelled(study),
        figures=_parameters(study),
        layers=_layers(study),
        spikes=_spikes(study),
        chip=_chip(study),
        script=script,
        against=None if against is None else _against(against),
        settings=_settings(study),
    )


def drawn(study: Study) -> dict[str, tuple[str, str]]:
    """The pictures of a report by name: as wide as a desktop column, and as narrow as a telephone's."""
    wide, narrow = graph_svgs(study, (svg.WIDTH, svg.NARROW))
    one_by_one = {"front": front_svg, "gantt": gantt_svg, "memory": memory_svg}
    pairs = {name: (draw(study, svg.WIDTH), draw(study, svg.NARROW)) for name, draw in one_by_one.items()}
    return pairs | {"graph": (wide, narrow)}


def render(template: str, *more_scripts: str, **values: Any) -> str:
    """A template of this folder with the shared style and script inside, and more scripts of this folder."""
    # Late: the machines that only measure need not have Jinja2.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    script = "".join(map(_read, ("page.js", *more_scripts)))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"unbroken": _unbroken, "cells": _cells}
    page: str = environment.get_template(template).render(
        css=markup(_read("page.css")), js=markup(script), script_hash=markup(f"sha256-{digest}"), **values
    )
    return page


def _read(name: str) -> str:
    return files("pararev_hw.reports").joinpath(name).read_text(encoding="utf-8")


_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[mµn]?s|[KMGT]i?B(?:/s)?|B|[mµnp]?J|m?W|[kMG]?Hz|mm²|%)(?!\w))")


def _unbroken(text: str) -> str:
    """A sentence with no line break between a number and its unit, and with some between the parts of long names."""
    words = _BEFORE_UNIT.sub("\u00a0", text).split(" ")
    return markup(" ".join(map(_breakable, words)))


def _cells(row: Row, heads: Sequence[tuple[str, bool]]) -> str:
    """The cells of a table's row; written in a template each of 50,000 would take ten times as long."""
    from markupsafe import escape  # comes with Jinja2

    cells: list[str] = []
    for (words, value), (head, numeric) in zip(row.cells, heads, strict=False):
        class_ = ' class="num"' if numeric else ' class="long"' if len(words) > 36 else ""
        label = _label(head)
        sorted_by = "" if value is None else f' data-value="{value}"'
        bar = "" if row.bar is None or len(cells) < len(row.cells) - 1 else _bar(row.bar)
        shown = escape(words) if _holds_together(words) else _breakable(words)
        cells.append(f"<td{class_}{label}{sorted_by}>{bar}{shown}</td>")
    return markup("".join(cells))


@cache
def _label(head: str) -> str:
    from markupsafe import escape

    return f' data-label="{escape(head)}"' if head else ""


def _bar(share: float) -> str:
    return f'<span class="bar" style="width: {6 * share:.2f}rem"></span>'


_BREAKS = re.compile(r"(?<=\w)[./:_](?=[A-Za-z_\d])|(?<=\d)x(?=\d)")
_SHORT = 12  # characters that a column has room for


def _breakable(text: str) -> str:
    """A name or a shape in a cell, with line breaks allowed between its parts: stages.0.<wbr/>blocks.1."""
    from markupsafe import escape  # comes with Jinja2

    parts = [text] if _holds_together(text) else _parts_of(text)
    return markup("<wbr/>".join(str(escape(part)) for part in parts))


def _holds_together(text: str) -> bool:
    return len(text) <= _SHORT or " " in text


def _parts_of(text: str) -> list[str]:
    cuts = [0, *(match.end() for match in _BREAKS.finditer(text)), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if a < b]


_Subject = TypeVar("_Subject")


def both_widths(draw: Callable[[_Subject, float], str], subject: _Subject) -> tuple[str, str]:
    """A picture for a page: as wide as a desktop column, and as narrow as a telephone's."""
    return markup(draw(subject, svg.WIDTH)), markup(draw(subject, svg.NARROW))


def markup(text: str) -> str:
    """Text that is HTML already and is not to be escaped."""
    from markupsafe import Markup  # comes with Jinja2

    return Markup(text)


def _tiles(study: Study) -> list[tuple[str, str, str]]:
    """Name, value, and a note beneath."""
    graph, before, after = study.graph, study.sequential, study.chosen
    gain = phrasing.ratio(before.latency_s, after.latency_s)
    limit = phrasing.parallel_limit(study)
    unknown = sum(graph.unknown_ops.values())
    phases = [p for p in PHASES if any(t.phase == p for t in graph.tasks)]
    recommended = phrasing.way(after, study.device).removeprefix("with ")
    times = [
        ("Latency, sequential", units.seconds(before.latency_s), phrasing.sequential_way(study)),
        ("Latency recommended", units.seconds(after.latency_s), recommended),
        (
            "Gain",
            "-" if gain is None else units.times(gain),
            f"{units.times(after.schedule.speedup)} by parallel {phrasing.lane_noun(study.device)}s",
        ),
    ]
    host = [("Host busy", units.seconds(before.host_s), _pace_of_host(study))] if before.host_s > 0 else []
    return [
        *(times if study.chip is None else _chip_times(study.chip, recommended)),
        (
            "Limit for the network",
            units.UNKNOWN if limit is None else units.times(limit),
            f"of parallel {phrasing.lane_noun(study.device)}s, tasks by {study.chosen_graph.granularity}",
        ),
        (
            "Peak memory",
            units.size(after.peak_bytes),
            f"live tensors; {units.size(before.peak_bytes)} in the sequential step" if study.chip is None else "",
        ),
        (
            "Energy per step",
            units.joules(after.energy_j.get("total")),
            f"{units.joules(before.energy_j.get('total'))} sequential" if study.chip is None else "of the whole batch",
        ),
        ("Parameters", units.count(graph.parameters), ""),
        (
            "MACs",
            units.count(graph.totals.true_flops // 2),
            f"{units.count(graph.totals.flops)} flops as torch counts them",
        ),
        ("Synaptic operations", units.count(total_sops(graph)), graph.spikes.source if graph.spikes else ""),
        (
            "Tasks",
            units.count(len(graph.tasks)),
            f"{len(graph.edges)} edges, {len(phases)} phase{'s' * (len(phases) > 1)}",
        ),
        (
            "Operations",
            units.count(len(graph.ops)),
            f"{unknown} without a formula" if unknown else "all have a formula",
        ),
        *host,
    ]


def _pace_of_host(study: Study) -> str:
    pace = study.device.parameters.get("host_overhead_s")
    per_op = "" if pace is None else f", {units.seconds(pace.value)} per operation: {pace.provenance}"
    return f"launching the sequential step{per_op}"


def _chip_times(chip: ChipRun, cores: str) -> list[tuple[str, str, str]]:
    """Of a network on a chip, which one schedule runs: a sample's time, and the batch's."""
    sample_s = chip.time_step_s * chip.timesteps
    return [
        ("Latency of a sample", units.seconds(sample_s), f"{chip.timesteps} time steps on {cores}"),
        ("Latency of the batch", units.seconds(sample_s * chip.batch), f"{chip.batch}, one after another"),
    ]


def _recommendations(study: Study) -> Mapping[str, Any]:
    rows = []
    for w in phrasing.recommended_ways(study):
        p = w.prediction
        gain = phrasing.ratio(study.sequential.latency_s, p.latency_s)
        energy = p.energy_j.get("total")
        cells: tuple[Cell, ...] = (
            words_cell(w.name),
            (units.seconds(p.latency_s), p.latency_s),
            ("-" if gain is None else units.times(gain), gain),
            (w.peak, p.peak_bytes),
            (units.joules(energy), energy),
            words_cell(phrasing.recommended_how(study, p)),
        )
        rows.append(Row(cells, strong=p is study.chosen))
    heads = [("", False), ("latency", True), ("gain", True), ("peak memory", True), ("energy", True), ("how", False)]
    return {"heads": heads, "rows": rows, "not_searched": study.not_searched}


def _schedules(study: Study) -> Mapping[str, Any]:
    noun = phrasing.lane_noun(study.device) + "s"
    digits = phrasing.memory_digits(study)
    rows = []
    for k, p in enumerate(study.predictions):
        gain = phrasing.ratio(study.sequential.latency_s, p.latency_s)
        energy = p.energy_j.get("total")
        bound = f"{units.seconds(p.schedule.lower_bound_s)} ({p.schedule.bound_by})"
        cells: tuple[Cell, ...] = (
            words_cell(p.scheduler + (f", {phrasing.step_words(study, p)}" if p.choices else "")),
            words_cell(phrasing.launch(p, study.device) or "-"),
            (str(phrasing.lanes_used(p)), phrasing.lanes_used(p)),
            (units.seconds(p.latency_s), p.latency_s),
            ("-" if gain is None else units.times(gain), gain),
            (bound, p.schedule.lower_bound_s),
            (gap(p.schedule.gap, p.schedule.optimal), p.schedule.gap),
            (units.size(p.peak_bytes, digits), p.peak_bytes),
            (units.joules(energy), energy),
        )
        rows.append(Row(cells, strong=k == study.best))
    heads = [("schedule", False), ("launch", False), (noun, True), ("latency", True), ("gain", True),
             ("lower bound", True), ("gap", True), ("memory", True), ("energy", True)]  # fmt: skip
    return {"heads": heads, "rows": rows}


def _layers(study: Study) -> Mapping[str, Any]:
    rows = [Row(cells) for cells in layer_cells(study.layers)]
    return {"heads": list(HEADS), "rows": rows, "caption": CAPTION}


def _chip(study: Study) -> Mapping[str, Any] | None:
    """The mapping to cores, layer by layer and core by core."""
    if study.chip is None:
        return None
    mapping = study.chip.document()
    core_rows = []
    for core in study.chip.cores:
        shares = tuple("-" if (s := core.use[name]) is None else units.percent(s) for name in core.use)
        place = f"{core.column}, {core.row}"
        core_rows.append(
            Row(tuple(map(words_cell, (str(core.core), place, ", ".join(core.populations), *shares,
                                       units.seconds(core.busy_s)))))
        )  # fmt: skip
    core_heads = [("core", True), ("tile", False), ("holds", False), ("neurons", True), ("weights", True),
                  ("axons in", True), ("axons out", True), ("busy in a time step", True)]  # fmt: skip
    return {
        "summary": chip_tables.summary_line(mapping),
        "caption": chip_tables.CAPTION,
        "heads": list(chip_tables.HEADS),
        "rows": [Row(tuple(map(words_cell, cells))) for cells in chip_tables.rows(mapping)],
        "core_heads": core_heads,
        "core_rows": core_rows[:MOST_ROWS],
    }


def _step_memory(study: Study) -> list[Row]:
    memory = study.graph.memory
    counted = study.sequential.eager_peak_bytes
    contents = (
        "peak that torch's profiler shows, workspaces included"
        if study.device.kind == "cpu"
        else "peak that torch.cuda.max_memory_allocated() shows, rounding and workspaces included"
    )
    lines = (
        ("peak of the tensors that Python holds", memory.peak_bytes),
        *(() if counted is None else ((contents, counted),)),
        *(_process_lines(counted) if study.device.kind == "gpu" and counted is not None else ()),
        ("saved for backward or recompute", memory.saved_bytes),
        ("parameters", memory.parameter_bytes),
        ("buffers", memory.buffer_bytes),
        ("gradients", memory.gradient_bytes),
        ("optimizer state", memory.optimizer_bytes),
        ("input", memory.input_bytes),
    )
    return [Row((words_cell(name), (units.size(size), size))) for name, size in lines]


def _process_lines(peak_bytes: int) -> tuple[tuple[str, int], ...]:
    """The step's memory as the caching allocator and the driver see it."""
    memory = process_memory(peak_bytes)
    library = units.size(LIBRARY_BYTES)
    return (
        (f"reserved by PyTorch's caching allocator: {RESERVED_SHARE} times that peak", memory.reserved_bytes),
        (f"whole process: reserved, and {library} of context and libraries ({PROCESS_SOURCE})", memory.process_bytes),
        ("least that the card must have for the step to run", memory.least_bytes),
    )


def _critical(study: Study) -> Mapping[str, Any]:
    path = study.critical_path
    tasks = {t.id: t for t in study.chosen_graph.tasks}
    took = {p.task: p.end_s - p.start_s for p in study.chosen.schedule.placements}
    phase_of = {name: tasks[name].phase if name in tasks else "other" for name in path.tasks}
    limit = phrasing.parallel_limit(study)
    share = units.percent(1 / limit) if limit else units.UNKNOWN
    measured = units.seconds(path.length) if path.weight == "time_s" else f"{units.count(path.length)} operations"
    summary = (
        f"{len(path.tasks)} of {len(tasks)} tasks must follow one another: {measured}, {share} of all the work. "
        f"No number of {phrasing.lane_noun(study.device)}s makes the step shorter than that."
        if path.tasks
        else "Not known: the study holds no path."
    )
    rows = []
    by_phase: dict[str, tuple[str, ...]] = dict(path.by_phase.items())
    for phase in (*PHASES, "other"):
        on_path = [name for name in path.tasks if phase_of[name] == phase]
        all_tasks = [t for t in study.chosen_graph.tasks if t.phase == phase]
        alone = by_phase.get(phase, ())
        if on_path or all_tasks:
            time_s = sum(took.get(name, 0.0) for name in on_path)
            cells = (str(len(all_tasks)), str(len(on_path)), units.seconds(time_s), str(len(alone)))
            rows.append(Row((words_cell(phase), *map(words_cell, cells))))
    heads = [("phase", False), ("tasks", True), ("on the path", True), ("their time as scheduled", True),
             ("longest chain within the phase alone", True)]  # fmt: skip
    shown = path.tasks[: _most_rows(study)]
    ordered = [(name, phase_of[name], units.seconds(took[name]) if name in took else "") for name in shown]
    left_out = len(path.tasks) - len(shown)
    return {"summary": summary, "heads": heads, "rows": rows, "tasks": ordered, "left_out": left_out}


def _models_of_the_literature(study: Study) -> str:
    """The forward pass by energy models of papers, for comparison."""
    unknown = " (synaptic operations are not known)" if total_sops(study.graph) is None else ""
    others = dict(study.forward_j_by_model)
    papers = others.pop("papers", None)
    if papers is None:
        return "Energy models of the literature were not asked."
    rest = ", ".join(f"{name} {units.joules(joules)}" for name, joules in others.items())
    return (
        f"For comparison, the forward pass by energy models of papers{unknown}: {units.joules(papers)} by their "
        "usual figure, 4.6 pJ for each MAC of a layer with analog input and 0.9 pJ for each synaptic operation. That "
        "is compute only, in 45 nm (Horowitz, ISSCC 2014): no memory traffic, no neuron updates, no leakage."
        + (f" By other models: {rest}." if rest else "")
    )


def _energy(study: Study) -> Mapping[str, Any]:
    before, after = study.sequential.energy_j, study.chosen.energy_j
    total = after.get("total", 0.0)
    rows = []
    for part in _parts(before, after):
        share = after[part] / total if part in after and total > 0 else None
        cells = (
            words_cell(part),
            words_cell(units.joules(before.get(part))),
            words_cell(units.joules(after.get(part))),
            words_cell("-" if share is None else units.percent(share)),
        )
        rows.append(Row(cells, strong=part == "total", bar=None if part == "total" else share))
    by_phase = study.chosen.energy_by_phase_j
    parts = _parts(*by_phase.values())
    phase_rows = [
        Row((words_cell(phase), *(words_cell(units.joules(by_phase[phase].get(part))) for part in parts)))
        for phase in sorted(by_phase, key=lambda p: (PHASES.index(p) if p in PHASES else len(PHASES), p))
    ]
    comparison = _models_of_the_literature(study)
    return {
        "heads": [("part", False), ("sequential", True), ("recommended", True), ("share of recommended", True)],
        "rows": rows,
        "phase_heads": [("phase", False), *((part, True) for part in parts)],
        "phase_rows": phase_rows,
        "compute_only": comparison,
    }


def _parts(*energies: EnergyParts) -> list[str]:
    """The parts that occur, the largest first, the total last."""
    most = {part: max(e.get(part, 0.0) for e in energies) for e in energies for part in e}
    return sorted(most, key=lambda part: (part == "total", -most[part], part))


def _most_rows(study: Study) -> int:
    """How many tasks a table names."""
    return MOST_ROWS if len(study.graph.tasks) <= limits.MANY_TASKS else ROWS_OF_MANY


def _tasks(study: Study) -> Mapping[str, Any]:
    """The tasks, the longest first."""
    placed = {p.task: p for p in study.chosen.schedule.placements}
    critical = frozenset(study.critical_path.tasks)
    took_s = {name: p.end_s - p.start_s for name, p in placed.items()}
    tasks = sorted(study.chosen_graph.tasks, key=lambda t: (-took_s.get(t.id, 0.0), t.id))
    rows = []
    for t in tasks[: _most_rows(study)]:
        p, took = placed.get(t.id), took_s.get(t.id)
        work, moved = t.flops + t.vector_flops, t.read_bytes + t.write_bytes
        cells: tuple[Cell, ...] = (
            words_cell(t.id),
            words_cell(t.phase),
            (str(p.lane), p.lane) if p else words_cell("-"),
            (units.seconds(p.start_s), p.start_s) if p else words_cell("-"),
            (units.seconds(took), took) if took is not None else words_cell("-"),
            (units.count(work), work),
            (units.size(moved), moved),
            (units.count(t.sops), t.sops),
            words_cell("yes" if t.id in critical else ""),
        )
        rows.append(Row(cells, task=t.id))
    lane = phrasing.lane_noun(study.device)
    heads = [("task", False), ("phase", False), (lane, True), ("start", True), ("time", True),
             ("operations", True), ("bytes moved", True), ("synaptic ops", True), ("critical", False)]  # fmt: skip
    return {"heads": heads, "rows": rows, "left_out": len(tasks) - len(rows), "sorted": 4}


def _parameters(study: Study) -> Mapping[str, Any]:
    parameters = study.device.parameters
    counts = {s: sum(f.provenance == s for f in parameters.values()) for s in ("measured", "published", "assumed")}
    provenance_names = (
        ("measured", "measured"),
        ("published", "published (datasheet or paper)"),
        ("assumed", "assumed"),
    )
    standings = ", ".join(f"{counts[provenance]} {name}" for provenance, name in provenance_names)
    summary = (
        f"The prediction rests on {standing(study.chosen, study.device)}. "
        f"Of the device's {len(parameters)} figures: {standings}."
    )
    rows = [
        Row((words_cell(name), (f"{f.value:.4g}", f.value), words_cell(f.provenance), words_cell(f.source)))
        for name, f in sorted(parameters.items())
    ]
    return {
        "summary": summary,
        "heads": [("figure", False), ("value", True), ("standing", False), ("source", False)],
        "rows": rows,
    }


def _spikes(study: Study) -> Mapping[str, Any]:
    spikes = study.graph.spikes
    if spikes is None:
        return {"source": "", "heads": [], "rows": []}
    rows = []
    for layer in spikes.layers:
        estimate = layer.density * layer.dense_macs
        border = 1 - layer.sops / estimate if estimate > 0 else None
        cells: tuple[Cell, ...] = (
            words_cell(layer.module),
            words_cell("spikes" if layer.spiking else "analog, counted as MACs"),
            (units.percent(layer.density), layer.density),
            (units.count(layer.sops), layer.sops),
            (units.count(layer.dense_macs), layer.dense_macs),
            (units.count(estimate), estimate),
            ("-" if border is None else units.percent(max(border, 0.0)), border),
        )
        rows.append(Row(cells))
    origin = "measured" if spikes.measured else "not measured"
    return {
        "source": f"{origin}, {spikes.source}, mean density {units.percent(spikes.rate)}",
        "heads": [("layer", False), ("input", False), ("density", True), ("synaptic ops", True), ("dense MACs", True),
                  ("density x MACs", True), ("lost at the border", True)],
        "rows": rows,
    }  # fmt: skip


def _against(both: SideBySide) -> Mapping[str, Any]:
    def rows(lines: Sequence[Line]) -> list[Row]:
        return [
            Row((words_cell(x.name), words_cell(x.this), words_cell(x.other),
                 ("-" if x.ratio is None else units.times(x.ratio), x.ratio)))
            for x in lines
        ]  # fmt: skip

    return {
        "titles": both.titles,
        "heads": [("", False), ("this", True), ("other", True), ("other / this", True)],
        "quantities": rows(both.quantities),
        "energies": rows(both.energies),
        "layers": rows(both.layers),
        "left_out": both.layers_left_out,
    }


def _settings(study: Study) -> str:
    graph = study.graph
    shapes = ", ".join("x".join(map(str, shape)) for shape in graph.input_shapes)
    steps = "" if graph.timesteps is None else f", T = {graph.timesteps}"
    return (
        f"{graph.model}: {graph.mode}, batch {graph.batch}{steps}, input {shapes}, {graph.arithmetic}, "
        f"tasks by {graph.granularity}. Every number above is in report.json, in SI units."
    )
