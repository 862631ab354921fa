"""What one configuration does with a step's layers, in words: which are split and how, what spills, what stays."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pararev_hw.costmodels.accelerator.configs import ConfigTable, word_bytes
from pararev_hw.costmodels.accelerator.precision import Distinct, Preparations, Prepared
from pararev_hw.costmodels.accelerator.residency import thresholds
from pararev_hw.costmodels.accelerator.tilings import Widths, staircase

_WAYS = ("samples and time steps", "rows of an image", "output channels", "input channels")


def notes(preparations: Preparations, configs: ConfigTable) -> tuple[str, ...]:
    """Sentences about the first of the configurations."""
    widths = tuple(word_bytes(configs, preparations.table.word_bytes)[:, 0].tolist())
    sram = float(configs.value("sram_bytes_per_lane")[0])
    tiles = sram * float(configs.get("sram_tile_share", 0.5)[0])
    weights = sram * float(configs.get("sram_weight_share", 0.25)[0])
    t = preparations.at(widths)
    sentences = [_splits(t, tiles, sram - tiles - weights), *_spills(t, widths, sram - tiles - weights)]
    sentences.append(_resident(t, configs, weights))
    if any(configs.gives(n) for n in ("activation_bits", "weight_bits", "spike_bits")):
        bits = ", ".join(
            f"{w * 8:g} bit {n}" for n, w in zip(("activations", "weights", "spikes"), widths, strict=False)
        )
        sentences.append(
            f"on the chip words are as wide as its figures say ({bits}); memory curves count the traced datatype"
        )
    return tuple(s for s in sentences if s)


def _splits(t: Prepared, tiles: float, staying: float) -> str:
    """How many products are too large for a core to move each tensor once, and along what they are cut."""
    runs = np.bincount(t.table.class_of_task, minlength=len(t.table.classes))
    of_row = np.repeat(runs, np.diff(t.table.starts))
    ways: Counter[str] = Counter()
    total = once = spilled = 0
    for rows, distinct in t.rows_of:
        for row, k in zip(rows.tolist(), distinct.tolist(), strict=True):
            d, times = t.distinct[k], int(of_row[row])
            if not d.matrix.product.has_loops:
                continue
            cut, spills = _cut(d, tiles, staying)
            total += times
            once += times * (not cut)
            spilled += times * spills
            for way in cut:
                ways[way] += times
    if not total:
        return ""
    if once == total:
        return f"all {total} products move each of their tensors to and from the core once"
    cuts = ", ".join(f"{ways[w]} over {w}" for w in _WAYS if ways[w])
    back = f"; partial sums of {spilled} leave the core and come back" if spilled else ""
    return f"{total - once} of {total} products do not fit a core and move something more than once, split {cuts}{back}"


def _cut(d: Distinct, tiles: float, staying: float) -> tuple[tuple[str, ...], bool]:
    """Along what a product is cut, nothing where that costs no traffic; and whether its partial sums leave the core."""
    p, w = d.matrix.product, d.widths
    per_element = Widths(
        0.0 if staying >= d.input_stays else w.input, w.second, 0.0 if staying >= d.output_stays else w.output, w.sum
    )
    stairs = staircase(p, per_element)
    step = int(stairs.at(np.array([tiles]))[0])
    if step in (-1, len(stairs.room_bytes) - 1):
        return (), False
    sizes = (p.images, p.rows, p.outputs, p.inputs)
    cut = tuple(way for way, tile, size in zip(_WAYS, stairs.tile[step].tolist(), sizes, strict=True) if tile < size)
    return cut, bool(stairs.output_read_bytes[step] > 0)


def _spills(t: Prepared, widths: tuple[float, ...], staying: float) -> tuple[str, ...]:
    """What tasks make, use and drop, but cannot keep on the chip meanwhile."""
    scale = [w / t.table.word_bytes for w in widths]
    runs = np.bincount(t.table.class_of_task, minlength=len(t.table.classes))
    all_, spilled, size = 0, 0, 0.0
    for tasks, times in zip(t.table.classes, runs.tolist(), strict=True):
        stays = thresholds(tasks.storages, scale)
        for s, threshold in zip(tasks.storages, stays.tolist(), strict=True):
            all_ += times * s.inside
            if s.inside and threshold > staying:
                spilled += times
                size += times * s.bytes * scale[s.word]
    if not all_:
        return ()
    if not spilled:
        return (f"all {all_} tensors that live inside one task stay in its core, membranes among them",)
    return (
        f"{spilled} of {all_} tensors that live inside one task spill to the main memory, {size / 2**20:.4g} MiB "
        f"in all: a core keeps {staying / 2**10:.4g} KiB between operations",
    )


def _resident(t: Prepared, configs: ConfigTable, weights: float) -> str:
    """How much of the weights stays on the chip over the step."""
    if t.weight_bytes <= 0:
        return ""
    buffer = float(configs.get("global_buffer_bytes", 0.0)[0])
    pool = buffer * float(configs.get("global_buffer_weight_share", 0.5)[0]) if buffer else weights * configs.lanes[0]
    where = "the global buffer" if buffer else "the cores' memories together"
    share = min(1.0, pool / t.weight_bytes)
    return f"{share:.0%} of the weights stay in {where} over the step, taken for the same share of every layer"
