"""What the distinct products of a table cost on each configuration: arrays, tilings, and what skipping zeros saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.accelerator import arrays
from pararev_hw.costmodels.accelerator.configs import ConfigTable, by_datatype
from pararev_hw.costmodels.accelerator.precision import Distinct, Preparations, Prepared
from pararev_hw.costmodels.accelerator.tilings import Staircase, Widths, staircase
from pararev_hw.costmodels.traffic import Floats


@dataclass(frozen=True, slots=True)
class ProductCosts:
    """What distinct products cost: arrays [products, configurations]. `remote`: resident weights read, in bytes."""

    seconds: Floats
    misfit: Floats  # 1 where not even the smallest tile fits
    macs: Floats
    sops: Floats
    events: Floats
    registers: Floats
    sram_read: Floats
    sram_write: Floats
    buffer: Floats
    dram: Floats
    remote: Floats


@dataclass(frozen=True, slots=True)
class Room:
    """Capacities [configurations] for operands that stay, tiles of a core, tiles outside it; bytes of the global
    buffer; and the share of the weights that stays on chip."""

    staying: Floats
    tiles: Floats
    outer: Floats
    buffer: Floats
    resident: Floats


def product_costs(shares: Preparations, t: Prepared, configs: ConfigTable, room: Room) -> ProductCosts:
    count, n = len(t.distinct), configs.count
    inner_in, inner_out, dram, buffered, remote, misfit = (np.zeros((count, n)) for _ in range(6))
    same = not np.any(room.buffer > 0)
    for k, d in enumerate(t.distinct):
        resident_operands = (room.staying >= d.input_stays, room.staying >= d.output_stays)
        near = _tiled(d, resident_operands, room.tiles)
        far = near if same else _tiled(d, resident_operands, room.outer)
        near_share = room.resident if d.matrix.resident else 0.0
        inner_in[k] = near.input + near.second + near.out_read
        inner_out[k] = near.out_write
        dram[k] = far.input + far.second * (1 - near_share) + far.out_read + far.out_write
        buffered[k] = near.input + near.second + near.out_read + near.out_write
        remote[k] = near.second * near_share
        misfit[k] = near.misfit

    work = _worked(shares, t, configs)
    widths = np.array([[d.widths.input, d.widths.second, d.widths.sum] for d in t.distinct]).reshape(-1, 3)
    bytes_in, bytes_second, bytes_sum = (widths[:, j : j + 1] for j in range(3))
    loops = t.loops
    macs = loops.groups * loops.m * loops.n * loops.k
    skipping = loops.skippable & _skips(t, configs)
    operations = np.where(skipping, loops.share, 1.0) * macs
    per_pe = by_datatype(configs, "pe_macs_per_cycle", t.table.dtype, 1.0)
    return ProductCosts(
        seconds=work.cycles / (per_pe * configs.value("clock_hz")),
        misfit=misfit,
        macs=np.where(skipping, 0.0, macs),
        sops=np.where(skipping, operations, 0.0),
        events=np.where(skipping, operations / (loops.n * loops.taps), 0.0),
        registers=operations * (bytes_in + bytes_second + 2 * bytes_sum),
        sram_read=work.input_reads * bytes_in
        + work.second_reads * bytes_second
        + work.sum_reads * bytes_sum
        + inner_out,
        sram_write=work.sum_writes * bytes_sum + inner_in,
        buffer=buffered,
        dram=dram,
        remote=remote,
    )


@dataclass(frozen=True, slots=True)
class _Tiled:
    """Traffic of one product into and out of a memory, bytes [configurations]."""

    input: Floats
    second: Floats
    out_read: Floats
    out_write: Floats
    misfit: NDArray[np.bool_]


def _tiled(d: Distinct, stays: tuple[NDArray[np.bool_], NDArray[np.bool_]], capacity: Floats) -> _Tiled:
    code = stays[0] * 1 + stays[1] * 2
    if np.isinf(d.input_stays) and np.isinf(d.output_stays):  # the common case, and it needs no copies
        stairs = staircase(d.matrix.product, d.widths)
        step = stairs.at(capacity)
        first, second, read, write = (v[np.maximum(step, 0)] for v in _columns(stairs))
        return _Tiled(first, second, read, write, step < 0)
    parts = []
    for c in np.unique(code):
        at = np.flatnonzero(code == c)
        stairs = staircase(d.matrix.product, _with_staying(d.widths, bool(c & 1), bool(c & 2)))
        parts.append((at, stairs, stairs.at(capacity[at])))
    into = [np.empty(len(capacity)) for _ in range(4)]
    misfit = np.empty(len(capacity), np.bool_)
    for at, stairs, step in parts:
        misfit[at] = step < 0
        whole = np.maximum(step, 0)
        for out, values in zip(into, _columns(stairs), strict=True):
            out[at] = values[whole]
    return _Tiled(into[0], into[1], into[2], into[3], misfit)


def _columns(s: Staircase) -> tuple[Floats, Floats, Floats, Floats]:
    return s.input_bytes, s.second_bytes, s.output_read_bytes, s.output_write_bytes


def _with_staying(w: Widths, input_stays: bool, output_stays: bool) -> Widths:
    return Widths(0.0 if input_stays else w.input, w.second, 0.0 if output_stays else w.output, w.sum)


def _skips(t: Prepared, configs: ConfigTable) -> NDArray[np.bool_]:
    """Whether each product skips its zeros on each configuration [products, configurations]."""
    gradient = np.array([d.matrix.product.kind == "weight_gradient" for d in t.distinct], np.bool_).reshape(-1, 1)
    skips = (configs.get("zero_skipping", 0.0) > 0) | (configs.value("dataflow") == arrays.EVENT)
    skipped: NDArray[np.bool_] = skips & (~gradient | (configs.get("weight_gradient_skipping", 0.0) > 0))
    return skipped


def _worked(shares: Preparations, t: Prepared, configs: ConfigTable) -> arrays.Work:
    flow = configs.value("dataflow")
    shape = (len(t.distinct), configs.count)
    into = [np.zeros(shape) for _ in range(5)]
    skips = _skips(t, configs)
    for code in np.unique(flow):
        at = np.flatnonzero(flow == code)
        some = configs.take(at)
        rows, columns = some.value("pe_rows"), some.value("pe_columns")
        work = arrays.on_array(
            t.loops, int(code), rows, columns, some.get("systolic", 0.0), skips[:, at],
            some.get("event_overhead_cycles", 0.0), _busiest(shares, t, int(code), rows),
        )  # fmt: skip
        values = (work.cycles, work.input_reads, work.second_reads, work.sum_reads, work.sum_writes)
        for out, v in zip(into, values, strict=True):
            out[:, at] = v
    return arrays.Work(*into)


def _busiest(shares: Preparations, t: Prepared, dataflow: int, rows: Floats) -> Floats:
    """Mean over tiles of the busiest row's share [products, configurations]."""
    sizes, back = np.unique(rows, return_inverse=True)
    return np.stack([shares.busiest_share(t, dataflow, int(r)) for r in sizes], axis=1)[:, back.reshape(-1)]
