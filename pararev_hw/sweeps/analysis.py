"""What the finished rows say: the Pareto front, how much each parameter matters, why configurations failed.

Most of it stems from the summaries of parts; rows are read again for what equals the recommended one, in the columns
that tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pararev_hw.devices import PARAMETERS
from pararev_hw.reports import sweep_phrasing
from pararev_hw.sweeps.arrow_arrays import arrow_array, numpy_array
from pararev_hw.sweeps.chip_size import hardware, least_hardware, tells_size
from pararev_hw.sweeps.edges import edges, idle
from pararev_hw.sweeps.front import EQUAL, costs_of, knee, merged, near, outdone, signed_of, stand_ins, unequalled_near
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.store import Store
from pararev_hw.sweeps.summary import Summary, varied
from pararev_hw.sweeps.workloads import Workload, rows_of, shared_rows, workload_columns, workload_parameters
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult, WorkloadChoice


def analyse(store: Store, summary: Summary, resumed: int, seconds: float) -> SweepResult:
    """The result of a finished sweep, whose rows `summary` sums up. `resumed` rows were there before; the others took
    `seconds`."""
    sweep = store.sweep
    axes = tuple(SweepAxis(p.name, _unit(p.name), p.scale == "log") for p in varied(sweep))
    fixed = {p.name: p.values[0] for p in sweep.space.parameters if not p.continuous and len(p.values) == 1}
    objectives = tuple(SweepAxis(o.column, o.unit, True, o.maximise, o.label) for o in sweep.objectives)
    columns = [*(p.name for p in sweep.space.parameters), *(name for name, _ in sweep.derived)]
    fronts = {w: _front(_points(table, columns, sweep), sweep, objectives) for w, table in summary.fronts()}
    overall = fronts.pop((), None)
    order = {p.row for p in overall.every} if overall else set()
    recommended = _recommended(store, overall, columns) if overall else None
    computed = sweep.rows - resumed
    sampled = sorted(summary.sampled, key=lambda t: int(t["row"][0].as_py()))
    result = SweepResult(
        name=sweep.name,
        device=sweep.device.title,
        scheduler=sweep.scheduler,
        method=sweep.method.name,
        parameters=axes,
        fixed=fixed,
        objectives=objectives,
        evaluated=summary.evaluated,
        failed=sum(summary.reasons.values()),
        reasons=dict(sorted(summary.reasons.items(), key=lambda r: (-r[1], r[0]))),
        resumed=resumed,
        configs_per_s=computed / seconds if computed and seconds > 0 else None,
        pareto=overall.shown if overall else (),
        sample=tuple(p for t in sampled for p in _points(t, columns, sweep) if p.row not in order),
        sensitivity={o.column: summary.fit.shares(o.column) for o in sweep.objectives},
        interactions={o.column: summary.fit.interactions(o.column) for o in sweep.objectives},
        recommended=recommended,
        best=overall.best if overall else None,
        base=store.base(),
        combinations=sweep.space.combinations,
        workloads=_workloads(store, fronts, columns),
    )
    if recommended is None:
        return result
    return replace(result, warnings=(*edges(result, varied(sweep)), *idle(result)))


def _values(points: Sequence[SweepPoint], sweep: Sweep) -> list[NDArray[np.float64]]:
    return [np.array([p.objectives[o.column] for p in points], np.float64) for o in sweep.objectives]


@dataclass(frozen=True, slots=True)
class _Front:
    """A front: `every` point of it, those that are `shown`, and the `best` of them in the first objective."""

    every: Sequence[SweepPoint]
    shown: tuple[SweepPoint, ...]
    best: SweepPoint


def _front(points: Sequence[SweepPoint], sweep: Sweep, objectives: Sequence[SweepAxis]) -> _Front:
    """The points of a front, sorted by the first objective. Of those that are alike the least hardware is shown; what
    another point equals with less is not."""
    chosen, counts = merged(_values(points, sweep), np.array([hardware(p.parameters, sweep) for p in points]))
    order = np.argsort(chosen)
    left = [points[k] for k in chosen[order]]
    best = sweep_phrasing.best_of(left, objectives)
    maximise = [o.maximise for o in sweep.objectives]
    alike: dict[int, int] = {}
    stand_in = stand_ins(_values(left, sweep), maximise, left.index(best))
    for k, count in zip(stand_in.tolist(), counts[order].tolist(), strict=True):
        alike[k] = alike.get(k, 0) + count
    shown = {k: replace(left[k], alike=alike[k]) for k in sorted(alike)}
    return _Front(points, tuple(shown.values()), shown[left.index(best)])


def _recommended(
    store: Store, front: _Front, columns: Sequence[str], workload: Mapping[str, str] | None = None
) -> SweepPoint:
    """The knee of the front over all objectives, or what outdoes it; or the least hardware of all rows, those of a
    workload where one is given, that equal it within EQUAL and that none outdoes."""
    sweep = store.sweep
    maximise = [o.maximise for o in sweep.objectives]
    on_front = signed_of(_values(front.every, sweep), maximise)
    at_knee = front.shown[knee(costs_of(_values(front.shown, sweep), maximise))]
    at = unequalled_near(on_front, signed_of(_values([at_knee], sweep), maximise)[0])
    best = front.every[int((on_front == at).all(1).argmax())]
    rivals = np.unique(on_front[(on_front <= at + 3 * EQUAL * np.abs(at)).all(1)], axis=0)
    objectives = [o.column for o in sweep.objectives]
    sizes = [n for n in columns if n not in objectives and tells_size(n)]
    least = [(round(hardware(best.parameters, sweep), 9), False, best.row)]
    for chunk, table in enumerate(store.tables(["row", "failed", *objectives, *(workload or {})])):
        fine = rows_of(table.filter(pc.is_null(table["failed"])), workload or {})
        values = signed_of([numpy_array(fine[o.column]) for o in sweep.objectives], maximise)
        equal = np.flatnonzero(near(values, at, EQUAL))
        equal = equal[~outdone(values[equal], rivals)]
        if len(equal):
            places = arrow_array(numpy_array(fine["row"])[equal] - sweep.span(chunk)[0])
            parameters = least_hardware(store.read_part(chunk, ["row", *sizes]).take(places), sizes)
            least += [(round(hardware(r, sweep), 9), True, r["row"]) for r in parameters.to_pylist()]
    row = min(least)[-1]
    if row == best.row:
        return best
    chunk = row // sweep.chunk_rows
    return _points(store.read_part(chunk).slice(row - sweep.span(chunk)[0], 1), columns, sweep)[0]


def _workloads(
    store: Store,
    fronts: Mapping[Workload, _Front],
    columns: Sequence[str],
) -> tuple[WorkloadChoice, ...]:
    """What to take for each of several workloads, in the order of the sweep file."""
    shared = {p.row: p for p in _points(shared_rows(store, len(fronts)), columns, store.sweep)} if fronts else {}
    choices = []
    for values in product(*(p.values for p in workload_parameters(store.sweep))):
        words = tuple(map(str, values))
        workload, front = dict(zip(workload_columns(store.sweep), words, strict=True)), fronts.get(words)
        if front is not None:
            same = next((p for p in shared.values() if workload.items() <= p.parameters.items()), None)
            recommended = _recommended(store, front, columns, workload)
            choices.append(WorkloadChoice(workload, front.best, recommended, same))
    return tuple(choices)


_SHORT = {
    "byte": "B",
    "byte/s": "B/s",
    "J/byte": "J/B",
    "W/byte": "W/B",
    "1/s": "Hz",
    **dict.fromkeys(("count", "1", "0 or 1"), ""),
}


def _unit(name: str) -> str:
    unit = PARAMETERS[name].unit if name in PARAMETERS else ""
    return _SHORT.get(unit, unit)


def _points(table: pa.Table | None, columns: Sequence[str], sweep: Sweep) -> tuple[SweepPoint, ...]:
    """Rows as points, by the first objective, then the row number."""
    if table is None:
        return ()
    rows = table.to_pylist()
    objectives = [o.column for o in sweep.objectives]
    points = [
        SweepPoint(r["row"], {c: r[c] for c in columns if c not in objectives}, {c: r[c] for c in objectives})
        for r in rows
    ]
    best = sweep.objectives[0]
    sign = -1.0 if best.maximise else 1.0
    return tuple(sorted(points, key=lambda p: (sign * p.objectives[best.column], p.row)))
