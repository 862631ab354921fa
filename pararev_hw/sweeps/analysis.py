"""What the finished rows say: the Pareto front, how much each parameter matters, why configurations failed.

Rows are read a row group at a time, and what is kept of them is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pararev_hw.compiled import loop
from pararev_hw.devices import PARAMETERS
from pararev_hw.reports import sweep_phrasing
from pararev_hw.sweeps.front import EQUAL, costs_of, knee, merged, near, stand_ins
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.sensitivity import AdditiveFit, ordered_bins
from pararev_hw.sweeps.spec import Sweep, span_of
from pararev_hw.sweeps.store import Store
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult

BINS = 16  # of a range without steps
MOST_BINS = 64  # of listed values, of which a range may have a million
SAMPLE = 1500  # configurations kept for pictures
JUDGES = 32  # rows with which a table is thinned out before all that are left are compared
MATTERS = 0.01  # share of an objective's variance from which on a parameter matters


def nondominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows [n, k] no other row beats: at least as small everywhere and smaller somewhere. Equal rows all stay."""
    n = len(costs)
    keep = np.zeros(n, np.bool_)
    order = np.lexsort(costs.T[::-1])
    if costs.shape[1] <= 2:
        ordered = costs[order]
        last = ordered[:, -1]
        before = np.concatenate(([np.inf], np.minimum.accumulate(last)[:-1]))
        same = np.zeros(n, np.bool_)
        same[1:] = (ordered[1:] == ordered[:-1]).all(1)
        better = last < before
        for k in np.flatnonzero(same):  # copies of one that stays, which stand beside it
            better[k] = better[k - 1]
        keep[order] = better
        return keep
    ordered = costs[order]
    first = np.ones(n, np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    distinct = ordered[first]  # copies share the fate of the first of them
    left = _survivors(distinct)
    unbeaten = np.zeros(len(distinct), np.bool_)
    unbeaten[left] = _unbeaten(distinct[left].size, costs.shape[1], distinct[left].reshape(-1))
    keep[order] = unbeaten[np.cumsum(first) - 1]
    return keep


def _survivors(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of a table that a few good ones do not beat, in order: of many rows hardly more than stay in the end."""
    span = np.ptp(costs, axis=0) if len(costs) else np.zeros(costs.shape[1])
    scaled = (costs - costs.min(0, initial=np.inf)) / np.where(span > 0, span, 1.0)
    left = np.argsort(scaled.sum(1), kind="stable")
    for k in range(JUDGES):
        if k >= len(left):
            break
        judge, others = costs[left[k]], costs[left]
        beaten = (others >= judge).all(1) & (others > judge).any(1)
        left = left[~beaten]
    return np.sort(left)


@loop
def _unbeaten(objectives: int, costs: NDArray[np.float64]) -> list[bool]:
    """Which rows of a table none before them beats; sorted, so that what beats a row comes before it."""
    rows = len(costs) // objectives
    keep = [True] * rows
    front = [0 for _ in range(0)]
    for row in range(rows):
        for at in range(len(front)):
            larger, smaller = False, False
            for k in range(objectives):
                difference = costs[front[at] * objectives + k] - costs[row * objectives + k]
                larger = larger or difference > 0.0
                smaller = smaller or difference < 0.0
            if smaller and not larger:
                keep[row] = False
                # what beats one row often beats the next ones: look at it first
                front[0], front[at] = front[at], front[0]
                break
        if keep[row]:
            front.append(row)
    return keep


@dataclass(slots=True)
class _Analysis:
    sweep: Sweep
    evaluated: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    front: pa.Table | None = None
    sampled: list[pa.Table] = field(default_factory=list)
    fit: AdditiveFit = field(init=False)

    def __post_init__(self) -> None:
        self.fit = AdditiveFit(
            {p.name: BINS if p.continuous else min(len(p.values), MOST_BINS) for p in varied(self.sweep)}
        )

    def add(self, table: pa.Table) -> None:
        sweep = self.sweep
        self.evaluated += table.num_rows
        failed = table["failed"].combine_chunks()
        counts = failed.value_counts().to_pylist()
        for entry in counts:
            if entry["values"] is not None:
                self.reasons[entry["values"]] = self.reasons.get(entry["values"], 0) + entry["counts"]
        fine = table.filter(pa.compute.is_null(table["failed"]))
        step = max(1, sweep.rows // SAMPLE)
        rows = fine["row"].to_numpy()
        self.sampled.append(fine.filter(pa.array(rows % step == 0)))
        if not fine.num_rows:
            return
        self._front(fine)
        logs = {o.column: _log(fine[o.column].to_numpy(zero_copy_only=False)) for o in sweep.objectives}
        self.fit.add({p.name: _bins(p, fine[p.name]) for p in varied(sweep)}, logs)

    def _front(self, fine: pa.Table) -> None:
        both = fine if self.front is None else pa.concat_tables([self.front.unify_dictionaries(), fine])
        signs = np.array([-1.0 if o.maximise else 1.0 for o in self.sweep.objectives])
        costs = np.column_stack([both[o.column].to_numpy(zero_copy_only=False) for o in self.sweep.objectives]) * signs
        self.front = both.filter(pa.array(nondominated(costs))).combine_chunks()


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(values, 1e-300))
    return logs


def _bins(p: Parameter, column: Any) -> NDArray[np.int64]:
    if p.continuous:
        values = column.to_numpy(zero_copy_only=False)
        if p.scale == "log":
            share = (np.log(values) - np.log(p.low)) / (np.log(p.high) - np.log(p.low))
        else:
            share = (values - p.low) / (p.high - p.low)
        bins: NDArray[np.int64] = np.clip((share * BINS).astype(np.int64), 0, BINS - 1)
        return bins
    if isinstance(p.values[0], str):
        number = {v: k for k, v in enumerate(p.values)}
        numbers = np.array([number[v] for v in column.to_pylist()], np.int64)
        return numbers * min(len(number), MOST_BINS) // len(number)
    return ordered_bins([float(v) for v in p.values], column.to_numpy(zero_copy_only=False), MOST_BINS)


def varied(sweep: Sweep) -> Sequence[Parameter]:
    """Parameters that have more than one value."""
    return [p for p in sweep.space.parameters if p.continuous or len(p.values) > 1]


def analyse(store: Store, resumed: int, seconds: float) -> SweepResult:
    """The result of a finished sweep. `resumed` rows were there before; the others took `seconds`."""
    sweep = store.sweep
    analysis = _Analysis(sweep)
    for table in store.tables():
        analysis.add(table)
    axes = tuple(SweepAxis(p.name, _unit(p.name), p.scale == "log") for p in varied(sweep))
    fixed = {p.name: p.values[0] for p in sweep.space.parameters if not p.continuous and len(p.values) == 1}
    objectives = tuple(SweepAxis(o.column, o.unit, True, o.maximise, o.label) for o in sweep.objectives)
    columns = [*(p.name for p in sweep.space.parameters), *(name for name, _ in sweep.derived)]
    every = _points(analysis.front, columns, sweep)
    front = _merged(every, sweep)
    order = {p.row for p in every}
    recommended = _recommended(store, front, columns) if front else None
    computed = sweep.rows - resumed
    result = SweepResult(
        name=sweep.name,
        device=sweep.device.title,
        scheduler=sweep.scheduler,
        method=sweep.method.name,
        parameters=axes,
        fixed=fixed,
        objectives=objectives,
        evaluated=analysis.evaluated,
        failed=sum(analysis.reasons.values()),
        reasons=dict(sorted(analysis.reasons.items(), key=lambda r: (-r[1], r[0]))),
        resumed=resumed,
        configs_per_s=computed / seconds if computed and seconds > 0 else None,
        pareto=front,
        sample=tuple(
            p for t in analysis.sampled if t.num_rows for p in _points(t, columns, sweep) if p.row not in order
        ),
        sensitivity={o.column: analysis.fit.shares(o.column) for o in sweep.objectives},
        interactions={o.column: analysis.fit.interactions(o.column) for o in sweep.objectives},
        recommended=recommended,
        base=store.base(),
        combinations=sweep.space.combinations,
    )
    if recommended is None:
        return result
    return replace(result, warnings=_edges(sweep, analysis.fit, (sweep_phrasing.best(result), recommended)))


def _values(points: Sequence[SweepPoint], sweep: Sweep) -> list[NDArray[np.float64]]:
    return [np.array([p.objectives[o.column] for p in points], np.float64) for o in sweep.objectives]


def _merged(points: Sequence[SweepPoint], sweep: Sweep) -> tuple[SweepPoint, ...]:
    """The points of a front with those that are alike as one, the least hardware of them, by the first objective; and
    without those that another point equals with less."""
    if not points:
        return ()
    chosen, counts = merged(_values(points, sweep), np.array([_hardware(p.parameters, sweep) for p in points]))
    left = [points[k] for k in chosen]
    alike: dict[int, int] = {}
    stand_in = stand_ins(_values(left, sweep), [o.maximise for o in sweep.objectives])
    for k, count in zip(stand_in.tolist(), counts.tolist(), strict=True):
        alike[int(chosen[k])] = alike.get(int(chosen[k]), 0) + count
    return tuple(replace(points[k], alike=alike[k]) for k in sorted(alike))


# Parameters of which more is more chip: units of sizes, counts and rates.
_HARDWARE_UNITS = frozenset(("byte", "count", "byte/s", "1/s", "flop/s", "byte/cycle"))


def _hardware(parameters: Mapping[str, Any], sweep: Sweep) -> float:
    """How much chip a configuration takes: the logarithms of its sizes, counts and rates together."""
    sizes = [
        float(v)
        for name, v in parameters.items()
        if not isinstance(v, str | bool) and v and v > 0 and _counts_as_hardware(name)
    ]
    return float(np.log(sizes).sum()) if sizes else 0.0


def _counts_as_hardware(name: str) -> bool:
    return name == "lanes" or (name in PARAMETERS and PARAMETERS[name].unit in _HARDWARE_UNITS)


def _recommended(store: Store, front: Sequence[SweepPoint], columns: Sequence[str]) -> SweepPoint:
    """The knee of the front over all objectives; or the least hardware of all rows that equal it within EQUAL."""
    sweep = store.sweep
    best = front[knee(costs_of(_values(front, sweep), [o.maximise for o in sweep.objectives]))]
    at = np.array([best.objectives[o.column] for o in sweep.objectives])
    candidates = [best]
    for table in store.tables():
        fine = table.filter(pa.compute.is_null(table["failed"]))
        if fine.num_rows:
            values = np.column_stack([fine[o.column].to_numpy(zero_copy_only=False) for o in sweep.objectives])
            equal = fine.filter(pa.array(near(values, at, EQUAL)))
            candidates += _points(_least_hardware(equal, columns, sweep), columns, sweep)
    return min(candidates, key=lambda p: (round(_hardware(p.parameters, sweep), 9), p.row != best.row, p.row))


def _least_hardware(table: pa.Table, columns: Sequence[str], sweep: Sweep) -> pa.Table:
    """The rows that take the least chip, and those that differ from them by rounding alone."""
    if not table.num_rows:
        return table
    sizes = np.zeros(table.num_rows)
    for name in set(columns).difference(o.column for o in sweep.objectives):
        if _counts_as_hardware(name) and not pa.types.is_dictionary(table[name].type):
            values = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
            sizes += np.log(np.where(values > 0, values, 1.0))
    return table.filter(pa.array(sizes <= sizes.min() + 1e-6))


def _edges(sweep: Sweep, fit: AdditiveFit, points: Sequence[SweepPoint]) -> tuple[str, ...]:
    """Which ranges end where the best or the recommended configuration lies, of parameters that matter."""
    lines = []
    for p in varied(sweep):
        matters = any((fit.shares(o.column).get(p.name) or 0.0) >= MATTERS for o in sweep.objectives)
        if not matters or (p.values and isinstance(p.values[0], str)):
            continue
        numbers = [float(v) for v in p.values] or [p.low, p.high]
        for end, side, further in ((max(numbers), "largest", "larger"), (min(numbers), "smallest", "smaller")):
            if end in span_of(p.name):  # there is nothing beyond it
                continue
            where = [
                word
                for word, point in zip(("best", "recommended"), points, strict=True)
                if abs(point.parameters[p.name] - end) <= 0.01 * abs(end)
            ]
            if where:
                subject = f"the {' and the '.join(where)} configuration {'lie' if len(where) > 1 else 'lies'}"
                text = sweep_phrasing.value(end, _unit(p.name))
                lines.append(
                    f"{subject} on the edge of {p.name}: {text} is the {side} that was tried, and a {further} one may "
                    "be better"
                )
    return tuple(lines)


def _unit(name: str) -> str:
    unit = PARAMETERS[name].unit if name in PARAMETERS else ""
    return {"byte": "B", "byte/s": "B/s", "J/byte": "J/B", "1/s": "Hz", "count": "", "1": "", "0 or 1": ""}.get(
        unit, unit
    )


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
