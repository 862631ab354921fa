"""Memory that the operating system maps in anew during a step, each page at the price of a fault.

The C library keeps what was let go and hands it out again, but gives the top of its heap back once more than
`kept_bytes` of it are free (glibc's M_TRIM_THRESHOLD, which follows the largest block that it ever let go), and never
keeps a block above MMAP_BYTES. So a step whose live memory falls by more than that pays for it again when it rises:

    high    falls to what is live when high - live > kept_bytes, rises to what is live when live > high
    mapped  every rise of high, in the second of two steps that follow each other

Small steps map in nothing. `kept_bytes` and what a mapped byte costs in a step are seen in whole steps. An allocator
that is set to map smaller blocks afresh (M_MMAP_THRESHOLD) is seen in replayed steps: of a block of b bytes the share
1 / (1 + (MAPPED / b)^4), a smooth step since a block above the threshold may still find room in the heap. How much
room there is depends on what ran in the process before: where steps were counted, the sum is what they had mapped in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pararev_hw.costmodels.allocator.workspace import LibraryRule, workspace_bytes
from pararev_hw.costmodels.calibrated.cache_model import MMAP_BYTES
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import BlockGraph, Estimate, Profile

MAPPED = "mapped_block_bytes"  # the name among a profile's host figures of MAPPED, where the allocator was seen to map
_IN_A_STEP = "mapped_in_a_step_bytes"  # its name among the corrections of a profile that follows such a process
_SHARPNESS = 4  # judged: drawn networks and strangers, blocks above 128 KiB mapped
_SMALLEST_BYTES = 16 << 10  # that an allocator could be set to map afresh


def mapped_bytes(
    graph: BlockGraph, kept_bytes: float, rule: LibraryRule, mapped_block_bytes: float | None = None
) -> Floats:
    """Bytes mapped in by each op of a step that follows another one like it.

    `mapped_block_bytes`: of a block, half of which is mapped afresh; None where only those above MMAP_BYTES are.
    """
    n = len(graph.ops)
    storages = [s for s in graph.storages if s.born >= 0]
    size = np.array([s.bytes for s in storages], np.float64)
    born = np.array([s.born for s in storages], np.int64)
    extra = np.array([workspace_bytes(t, rule=rule) for t in graph.op_types], np.float64)
    extra = extra[[op.type for op in graph.ops]]
    block, workspace = (b * _share(b, mapped_block_bytes) for b in (size, extra))
    mapped: Floats = workspace + np.bincount(born, block, n)[:n]
    change = np.bincount(born, size - block, n + 2)
    change -= np.bincount(np.array([min(s.freed, n) + 1 for s in storages], np.int64), size - block, n + 2)
    live = np.cumsum(change)[:n].tolist()
    most = (np.cumsum(change)[:n] + extra - workspace).tolist()
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


def mapping(profile: Profile, step_bytes: float) -> Profile:
    """The profile of the same machine for a process whose step has so much memory mapped in."""
    return replace(profile, corrections={**profile.corrections, _IN_A_STEP: Estimate(step_bytes)})


def mapped_in_process(graph: BlockGraph, profile: Profile, rule: LibraryRule) -> Floats:
    """Bytes mapped in by each op of a step as far as the profile tells: none where no step has shown when that
    happens."""
    corrections, host = profile.corrections, profile.host
    if not {"kept_bytes", _IN_A_STEP} & corrections.keys() and MAPPED not in host:
        return np.zeros(len(graph.ops))
    kept_bytes = corrections["kept_bytes"].value if "kept_bytes" in corrections else math.inf
    mapped = mapped_bytes(graph, kept_bytes, rule, mapped_block_bytes(profile))
    if _IN_A_STEP not in corrections:
        return mapped
    if not mapped.any():
        mapped = np.array([float(graph.op_types[op.type].write_bytes) for op in graph.ops])
    return mapped * (corrections[_IN_A_STEP].value / max(float(mapped.sum()), 1.0))


def mapped_block_bytes(profile: Profile) -> float | None:
    """Of a block, half of which the allocator maps afresh; None where it was not seen to map small ones."""
    return profile.host[MAPPED].value if MAPPED in profile.host else None


def fitted_mapped_block(steps: Sequence[tuple[BlockGraph, Floats]], rule: LibraryRule) -> Mapping[str, Estimate]:
    """MAPPED by name, under which steps map in what they were seen to, [ops] each; none where they mapped in nothing
    or blocks as large as ever."""
    seen_bytes = [float(by_op.sum()) for _, by_op in steps]
    blocks = [_blocks(graph, rule) for graph, _ in steps]

    def misfit(candidate_bytes: float) -> float:
        predicted_bytes = (float(b @ _share(b, candidate_bytes)) for b in blocks)
        return sum(abs(p - seen) for p, seen in zip(predicted_bytes, seen_bytes, strict=True))

    candidates = np.geomspace(_SMALLEST_BYTES, MMAP_BYTES, 67).tolist()
    best = min(candidates, key=misfit)
    return {} if best == candidates[-1] or misfit(best) >= sum(seen_bytes) else {MAPPED: Estimate(best)}


def _blocks(graph: BlockGraph, rule: LibraryRule) -> Floats:
    """Bytes of each block that the ops of a step make."""
    extra = [workspace_bytes(t, rule=rule) for t in graph.op_types]
    sizes = [s.bytes for s in graph.storages if s.born >= 0] + [extra[op.type] for op in graph.ops]
    return np.array(sizes, np.float64)


def _share(block_bytes: Floats, mapped_block_bytes: float | None) -> Floats:
    """The share of blocks that is mapped afresh each time."""
    if mapped_block_bytes is None:
        return (block_bytes > MMAP_BYTES).astype(np.float64)
    share: Floats = 1.0 / (1.0 + (mapped_block_bytes / np.maximum(block_bytes, 1.0)) ** _SHARPNESS)
    return share
