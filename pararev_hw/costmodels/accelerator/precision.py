"""A layer table at one precision: everything that is left to do once the widths of words are known.

Widths decide which tile takes how much room and what stays on chip from which capacity on; nothing else of a
configuration does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.accelerator import arrays
from pararev_hw.costmodels.accelerator.arrays import Loops
from pararev_hw.costmodels.accelerator.layers import Layer, LayerTable, LocalStorage, Matrix
from pararev_hw.costmodels.accelerator.residency import thresholds
from pararev_hw.costmodels.accelerator.tilings import Widths
from pararev_hw.costmodels.traffic import Floats, Ints


@dataclass(frozen=True, slots=True)
class Distinct:
    """A product as it is tiled and computed at one precision. Thresholds are capacities from which operands stay."""

    matrix: Matrix
    widths: Widths
    input_stays: float
    output_stays: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A layer table at one precision. Arrays [rows, 1] unless said otherwise; bytes at the chip's widths."""

    table: LayerTable
    widths: tuple[float, ...]  # bytes of a word of each kind
    distinct: tuple[Distinct, ...]
    rows_of: tuple[tuple[Ints, Ints], ...]  # (rows, distinct products) of the first, second, ... product of a layer
    vector: Floats
    neuron: Floats
    sram_read: Floats
    sram_write: Floats
    outside_read: Floats  # of storages that enter or leave the task, parameters apart
    outside_write: Floats
    weight_read: Floats
    weight_write: Floats
    inside: tuple[tuple[int, Floats, Floats, Floats], ...]  # row, thresholds, bytes read and written from each on
    works: NDArray[np.bool_]
    weight_bytes: float
    loops: Loops


@dataclass(slots=True)
class Preparations:
    """What one layer table needs at each precision and height of an array, worked out when it is first asked for.

    Every batch of a sweep asks for the same few again.
    """

    table: LayerTable
    _by_widths: dict[tuple[float, ...], Prepared] = field(default_factory=dict, repr=False)
    _busiest: dict[tuple[tuple[float, ...], int, int], Floats] = field(default_factory=dict, repr=False)

    def at(self, widths: tuple[float, ...]) -> Prepared:
        """The table at one precision."""
        if widths not in self._by_widths:
            self._by_widths[widths] = prepare(self.table, widths)
        return self._by_widths[widths]

    def busiest_share(self, t: Prepared, dataflow: int, pe_rows: int) -> Floats:
        """Mean over tiles of the busiest row's share [products] on an array of that height."""
        key = (t.widths, dataflow, pe_rows)
        if key not in self._busiest:
            self._busiest[key] = np.array([_busiest_share(d.matrix, dataflow, pe_rows) for d in t.distinct])
        return self._busiest[key]


def _busiest_share(m: Matrix, dataflow: int, rows: int) -> float:
    """Rows hold input channels where weights stay, and in the weight gradient where outputs do."""
    along_rows = arrays.OUTPUT if m.product.kind == "weight_gradient" else arrays.WEIGHT
    if not m.spiking or dataflow != along_rows:
        return m.share
    return arrays.busiest_share(m.density, m.share, m.product.taps, rows)


_COLUMNS = (
    "vector", "neuron", "sram_read", "sram_write", "outside_read", "outside_write", "weight_read", "weight_write",
)  # fmt: skip


