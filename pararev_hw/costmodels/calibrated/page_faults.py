"""Memory that the operating system maps in anew during a step, each page at the price of a fault.

The C library keeps what was let go and hands it out again, but gives the top of its heap back once more than
`kept_bytes` of it are free (glibc's M_TRIM_THRESHOLD, which follows the largest block that it ever let go), and never
keeps a block above MMAP_BYTES. So a step whose live memory falls by more than that pays for it again when it rises:

    high    falls to what is live when high - live > kept_bytes, rises to what is live when live > high
    mapped  every rise of high, in the second of two steps that follow each other

Small steps map in nothing. `kept_bytes` and what a mapped byte costs in a step are seen in whole steps.
"""

from __future__ import annotations

import numpy as np

from pararev_hw.costmodels.allocator.workspace import LibraryRule, workspace_bytes
from pararev_hw.costmodels.calibrated.cache_model import MMAP_BYTES
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import BlockGraph


def mapped_bytes(graph: BlockGraph, kept_bytes: float, rule: LibraryRule) -> Floats:
    """Bytes mapped in by each op of a step that follows another one like it."""
    n = len(graph.ops)
    change = np.zeros(n + 2)
    mapped = np.zeros(n)
    for s in graph.storages:
        if s.born < 0:
            continue
        if s.bytes > MMAP_BYTES:
            mapped[s.born] += s.bytes
        else:
            change[s.born] += s.bytes
            change[min(s.freed, n) + 1] -= s.bytes
    extra = [workspace_bytes(t, rule=rule) for t in graph.op_types]
    live = np.cumsum(change)[:n].tolist()
    most = [here + extra[op.type] for here, op in zip(live, graph.ops, strict=True)]
    high = 0.0
    for second in (False, True):
        for k in range(n):
            if most[k] > high:
                if second:
                    mapped[k] += most[k] - high
                high = most[k]
            if high - live[k] > kept_bytes:
                high = live[k]
    return mapped
