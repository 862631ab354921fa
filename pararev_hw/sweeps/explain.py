"""Why a configuration costs what it costs: what limits its layers, where its energy goes, what a step aside changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pararev_hw.atomic import write_files
from pararev_hw.costmodels import working_out_once
from pararev_hw.costmodels.accelerator import LayerTable
from pararev_hw.errors import Infeasible
from pararev_hw.sweeps.core_columns import CoreColumns
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.problem import Problem, configuration_of, variant_of
from pararev_hw.types import (
    BlockGraph,
    Device,
    DeviceParameter,
    LayerLimit,
    PointExplanation,
    SweepNeighbour,
    SweepPoint,
    SweepResult,
)

FILE = "points.json"
MOST_POINTS = 10  # of the front, beside the recommended, the best ones and the base device
MOST_LAYERS = 12
LIMITS = ("PE array", "vector unit", "SRAM", "main memory")


@working_out_once()
def explained(problem: Problem, result: SweepResult) -> tuple[PointExplanation, ...]:
    """Explanations of the points that a reader asks about first: the recommended one, the best in each objective, some
    of the front, and the base device."""
    many = all(n.engine is None or n.engine.vectorised for n in problem.networks.values())
    points = _points_of(result, MOST_POINTS if many else 0)
    return tuple(e for p in points if (e := _explained(problem, p)) is not None)


def write_explanations(folder: Path, fingerprint: str, explanations: Sequence[PointExplanation]) -> None:
    """Keep them beside the rows, for when the finished sweep is shown again."""
    document = {"fingerprint": fingerprint, "points": [asdict(e) for e in explanations]}
    write_files(folder, {FILE: json.dumps(document) + "\n"})


def read_explanations(folder: Path, fingerprint: str) -> tuple[PointExplanation, ...]:
    """Those of this very sweep; none where there are none."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if document["fingerprint"] != fingerprint:
            return ()
        return tuple(_from_document(p) for p in document["points"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # they can be computed again: --fresh


def _from_document(p: Mapping[str, Any]) -> PointExplanation:
    return PointExplanation(
        **{
            **p,
            "layers": tuple(LayerLimit(**layer) for layer in p["layers"]),
            "neighbours": tuple(SweepNeighbour(**n) for n in p["neighbours"]),
        }
    )


def _points_of(result: SweepResult, most: int) -> list[SweepPoint]:
    """At most so many of the front, beside those that stand out."""
    front = result.pareto
    best = [
        (max if o.maximise else min)(front, key=lambda p, name=o.name: p.objectives[name])  # type: ignore[misc]
        for o in result.objectives
    ]
    some = [front[k * (len(front) - 1) // max(1, most - 1)] for k in range(most)] if front else []
    points = [
        *([result.recommended] if result.recommended else []),
        *best,
        *(p for c in result.workloads for p in (c.recommended, c.best)),
        *some,
        *([result.base] if result.base else []),
    ]
    return list({p.row: p for p in points}.values())


def _explained(problem: Problem, point: SweepPoint) -> PointExplanation | None:
    sweep = problem.sweep
    values = dict(point.parameters) | {
        p.name: p.values[0] for p in sweep.space.parameters if p.name not in point.parameters and p.values
    }
    engine = problem.networks[variant_of(values)].engine
    if engine is None:
        return None
    figures, lanes = configuration_of(sweep, values)
    device = engine.configured(figures, lanes)
    try:
        chosen = engine.chosen(figures, lanes) if engine.vectorised else engine.study(figures, lanes).chosen
    except Infeasible:
        return None
    busy = sum(chosen.lane_busy_s) / (lanes * chosen.latency_s) if chosen.latency_s > 0 else 1.0
    shares, layers, peak = ({}, (), None) if engine.core_columns is None else _limits(engine.core_columns, device)
    time = {name: share * busy for name, share in shares.items()} or {"busy": busy}
    return PointExplanation(
        row=point.row,
        time_shares=time | {"waiting": max(0.0, 1.0 - busy)},
        layers=layers,
        energy_j={part: joule for part, joule in chosen.energy_j.items() if joule > 0},
        neighbours=_neighbours(problem, values) if engine.vectorised else (),
        macs_per_s_peak=peak,
        bytes_per_s=device.get("memory_bandwidth_bytes_per_s", 0.0) or None if layers else None,
    )


def _peak(device: Device, dtype: str) -> float:
    per_pe = device.get(f"pe_macs_per_cycle.{dtype}", 1.0)
    return device.value("pe_rows") * device.value("pe_columns") * device.value("clock_hz") * per_pe


def operations(columns: CoreColumns, device: Device) -> np.ndarray[Any, Any]:
    """Multiply-accumulates and accumulates that each row of the table takes, without those that are skipped: the joules
    of a device that takes 1 J for each."""
    joule = DeviceParameter(1.0, "", "assumed")
    counted = {n: joule for n in device.parameters if n.startswith(("energy_per_mac_j", "energy_per_ac_j"))}
    counting = {n: p for n, p in device.parameters.items() if n != "event_overhead_energy_j"} | counted
    costs = columns.layer_costs(replace(device, parameters=counting))
    return costs.energy_j["mac"][:, 0] + costs.energy_j["ac"][:, 0]


def _limits(columns: CoreColumns, device: Device) -> tuple[dict[str, float], tuple[LayerLimit, ...], float | None]:
    """Shares of the busy time by what sets the pace, the layers that take most of it, and the most operations per
    second of a core."""
    costs = columns.layer_costs(device)
    parts = np.stack([costs.array_s[:, 0], costs.vector_s[:, 0], costs.sram_s[:, 0], costs.dram_s[:, 0]])
    pace = parts.argmax(0)
    seconds, overhead = costs.seconds[:, 0] * columns.times, costs.overhead_s[:, 0] * columns.times
    total = float(seconds.sum())
    if not total > 0:
        return {}, (), None
    shares = {name: float((seconds - overhead)[pace == k].sum()) / total for k, name in enumerate(LIMITS)}
    shares["overhead"] = float(overhead.sum()) / total
    names, macs = _row_names(columns.graph, columns.table), operations(columns, device)
    order = np.argsort(-seconds)[:MOST_LAYERS]
    layers = tuple(
        LayerLimit(
            name=names.get(int(r), "elementwise work"),
            limit=LIMITS[pace[r]],
            share=float(seconds[r] / total),
            macs_per_byte=float(macs[r] / costs.dram_bytes[r, 0]) if costs.dram_bytes[r, 0] > 0 else None,
            macs_per_s=float(macs[r] / costs.seconds[r, 0]) if costs.seconds[r, 0] > 0 else 0.0,
        )
        for r in order
    )
    return {name: share for name, share in shares.items() if share > 0}, layers, _peak(device, columns.table.dtype)


def _row_names(graph: BlockGraph, table: LayerTable) -> dict[int, str]:
    """What each row of the table is called, by the modules of its products."""
    modules: dict[int, list[str]] = {}
    phases: dict[int, str] = {}
    for op, row in zip(graph.ops, table.row_of_op.tolist(), strict=True):
        if row < 0 or not graph.op_types[op.type].flops:
            continue
        modules.setdefault(row, [])
        if op.module not in modules[row]:
            modules[row].append(op.module)
        phases.setdefault(row, op.phase)
    return {
        row: f"{members[0]}{f' and {len(members) - 1} alike' if len(members) > 1 else ''}, {phases[row]}"
        for row, members in modules.items()
    }


def _neighbours(problem: Problem, values: Mapping[str, Any]) -> tuple[SweepNeighbour, ...]:
    """What one step of one parameter up or down changes, a tenth of a range without steps, all else as it is;
    constraints are not looked at."""
    steps: list[tuple[str, float | str]] = []
    for p in problem.sweep.space.parameters:
        if p.continuous:
            steps += [(p.name, float(p.at(np.array(share)))) for share in _beside(p, values[p.name])]
        if p.continuous or len(p.values) < 2 or values[p.name] not in p.values:
            continue
        at = p.values.index(values[p.name])
        steps += [(p.name, p.values[k]) for k in (at - 1, at + 1) if 0 <= k < len(p.values)]
    if not steps:
        return ()
    rows = [{**values, name: value} for name, value in steps]
    names = [p.name for p in problem.sweep.space.parameters]
    table = problem.evaluate({n: np.array([row[n] for row in rows]) for n in names})
    return tuple(
        SweepNeighbour(
            name,
            value,
            {o.column: float(table[o.column][k]) for o in problem.sweep.objectives} if not table["failed"][k] else {},
            str(table["failed"][k]),
        )
        for k, (name, value) in enumerate(steps)
    )


def _beside(p: Parameter, value: float) -> list[float]:
    """Shares of a range a tenth of it below and above a value, where the range goes on so far."""
    ends = np.array([p.low, value, p.high], np.float64)
    low, at, high = np.log(ends) if p.scale == "log" else ends
    share = (at - low) / (high - low) if high > low else 0.0
    return [s for s in (share - 0.1, share + 0.1) if high > low and -1e-9 <= s <= 1 + 1e-9]