def prepare(table: LayerTable, widths: tuple[float, ...]) -> Prepared:
    scale = [w / table.word_bytes for w in widths]
    n = table.rows
    columns = {name: np.zeros((n, 1)) for name in _COLUMNS}
    works = np.zeros((n, 1), np.bool_)
    distinct: dict[Distinct, int] = {}
    places: list[list[tuple[int, int]]] = []
    inside: list[tuple[int, Floats, Floats, Floats]] = []
    row = 0
    for tasks in table.classes:
        stays = thresholds(tasks.storages, scale)
        for layer in tasks.layers:
            columns["vector"][row], columns["neuron"][row], works[row] = layer.vector, layer.neuron, layer.works
            steps = _moved(layer, tasks.storages, scale, stays, columns, row)
            if steps is not None:
                inside.append((row, *steps))
            for j, m in enumerate(layer.matrices):
                d = _distinct(m, widths, stays)
                k = distinct.setdefault(d, len(distinct))
                if j == len(places):
                    places.append([])
                places[j].append((row, k))
            row += 1
    rows_of = tuple((np.array([r for r, _ in p], np.int64), np.array([k for _, k in p], np.int64)) for p in places)
    products = tuple(distinct)
    return Prepared(
        table=table,
        widths=widths,
        distinct=products,
        rows_of=rows_of,
        vector=columns["vector"],
        neuron=columns["neuron"],
        sram_read=columns["sram_read"],
        sram_write=columns["sram_write"],
        outside_read=columns["outside_read"],
        outside_write=columns["outside_write"],
        weight_read=columns["weight_read"],
        weight_write=columns["weight_write"],
        inside=tuple(inside),
        works=works,
        weight_bytes=table.weight_bytes * scale[1],
        loops=_loops([d.matrix for d in products]),
    )


def _distinct(m: Matrix, widths: tuple[float, ...], stays: Floats) -> Distinct:
    source, out = m.storages
    # what a product of unknown loops moves is among its layer's accesses
    input_, second, output = (widths[w] * m.product.has_loops for w in m.words)
    # where its operands live matters by thresholds alone; storage numbers would keep equal products apart
    plain = replace(m, storages=(-1, -1), density=m.density if m.spiking else ())
    return Distinct(
        plain,
        Widths(input_, second, output, widths[-1] * m.product.has_loops),
        float(stays[source]) if source >= 0 else np.inf,
        float(stays[out]) if out >= 0 else np.inf,
    )


def _moved(
    layer: Layer,
    storages: Sequence[LocalStorage],
    scale: Sequence[float],
    stays: Floats,
    columns: Mapping[str, Floats],
    row: int,
) -> tuple[Floats, Floats, Floats] | None:
    """Enters a layer's elementwise traffic into `columns`; returns the steps of what may stay on chip.

    What enters or leaves the task moves once in the layer, however many of its operations touch it.
    """
    outside: dict[tuple[int, bool], float] = {}
    steps: dict[float, list[float]] = {}
    for a in layer.accesses:
        s = storages[a.storage]
        size = a.bytes * scale[s.word]
        columns["sram_write" if a.write else "sram_read"][row] += size
        if np.isinf(stays[a.storage]):
            outside[a.storage, a.write] = outside.get((a.storage, a.write), 0.0) + size
        else:
            steps.setdefault(float(stays[a.storage]), [0.0, 0.0])[int(a.write)] += size
    for (k, write), size in outside.items():
        s = storages[k]
        once = min(size, s.bytes * scale[s.word])
        stem = "weight" if s.parameter else "outside"
        columns[f"{stem}_{'write' if write else 'read'}"][row] += once
    if not steps:
        return None
    at = sorted(steps)
    left = np.array([steps[t] for t in at])[::-1].cumsum(axis=0)[::-1]  # what moves below threshold k
    left = np.vstack([left, [0.0, 0.0]])
    return np.array(at), left[:, 0], left[:, 1]


def _loops(matrices: Sequence[Matrix]) -> Loops:
    def column(values: Sequence[float]) -> Floats:
        return np.array(values, np.float64).reshape(-1, 1)

    ps = [m.product for m in matrices]
    return Loops(
        column([p.groups for p in ps]), column([p.m for p in ps]), column([p.n for p in ps]),
        column([p.k for p in ps]), column([p.taps for p in ps]), column([m.share for m in matrices]),
        np.array([m.spiking for m in matrices], np.bool_).reshape(-1, 1),
    )  # fmt: skip
