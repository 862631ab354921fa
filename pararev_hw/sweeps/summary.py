"""What the analysis needs of rows, made where they are evaluated: whoever gathers a sweep reads its rows no more.

Counts, the fronts, some rows for pictures and the sums of the sensitivity's fit. Summaries of parts are added in any
order, with the same result: the front of fronts is the front of all their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pararev_hw.sweeps.arrow_arrays import arrow_array, numpy_array
from pararev_hw.sweeps.columns import Floats, Ints
from pararev_hw.sweeps.dominance import nondominated
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.problem import Table
from pararev_hw.sweeps.sensitivity import AdditiveFit, ordered_bins
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.store import as_arrow, encode
from pararev_hw.sweeps.workloads import Workload, split, workload_columns

BINS = 16  # of a range without steps
MOST_BINS = 64  # of listed values, of which a range may have a million
SAMPLE = 1500  # configurations kept for pictures
WAITING = 16_384  # rows of parts' fronts that are gathered before they are compared


class Part(NamedTuple):
    """The rows of a part as a Parquet file, and what the analysis needs of them."""

    data: bytes
    summary: Summary


def part_of(sweep: Sweep, start: int, table: Table) -> Part:
    """The rows from `start` on as a part."""
    rows = as_arrow(sweep, start, table)
    return Part(encode(rows), summary_of(sweep, rows))


@dataclass(slots=True)
class Summary:
    """Of the rows of some parts. `objectives` are columns, and whether more of them is better."""

    objectives: tuple[tuple[str, bool], ...]
    fit: AdditiveFit
    evaluated: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    sampled: list[pa.Table] = field(default_factory=list)  # possible rows for pictures
    _fronts: dict[Workload, list[pa.Table]] = field(default_factory=dict)  # of each workload, and () of all rows

    def add(self, other: Summary) -> None:
        """Count other rows in."""
        self.evaluated += other.evaluated
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        self.sampled += other.sampled
        self.fit.merge(other.fit)
        for workload, tables in other._fronts.items():
            waiting = self._fronts.setdefault(workload, [])
            waiting += tables
            if sum(t.num_rows for t in waiting[1:]) > max(WAITING, waiting[0].num_rows):
                self._fronts[workload] = [self._front(waiting)]

    @property
    def front_rows(self) -> int:
        """Rows that may be on a front: those that are, and few more."""
        return sum(t.num_rows for tables in self._fronts.values() for t in tables)

    def extend(self, workload: Workload, rows: pa.Table) -> None:
        """Count the front of possible rows in."""
        self._fronts.setdefault(workload, []).append(self._front([rows]))

    def fronts(self) -> Iterator[tuple[Workload, pa.Table]]:
        """The rows that none beats: of each workload, and () of all rows."""
        for workload, tables in self._fronts.items():
            yield workload, self._front(tables)

    def _front(self, tables: Sequence[pa.Table]) -> pa.Table:
        both = pa.concat_tables(tables).unify_dictionaries()
        signs = np.array([-1.0 if maximise else 1.0 for _, maximise in self.objectives])
        costs = np.column_stack([numpy_array(both[name]) for name, _ in self.objectives]) * signs
        return both.filter(arrow_array(nondominated(costs))).combine_chunks()


def empty_summary(sweep: Sweep) -> Summary:
    """Of no rows yet."""
    sizes = {p.name: BINS if p.continuous else min(len(p.values), MOST_BINS) for p in varied(sweep)}
    return Summary(tuple((o.column, o.maximise) for o in sweep.objectives), AdditiveFit(sizes))


def summary_of(sweep: Sweep, table: pa.Table) -> Summary:
    """Of the rows of a part."""
    summary = empty_summary(sweep)
    summary.evaluated = table.num_rows
    for entry in table["failed"].combine_chunks().value_counts().to_pylist():
        if entry["values"] is not None:
            summary.reasons[entry["values"]] = entry["counts"]
    fine = table.filter(pc.is_null(table["failed"]))
    if not fine.num_rows:
        return summary
    sampled = fine.filter(arrow_array(numpy_array(fine["row"]) % max(1, sweep.rows // SAMPLE) == 0))
    summary.sampled += [sampled] if sampled.num_rows else []
    summary.extend((), fine)
    for workload, rows_of_it in split(fine, workload_columns(sweep)).items():
        summary.extend(workload, rows_of_it)
    logs = {o.column: _log(numpy_array(fine[o.column])) for o in sweep.objectives}
    summary.fit.add({p.name: _bins(p, fine[p.name]) for p in varied(sweep)}, logs)
    return summary


def varied(sweep: Sweep) -> Sequence[Parameter]:
    """Parameters that have more than one value."""
    return [p for p in sweep.space.parameters if p.continuous or len(p.values) > 1]


def _log(values: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(values, 1e-300))
    return logs


def _bins(p: Parameter, column: Any) -> Ints:
    if p.continuous:
        values = numpy_array(column)
        if p.scale == "log":
            share = (np.log(values) - np.log(p.low)) / (np.log(p.high) - np.log(p.low))
        else:
            share = (values - p.low) / (p.high - p.low)
        bins: Ints = np.clip((share * BINS).astype(np.int64), 0, BINS - 1)
        return bins
    if isinstance(p.values[0], str):
        number = {v: k for k, v in enumerate(p.values)}
        words = column.combine_chunks()
        of_word = np.array([number[v] for v in words.dictionary.to_pylist()], np.int64)
        numbers: Ints = of_word[numpy_array(words.indices)]
        return np.asarray(numbers * min(len(number), MOST_BINS) // len(number), np.int64)
    return ordered_bins([float(v) for v in p.values], numpy_array(column), MOST_BINS)
