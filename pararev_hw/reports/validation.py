"""A validation as JSON and back, as tables for the terminal, and in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from pararev_hw.reports import units
from pararev_hw.reports.text import columns_of, plain_table
from pararev_hw.types import Accuracy, OpError, StepCost, Validation, ValidationCase
from pararev_hw.types.codec import from_fields

HELD_OUT: Mapping[str, str] = {"network": "another network", "shape": "another shape"}
_SHORT: Mapping[str, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
_FURTHEST = 5
BASELINES: Mapping[str, str] = {
    "roofline": "roofline of the device's figures, nothing fitted",
    "flops x constant": "flops x one constant, from the calibration's own steps",
}


def validation_document(validation: Validation, tolerance: float | None = None) -> dict[str, Any]:
    """The validation as JSON-ready data, in SI units; errors and tolerances are shares of one."""
    return {
        "schema_version": validation.schema_version,
        "device": {"name": validation.device, "title": validation.title, "kind": validation.kind},
        "suite": validation.suite,
        "answer": validation_answer(validation),
        "interrupted": validation.interrupted,
        "tolerance": tolerance,
        "within": None if tolerance is None else validation.within(tolerance),
        "environment": asdict(validation.environment),
        "cases": [_case(c) for c in validation.cases],
        "coverage": validation.coverage,
        "kendall_tau_told_apart": validation.kendall_tau_told_apart,
        "latency": _accuracy(validation.latency),
        "memory": _accuracy(validation.memory),
        "energy": _accuracy(validation.energy),
        "by_held_out": {name: _accuracy(a) for name, a in validation.by_held_out.items()},
        "by_group": {name: _accuracy(a) for name, a in validation.by_group.items()},
        "baselines": {name: _accuracy(a) for name, a in validation.baselines.items()},
        "left_out": list(validation.left_out),
        "notes": list(validation.notes),
    }


def is_validation(document: object) -> bool:
    """Whether a JSON document is what `pararev-hw validate` wrote."""
    return isinstance(document, Mapping) and {"suite", "cases", "by_held_out"} <= document.keys()


def validation_from_document(document: Mapping[str, Any], where: str) -> Validation:
    """The validation that `pararev-hw validate` wrote. Raises BadFile, one line that begins with `where`."""
    device = document.get("device")
    fields = {**document, **(device if isinstance(device, Mapping) else {})}
    fields["device"] = fields.get("name")
    of_validation = {name: fields[name] for name in Validation.__dataclass_fields__ if name in fields}
    return from_fields(of_validation, Validation, where)


def _case(c: ValidationCase) -> dict[str, Any]:
    errors = {"latency": c.error("latency_s"), "memory": c.error("peak_bytes"), "energy": c.error("energy_j")}
    return {
        "name": c.name,
        "network": c.network,
        "held_out": c.held_out,
        "mode": c.mode,
        "launch": c.launch,
        "dtype": c.dtype,
        "batch": c.batch,
        "timesteps": c.timesteps,
        "width": c.width,
        "flops": c.flops,
        "predicted": _cost(c.predicted),
        "measured": _cost(c.measured),
        "error": errors,
        "baselines": dict(c.baselines),
        "samples_s": list(c.samples_s),
        "failed": c.failed,
        "expected_error": c.expected_error,
        "slowness": c.slowness,
        "mapped_in_bytes": c.mapped_in_bytes,
        "by_kind": [asdict(e) for e in c.by_kind],
        "worst_ops": [asdict(e) for e in c.worst_ops],
        "by_module": [asdict(e) for e in c.by_module],
    }


def _cost(cost: StepCost | None) -> dict[str, Any] | None:
    return None if cost is None else asdict(cost)


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any] | None:
    return None if accuracy is None else asdict(accuracy)


_NOTABLY = 1.2
_NOTABLE_SHARE = 0.1  # of a step's peak memory, mapped in anew


def validation_answer(validation: Validation) -> str:
    """The validation in a few sentences: how far the predictions are from what was measured."""
    failed = sum(c.failed is not None for c in validation.cases)
    rest = f" {failed} of {len(validation.cases)} cases failed." if failed else ""
    if validation.latency is None:
        return f"On {validation.title}, nothing was measured.{rest}"
    clauses = [f"On {validation.title}, the time of {_latency_clause(validation.latency, validation.suite)}"]
    whose = "its" if validation.latency.cases == 1 else "their"
    if validation.memory is not None:
        clauses.append(f"{whose} peak memory within {units.percent(validation.memory.mape)}")
    if validation.energy is not None:
        clauses.append(f"{whose} energy within {units.percent(validation.energy.mape)}")
    sentence = ", ".join(clauses[:-1]) + (" and " if len(clauses) > 1 else "") + clauses[-1]
    others = [f"{name} is {units.percent(a.mape)} off" for name, a in validation.baselines.items()]
    compared = f" On the same steps {' and '.join(others)}." if others else ""
    return f"{sentence}.{compared}{_slower(validation)}{_mapped_in(validation)}{rest}"


def _latency_clause(latency: Accuracy, suite: str) -> str:
    """`suite` "targets": the user's own networks, some of which the fit may have seen."""
    if latency.cases == 1:
        network = "" if suite == "targets" else " of a network that the fit never saw"
        return f"one step{network} is predicted within {units.percent(latency.max)}"
    networks = "" if suite == "targets" else " of networks that the fit never saw"
    return (
        f"{latency.cases} steps{networks} is predicted within {units.percent(latency.mape)} "
        f"on average ({units.percent(latency.within_10pct)} of them within 10 %, at most "
        f"{units.percent(latency.max)} off{_ranking(latency)})"
    )


