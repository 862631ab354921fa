"""Several networks in one sweep: what each of them asks for, and the configuration that serves all of them.

A workload is a network, or a network in a mode, where several of them are swept. Their times differ whatever the chip,
so a front over all rows shows the lightest network; each workload has a front of its own, with its own best
configuration and its own knee. The configuration that serves all is the knee of the front of geometric means over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pararev_hw.reports.sweep_phrasing import WORKLOAD
from pararev_hw.sweeps.arrow_arrays import numpy_array
from pararev_hw.sweeps.chip_size import hardware
from pararev_hw.sweeps.dominance import nondominated
from pararev_hw.sweeps.front import EQUAL, knee
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.store import Store

MOST_ROWS = 1_000_000  # among which a configuration for all workloads is looked for

Workload = tuple[str, ...]


def workload_parameters(sweep: Sweep) -> tuple[Parameter, ...]:
    """What tells one workload from another; none where there is one workload."""
    return tuple(p for p in sweep.space.parameters if p.name in WORKLOAD and len(p.values) > 1)


def workload_columns(sweep: Sweep) -> tuple[str, ...]:
    """Their names."""
    return tuple(p.name for p in workload_parameters(sweep))


def split(table: pa.Table, columns: Sequence[str]) -> dict[Workload, pa.Table]:
    """The rows of each workload; nothing where no column tells them apart."""
    if not columns:
        return {}
    tables: dict[Workload, pa.Table] = {(): table}
    for c in columns:
        words = sorted(pc.unique(table[c].cast(pa.string())).to_pylist())
        tables = {(*w, word): rows_of(rows, {c: word}) for w, rows in tables.items() for word in words}
    return {w: rows for w, rows in tables.items() if rows.num_rows}


def rows_of(table: pa.Table, values: Mapping[str, str]) -> pa.Table:
    """The rows with these values."""
    for name, value in values.items():
        table = table.filter(pc.equal(table[name], value))
    return table


def shared_rows(store: Store, workloads: int) -> pa.Table | None:
    """The rows, one of each workload, of the configuration that serves all of them best; None where none was evaluated
    with every workload, or there are too many to look through."""
    sweep = store.sweep
    if sweep.rows > MOST_ROWS or workloads < 2:
        return None
    columns = workload_columns(sweep)
    names = [p.name for p in sweep.space.parameters if p.name not in columns]
    tables = [_logs(t.filter(pc.is_null(t["failed"])), names, sweep) for t in store.tables()]
    objectives = [f"log {o.column}" for o in sweep.objectives]
    means = pa.concat_tables(tables).group_by(names).aggregate([(o, "mean") for o in objectives] + [("row", "list")])
    complete = means.filter(pc.equal(pc.list_value_length(means["row_list"]), workloads))
    if not complete.num_rows:
        return None
    costs = np.column_stack([numpy_array(complete[f"{o}_mean"]) for o in objectives])
    costs *= np.array([-1.0 if o.maximise else 1.0 for o in sweep.objectives])
    front = np.flatnonzero(nondominated(costs))
    best = front[knee(costs[front])]
    equal = np.flatnonzero((np.abs(costs - costs[best]) <= np.log1p(EQUAL)).all(1))
    sizes = {int(k): hardware({n: complete[n][int(k)].as_py() for n in names}, sweep) for k in equal}
    chosen = min(sizes, key=lambda k: (round(sizes[k], 9), k != best, k))
    rows = complete["row_list"][chosen].values
    return pa.concat_tables([t.filter(pc.is_in(t["row"], rows)) for t in store.tables()])


def _logs(fine: pa.Table, names: Sequence[str], sweep: Sweep) -> pa.Table:
    """The parameters of rows, words as plain text, beside the logarithms of their objectives."""
    columns = {"row": fine["row"]}
    columns |= {n: fine[n].cast(pa.string()) if pa.types.is_dictionary(fine[n].type) else fine[n] for n in names}
    columns |= {f"log {o.column}": pc.ln(pc.max_element_wise(fine[o.column], 1e-300)) for o in sweep.objectives}
    return pa.table(columns)
