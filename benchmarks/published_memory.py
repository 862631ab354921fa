"""Batch sizes that fit, beside timm's tables: `python benchmarks/published_memory.py --data ../shared/gpu`.

Each network ran at the batch given on a card of 24 GB, and (below 512) not at the next larger one of the series. Memory
of the next batch is that of this one, its part that grows with the batch scaled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from published_tables import rows_of, timm_steps

from pararev_hw.devices import load_device
from pararev_hw.graph.process_memory import process_memory
from pararev_hw.validation.published_networks import Workload

SERIES = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1)
USABLE_BYTES = int(load_device("rtx3090").value("memory_bytes"))
_PERSISTENT = ("parameter", "optimizer", "buffer", "gradient")


def peak_and_persistent(work: Workload) -> tuple[int, int]:
    """Peak of live tensors in blocks of 512 bytes, and what of it does not grow with the batch."""
    ops = len(work.roles)
    change = np.zeros(ops + 2, np.int64)
    persistent = 0
    for s in work.storages:
        size = -(-s.bytes // 512) * 512
        change[max(s.born, 0)] += size
        change[min(s.freed, ops) + 1] -= size
        persistent += size if s.role in _PERSISTENT else 0
    return int(np.cumsum(change).max()), persistent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--traces", type=Path, default=Path("published-traces"), help="where traces are kept")
    options = parser.parse_args()
    rows = {row["model"]: row for row in rows_of(options.data / "timm-train-amp-nchw-rtx3090.csv")}
    (block,) = timm_steps(options.data, options.traces, "nchw")
    right = 0
    for name, work in zip(block.tags, block.workloads, strict=True):
        batch = int(rows[name]["train_batch_size"])
        peak, persistent = peak_and_persistent(work)
        fits = process_memory(peak).least_bytes <= USABLE_BYTES
        larger = SERIES[SERIES.index(batch) - 1] if batch in SERIES and batch < SERIES[0] else None
        grown = None if larger is None else persistent + (peak - persistent) * larger // batch
        refused = grown is None or process_memory(grown).least_bytes > USABLE_BYTES
        right += fits and refused
        if not (fits and refused):
            shown = "-" if grown is None else f"{grown / 2**30:.1f}"
            print(f"{name:44s} batch {batch:4d}: peak {peak / 2**30:5.1f} GiB, next batch {larger}: {shown} GiB")
    print(f"{right} of {len(block.tags)} networks: fits at the batch given and not at the next larger one")


if __name__ == "__main__":
    main()
