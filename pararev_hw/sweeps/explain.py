"""Why a configuration costs what it costs: what limits its layers, where its energy goes, what a step aside changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pararev_hw.atomic import write_files
from pararev_hw.costmodels import accelerator
from pararev_hw.errors import Infeasible
from pararev_hw.sweeps.core_columns import CoreColumns
from pararev_hw.sweeps.problem import Problem, study_of, variant_of
from pararev_hw.types import (
    BlockGraph,
    Device,
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
    some = front[:: max(1, -(-len(front) // most))] if most else ()
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
    try:
        study = study_of(engine, sweep, values)
    except Infeasible:
        return None
    chosen, lanes = study.chosen, int(values.get("lanes", sweep.device.lanes))
    busy = sum(chosen.lane_busy_s) / (lanes * chosen.latency_s) if chosen.latency_s > 0 else 1.0
    shares, layers = ({}, ()) if engine.core_columns is None else _limits(engine.core_columns, study.device)
    time = {name: share * busy for name, share in shares.items()} or {"busy": busy}
    return PointExplanation(
        row=point.row,
        time_shares=time | {"waiting": max(0.0, 1.0 - busy)},
        layers=layers,
        energy_j={part: joule for part, joule in chosen.energy_j.items() if joule > 0},
        neighbours=_neighbours(problem, values) if engine.vectorised else (),
        macs_per_s_peak=_peak(study.device) if layers else None,
        bytes_per_s=study.device.get("memory_bandwidth_bytes_per_s", 0.0) or None if layers else None,
    )


def _peak(device: Device) -> float:
    return device.value("pe_rows") * device.value("pe_columns") * device.value("clock_hz")


def _limits(columns: CoreColumns, device: Device) -> tuple[dict[str, float], tuple[LayerLimit, ...]]:
    """Shares of the busy time by what sets the pace, and the layers that take most of it."""
    costs = accelerator.layer_costs(columns.table, accelerator.config_table(device))
    parts = np.stack([costs.array_s[:, 0], costs.vector_s[:, 0], costs.sram_s[:, 0], costs.dram_s[:, 0]])
    pace = parts.argmax(0)
    seconds, overhead = costs.seconds[:, 0] * columns.times, costs.overhead_s[:, 0] * columns.times
    total = float(seconds.sum())
    if not total > 0:
        return {}, ()
    shares = {name: float((seconds - overhead)[pace == k].sum()) / total for k, name in enumerate(LIMITS)}
    shares["overhead"] = float(overhead.sum()) / total
    names, macs = _rows(columns.graph, columns.table)
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
    return {name: share for name, share in shares.items() if share > 0}, layers


def _rows(graph: BlockGraph, table: accelerator.LayerTable) -> tuple[dict[int, str], np.ndarray[Any, Any]]:
    """What each row of the table is called, by the modules of its products, and its MACs."""
    modules: dict[int, list[str]] = {}
    phases: dict[int, str] = {}
    macs, counts = np.zeros(table.rows), Counter[int]()
    for op, row in zip(graph.ops, table.row_of_op.tolist(), strict=True):
        t = graph.op_types[op.type]
        if row < 0 or not t.flops:
            continue
        modules.setdefault(row, [])
        if op.module not in modules[row]:
            modules[row].append(op.module)
        phases.setdefault(row, op.phase)
        macs[row] += t.true_macs
        counts[row] += 1
    names = {}
    for row, members in modules.items():
        alike = f" and {len(members) - 1} alike" if len(members) > 1 else ""
        names[row] = f"{members[0]}{alike}, {phases[row]}"
        macs[row] /= max(1, len(members))
    return names, macs


def _neighbours(problem: Problem, values: Mapping[str, Any]) -> tuple[SweepNeighbour, ...]:
    """What one step of one parameter up or down changes, all else as it is; constraints are not looked at."""
    steps = []
    for p in problem.sweep.space.parameters:
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
