"""Which bytes an op finds in a cache: by how much traffic there was since they were last touched.

The distance of an access is the bytes that the step moved between it and the last access to the same memory. A cache
of C bytes lost them with the share 1 / (1 + (C / distance)^4): a smooth step, since replacement is not exact and other
data compete. Memory that exists before the step was last touched in the step before. Memory made in the step comes from
the allocator, which gives back the block of that size that was let go last; where there is none it comes from afar, as
does every block above MMAP_BYTES, which the operating system hands out fresh. An op's code and its library's
bookkeeping were last touched where an op of the same name ran.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from pararev_hw.costmodels.traffic import Floats, Ints, Traffic
from pararev_hw.types import BlockGraph

MMAP_BYTES = 32 << 20  # glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64-bit machines: above it every block is mapped afresh
_SHARPNESS, _CODE_SHARPNESS = 4, 2  # judged; code that ran less than some ten ops ago is there
OTHER_OPS = 30  # of some ten KiB of code each: about what the second-level cache holds beside data


def miss_share(distance_bytes: Floats, capacity_bytes: float) -> Floats:
    """The share of the bytes last touched so long ago that a cache of that capacity no longer holds them."""
    ratio = np.divide(
        capacity_bytes, distance_bytes, out=np.full(np.shape(distance_bytes), np.inf), where=distance_bytes > 0
    )
    share: Floats = 1.0 / (1.0 + np.minimum(ratio, 1e6) ** _SHARPNESS)
    return share


def miss_bytes(graph: BlockGraph, flow: Traffic, capacities: tuple[float, ...]) -> tuple[Floats, ...]:
    """For each cache, the bytes that each op has to fetch from beyond it. Arrays are indexed by op."""
    n = len(graph.ops)
    types = [graph.op_types[op.type] for op in graph.ops]
    read = np.fromiter((t.read_bytes for t in types), np.float64, n)
    written_bytes = np.fromiter((t.write_bytes for t in types), np.float64, n)
    before = np.concatenate(([0.0], np.cumsum(read + written_bytes)))  # traffic ahead of each op, and of the whole step

    touches = read + written_bytes > 0  # a view looks at memory without touching it
    reads, writes = touches[flow.reads.op], touches[flow.writes.op]
    op = np.concatenate((flow.reads.op[reads], flow.writes.op[writes]))
    storage = np.concatenate((flow.reads.storage[reads], flow.writes.storage[writes]))
    order = np.lexsort((op, storage))
    sorted_op, sorted_storage = op[order], storage[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = sorted_storage[1:] != sorted_storage[:-1]
    last_touch = np.full(len(flow.storage_bytes), -1)
    np.maximum.at(last_touch, storage, op)
    earlier = np.roll(sorted_op, 1)
    sorted_distance = before[sorted_op] - before[earlier]
    sorted_distance[first] = _first_distance(graph, flow, before, last_touch, sorted_op[first], sorted_storage[first])
    distance = np.empty(len(order))
    distance[order] = sorted_distance

    size = flow.storage_bytes[storage].astype(np.float64)
    n_reads = int(reads.sum())
    result = []
    for capacity in capacities:
        share = miss_share(distance, capacity)
        total = np.zeros(n)
        for part, moved in ((slice(None, n_reads), read), (slice(n_reads, None), written_bytes)):
            weight = np.bincount(op[part], size[part], n)
            evicted_bytes = np.bincount(op[part], size[part] * share[part], n)
            total += moved * np.divide(evicted_bytes, weight, out=np.zeros(n), where=weight > 0)
        result.append(total)
    return tuple(result)


def code_miss_share(graph: BlockGraph) -> Floats:
    """For each op, the share of its code that has to be fetched again: 1 / (1 + (OTHER_OPS / n)^2) where n ops of other
    names ran since one of its name did, in this step or in the one before."""
    names = [graph.op_types[op.type].name for op in graph.ops]
    latest_first = list(dict.fromkeys(reversed(names)))  # as the step before left them
    others = np.zeros(len(names))
    for k, name in enumerate(names):
        n = latest_first.index(name)
        others[k] = n
        latest_first.insert(0, latest_first.pop(n))
    share: Floats = others**_CODE_SHARPNESS / (others**_CODE_SHARPNESS + float(OTHER_OPS) ** _CODE_SHARPNESS)
    return share


def _first_distance(
    graph: BlockGraph, flow: Traffic, before: Floats, last_touch: Ints, op: Ints, storage: Ints
) -> Floats:
    """Distances of the first accesses to storages."""
    step = before[-1]
    touched_at = np.where(last_touch >= 0, before[np.maximum(last_touch, 0)], -np.inf)
    distance = np.where(
        np.fromiter((graph.storages[s].born < 0 for s in storage.tolist()), np.bool_, len(storage)),
        before[op] + step - touched_at[storage],  # in the step before
        _block_distance(graph, flow, before, touched_at)[storage],
    )
    return np.asarray(distance, np.float64)


def _block_distance(graph: BlockGraph, flow: Traffic, before: Floats, touched_at: Floats) -> Floats:
    """For each storage made in the step, the traffic since the block that it gets was last touched."""
    n = len(graph.ops)
    born: dict[int, list[int]] = defaultdict(list)
    freed: dict[int, list[int]] = defaultdict(list)
    for s, storage in enumerate(graph.storages):
        if storage.born >= 0:
            born[storage.born].append(s)
        if storage.freed < n:
            freed[storage.freed].append(s)
    blocks: dict[int, list[float]] = defaultdict(list)
    distance = np.full(len(graph.storages), np.inf)
    for k in sorted(born.keys() | freed.keys()):
        for s in born[k]:
            size = int(flow.storage_bytes[s])
            if size <= MMAP_BYTES and blocks[size]:
                distance[s] = before[k] - blocks[size].pop()
        for s in freed[k]:
            blocks[int(flow.storage_bytes[s])].append(float(touched_at[s]))
    return distance