def _slower(validation: Validation) -> str:
    """How slow the machine was meanwhile, where it notably was."""
    slowness = [c.slowness for c in validation.cases if c.slowness is not None]
    middle = statistics.median(slowness) if slowness else 1.0
    if 1 / _NOTABLY < middle < _NOTABLY:
        return ""
    return (
        f" Meanwhile the machine took {middle:.2g} times as long for the same Python as when it was calibrated, "
        "a busy neighbour or another clock: the predictions are for that speed."
    )


def _mapped_in(validation: Validation) -> str:
    """How much memory the steps had mapped in anew, where that was notable."""
    sizes = [
        c.mapped_in_bytes
        for c in validation.cases
        if c.mapped_in_bytes and c.measured is not None and c.mapped_in_bytes > _NOTABLE_SHARE * c.measured.peak_bytes
    ]
    if not sizes:
        return ""
    return (
        f" In {len(sizes)} of {len(validation.cases)} cases each step had memory mapped in anew that the allocator had "
        f"let go, up to {units.size(max(sizes))}: it was counted in them, and the predictions are for as much."
    )


def _ranking(accuracy: Accuracy) -> str:
    return "" if accuracy.kendall_tau is None else f"; Kendall's τ of their ranking {accuracy.kendall_tau:.2f}"


def signed(error: float | None) -> str:
    """A signed error: "+3.1 %", "-12 %"."""
    if error is None:
        return "-"
    sign = "-" if error < 0 else "+" if error > 0 else ""
    return f"{sign}{units.percent(abs(error))}"


def case_row(c: ValidationCase) -> str:
    """One case in a line, as it ends."""
    if c.measured is None or c.predicted is None:
        return f"{c.name}: failed: {c.failed}"
    return (
        f"{c.name}: predicted {units.seconds(c.predicted.latency_s)}, measured {units.seconds(c.measured.latency_s)} "
        f"({signed(c.error('latency_s'))}{_expected(c)}), memory {signed(c.error('peak_bytes'))}"
    )


def _expected(c: ValidationCase) -> str:
    return "" if c.expected_error is None else f", expected within {units.percent(c.expected_error)}"


