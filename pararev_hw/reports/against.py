"""Two reports side by side: a study, and the report.json of another network, device or version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.table import Table
from rich.text import Text

from pararev_hw import limits
from pararev_hw.documents import fault_in_words, first_fault, parse_json, read_text
from pararev_hw.errors import BadFile
from pararev_hw.reports import units
from pararev_hw.reports.document import report_document
from pararev_hw.reports.text import columns_of, plain_table
from pararev_hw.types import SCHEMA_VERSION, Study
from pararev_hw.types.graph import THE_NETWORK

SAME = 0.005  # relative: layers that differ by less are not shown
MOST_LAYERS = 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Named(_Part):
    title: str


class _Totals(_Part):
    macs: float
    sops: float | None
    tasks: int
    latency_s: float
    sequential_latency_s: float
    parallel_limit: float | None
    peak_bytes: float
    energy_j: float | None


class _Way(_Part):
    name: str
    latency_s: float
    peak_bytes: float
    energy_j: float | None


class _Prediction(_Part):
    peak_bytes: float
    energy_j: Mapping[str, float]


class _Layer(_Part):
    module: str
    time_s: float | None
    energy_j: float | None = None


class OtherReport(_Part):
    """What a comparison reads of a report.json."""

    schema_version: int
    model: str
    batch: int
    timesteps: int | None
    mode: str
    parameters: int
    device: _Named
    totals: _Totals
    predictions: tuple[_Prediction, ...] = Field(min_length=1)
    best: int = Field(ge=0)
    recommendations: tuple[_Way, ...] = ()
    layers: tuple[_Layer, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.model} on {self.device.title}"

    def way(self, name: str) -> _Way | None:
        """The recommended way of that name."""
        return next((w for w in self.recommendations if w.name == name), None)


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of both: what is shown of it, and the second over the first, None where that has no value."""

    name: str
    this: str
    other: str
    ratio: float | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Quantities of the whole step, energies by part, and the layers whose times differ most."""

    titles: tuple[str, str]
    quantities: tuple[Line, ...]
    energies: tuple[Line, ...]
    layers: tuple[Line, ...]
    layers_left_out: int


def read_report(path: Path) -> OtherReport:
    """The report in a report.json, or in the folder that holds one. Raises BadFile, one line."""
    file = path / "report.json" if path.is_dir() else path
    text = read_text(file, limits.GRAPH_FILE_BYTES, "--against takes the report.json of another report")
    document = parse_json(text, str(file))
    if not isinstance(document, dict) or "totals" not in document or "predictions" not in document:
        raise BadFile(f"{file}: holds no report: name the report.json that `pararev-hw report -o` wrote")
    if isinstance(version := document.get("schema_version"), int) and version > SCHEMA_VERSION:
        raise BadFile(f"{file}: schema_version is {version}: this version reads up to {SCHEMA_VERSION}")
    try:
        other = OtherReport.model_validate(document)
    except ValidationError as error:
        fault = first_fault(error)
        raise BadFile(f"{file}: {fault_in_words(fault, '.'.join(map(str, fault['loc'])))}") from None
    if other.best >= len(other.predictions):
        raise BadFile(f"{file}: best is {other.best}, and there are {len(other.predictions)} predictions")
    return other


def side_by_side(study: Study, other: OtherReport) -> SideBySide:
    """The study beside the other report."""
    this = OtherReport.model_validate(report_document(study))
    layers = _layers(this, other)
    return SideBySide(
        (this.title, other.title),
        tuple(_quantities(this, other)),
        tuple(_energies(this, other)),
        tuple(layers[:MOST_LAYERS]),
        max(0, len(layers) - MOST_LAYERS),
    )


_RECOMMENDED = (("fastest", "fastest"), ("within_memory", "within the memory"), ("least_memory", "least memory"))


def _quantities(a: OtherReport, b: OtherReport) -> list[Line]:
    def line(name: str, show: Callable[[Any], str], value: Callable[[OtherReport], float | None]) -> Line:
        return _line(name, show, value(a), value(b))

    lines = [
        Line("step", _step(a), _step(b), None),
        line("latency, sequential", units.seconds, lambda r: r.totals.sequential_latency_s),
        line("latency, recommended", units.seconds, lambda r: r.totals.latency_s),
        line("latency per sample, recommended", units.seconds, lambda r: r.totals.latency_s / r.batch),
        line("limit of parallel lanes", lambda v: units.UNKNOWN if v is None else units.times(v),
             lambda r: r.totals.parallel_limit),
        line("memory, sequential", units.size, lambda r: r.predictions[0].peak_bytes),
        line("memory, recommended", units.size, lambda r: r.totals.peak_bytes),
        line("energy, recommended", units.joules, lambda r: r.totals.energy_j),
        line("parameters", units.count, lambda r: r.parameters),
        line("MACs", units.count, lambda r: r.totals.macs),
        line("synaptic operations", units.count, lambda r: r.totals.sops),
        line("tasks", units.count, lambda r: r.totals.tasks),
    ]  # fmt: skip
    for key, words in _RECOMMENDED:
        x, y = a.way(key), b.way(key)
        if x is None and y is None:
            continue
        seconds = (None if w is None else w.latency_s for w in (x, y))
        sizes = (None if w is None else w.peak_bytes for w in (x, y))
        lines.append(_line(f"latency, {words}", units.seconds, *seconds))
        lines.append(_line(f"memory, {words}", units.size, *sizes))
    return lines


def _step(report: OtherReport) -> str:
    steps = "" if report.timesteps is None else f", T = {report.timesteps}"
    return f"{report.mode}, batch {report.batch}{steps}"


def _energies(a: OtherReport, b: OtherReport) -> list[Line]:
    first, second = (r.predictions[r.best].energy_j for r in (a, b))
    parts = sorted({*first, *second}, key=lambda p: (p == "total", -max(first.get(p, 0), second.get(p, 0)), p))
    return [_line(part, units.joules, first.get(part), second.get(part)) for part in parts]


def _layers(a: OtherReport, b: OtherReport) -> list[Line]:
    """Layers that both have, the largest difference of times first; those that do not differ are left out."""
    first, second = ({layer.module: layer.time_s for layer in r.layers} for r in (a, b))
    differences = []
    for module in (m for m in first if m in second):
        x, y = first[module], second[module]
        difference = abs((x or 0.0) - (y or 0.0))
        if difference > SAME * max(x or 0.0, y or 0.0):
            differences.append((-difference, module, x, y))
    differences.sort(key=lambda d: d[:2])
    return [_line(module or THE_NETWORK, _seconds, x, y) for _, module, x, y in differences]


def _seconds(time_s: float | None) -> str:
    return "-" if time_s is None else units.seconds(time_s)


def _line(name: str, show: Callable[[Any], str], this: float | None, other: float | None) -> Line:
    ratio = other / this if this and other is not None else None
    return Line(name, show(this) if this is not None else "-", show(other) if other is not None else "-", ratio)


def side_by_side_document(both: SideBySide) -> dict[str, Any]:
    """As JSON-ready data: what is compared, and the ratios; the values themselves stand in both reports."""
    return {
        "titles": list(both.titles),
        **{
            part: [asdict(line) for line in lines]
            for part, lines in (("quantities", both.quantities), ("energy", both.energies), ("layers", both.layers))
        },
    }


def side_by_side_table(both: SideBySide) -> Table:
    """The quantities of the whole step, for a terminal."""
    table = plain_table(f"{both.titles[0]}, against {both.titles[1]}")
    columns_of(table, ("quantity",), ("this", "other", "other / this"))
    for x in both.quantities:
        table.add_row(*map(Text, (x.name, x.this, x.other, "" if x.ratio is None else units.times(x.ratio))))
    return table
