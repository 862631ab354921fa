"""What the finished rows say: the Pareto front, how much each parameter matters, why configurations failed.

Rows are read a row group at a time, and what is kept of them is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pararev_hw.compiled import loop
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.store import Store
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult

BINS = 16  # of a range without steps
SAMPLE = 1500  # configurations kept for pictures


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
    keep[order] = _unbeaten(costs.size, costs.shape[1], costs[order].reshape(-1))
    return keep


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
class _Effect:
    """Running sums of an objective over the values, or bins, of a parameter."""

    count: NDArray[np.float64]
    total: NDArray[np.float64]

    def add(self, bins: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        self.count += np.bincount(bins, minlength=len(self.count))
        self.total += np.bincount(bins, values, minlength=len(self.total))


@dataclass(slots=True)
class _Analysis:
    sweep: Sweep
    evaluated: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    front: pa.Table | None = None
    sampled: list[pa.Table] = field(default_factory=list)
    squares: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    good: int = 0
    effects: dict[tuple[str, str], _Effect] = field(default_factory=dict)

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
        self.good += fine.num_rows
        logs = {o.column: _log(fine[o.column].to_numpy(zero_copy_only=False)) for o in sweep.objectives}
        for column, values in logs.items():
            self.sums[column] = self.sums.get(column, 0.0) + float(values.sum())
            self.squares[column] = self.squares.get(column, 0.0) + float((values**2).sum())
        for p in varied(sweep):
            bins = _bins(p, fine[p.name])
            size = BINS if p.continuous else len(p.values)
            for column, values in logs.items():
                effect = self.effects.setdefault((column, p.name), _Effect(np.zeros(size), np.zeros(size)))
                effect.add(bins, values)

    def _front(self, fine: pa.Table) -> None:
        both = fine if self.front is None else pa.concat_tables([self.front.unify_dictionaries(), fine])
        signs = np.array([-1.0 if o.maximise else 1.0 for o in self.sweep.objectives])
        costs = np.column_stack([both[o.column].to_numpy(zero_copy_only=False) for o in self.sweep.objectives]) * signs
        self.front = both.filter(pa.array(nondominated(costs))).combine_chunks()

    def sensitivity(self, column: str, parameter: str) -> float | None:
        """Share of the variance of log(objective) that the parameter's value explains by itself (first order)."""
        effect = self.effects.get((column, parameter))
        if effect is None or not self.good:
            return None
        mean = self.sums[column] / self.good
        variance = self.squares[column] / self.good - mean**2
        if variance <= 1e-18 * max(1.0, mean**2):
            return 0.0
        seen = effect.count > 0
        means = effect.total[seen] / effect.count[seen]
        between = float((effect.count[seen] * (means - mean) ** 2).sum()) / self.good
        return min(1.0, max(0.0, between / variance))


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
        return np.array([number[v] for v in column.to_pylist()], np.int64)
    order = np.argsort(np.array(p.values, np.float64))
    ordered = np.array(p.values, np.float64)[order]
    at: NDArray[np.int64] = order[
        np.searchsorted(ordered, column.to_numpy(zero_copy_only=False)).clip(0, len(order) - 1)
    ]
    return at


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
    front = _points(analysis.front, columns, sweep)
    order = {p.row for p in front}
    computed = sweep.rows - resumed
    return SweepResult(
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
        sensitivity={
            o.column: {p.name: analysis.sensitivity(o.column, p.name) for p in varied(sweep)} for o in sweep.objectives
        },
        combinations=sweep.space.combinations,
    )


def _unit(name: str) -> str:
    from pararev_hw.devices import PARAMETERS

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