def step_of(c: ValidationCase) -> str:
    """ "train fp32", "infer bf16 graph"."""
    return " ".join((c.mode, _SHORT.get(c.dtype, c.dtype), *(("graph",) * (c.launch == "graph"))))


def size_of(c: ValidationCase) -> str:
    """Width, batch, T."""
    return f"{c.width:g}, {c.batch}, {c.timesteps}"


def cases_table(validation: Validation) -> Table:
    """Predicted beside measured, a row per case."""
    table = plain_table(f"Predicted and measured steps on {validation.title}")
    energy = validation.energy is not None
    columns_of(
        table, ("network", "step", "size"), ("predicted", "measured", "error", "memory", *(("energy",) * energy))
    )
    table.caption = Text("size: width, batch, T; error, memory, energy: predicted over measured, less 1")
    for c in validation.cases:
        names = (c.network, step_of(c), size_of(c))
        if c.measured is None or c.predicted is None:
            table.add_row(*map(Text, (*names, "failed")), style="bold")
            continue
        cells = [
            *names,
            units.seconds(c.predicted.latency_s),
            units.seconds(c.measured.latency_s),
            *(signed(c.error(q)) for q in ("latency_s", "peak_bytes")),
            *((signed(c.error("energy_j")),) * energy),
        ]
        table.add_row(*map(Text, cells))
    return table


def worst_ops_table(validation: Validation) -> Table:
    """Of each of the user's networks, the kinds of operations, the operations and the modules whose predicted times
    differ most from the profiler's."""
    table = plain_table("Where the error comes from: what is furthest off")
    columns_of(table, ("network", "by", "what"), ("predicted", "measured"))
    for c in validation.cases:
        parts = (("kind", _furthest(c.by_kind)), ("operation", c.worst_ops), ("module", _furthest(c.by_module)))
        rows = [(by if k == 0 else "", e) for by, errors in parts for k, e in enumerate(errors)]
        for k, (by, e) in enumerate(rows):
            seconds = (units.seconds(e.predicted_s), units.seconds(e.measured_s))
            cells = (c.network if k == 0 else "", by, e.name, *seconds)
            table.add_row(*map(Text, cells), end_section=k == len(rows) - 1)
    return table


def _furthest(errors: Sequence[OpError]) -> Sequence[OpError]:
    return sorted(errors, key=lambda e: -abs(e.predicted_s - e.measured_s))[:_FURTHEST]


def accuracy_table(validation: Validation) -> Table:
    """The statistics: of each quantity, of what was held out, of groups of cases, of simpler predictions."""
    table = plain_table("How far predictions are from measurements")
    columns_of(table, ("what",), ("cases", "MAPE", "largest", "within 10 %", "Kendall τ"))
    for end, rows in accuracy_rows(validation):
        for k, (name, a) in enumerate(rows):
            tau = "-" if a.kendall_tau is None else f"{a.kendall_tau:.3f}"
            cells = (
                name,
                str(a.cases),
                units.percent(a.mape),
                units.percent(a.max),
                units.percent(a.within_10pct),
                tau,
            )
            table.add_row(*map(Text, cells), end_section=end and k == len(rows) - 1)
    return table


def accuracy_rows(validation: Validation) -> list[tuple[bool, list[tuple[str, Accuracy]]]]:
    """Sections of (name, accuracy), each with whether a line ends it."""
    whole = [("latency", validation.latency), ("peak memory", validation.memory), ("energy", validation.energy)]
    present = [(name, a) for name, a in whole if a is not None]
    held_out_rows = [(f"latency, {HELD_OUT.get(name, name)}", a) for name, a in validation.by_held_out.items()]
    groups = [(f"latency, {name}", a) for name, a in validation.by_group.items()]
    simple = [(BASELINES.get(name, name), a) for name, a in validation.baselines.items()]
    return [(True, present), (True, held_out_rows), (True, groups), (False, simple)]
