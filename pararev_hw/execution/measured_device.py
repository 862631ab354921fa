"""This machine as a device for one graph: the times of the graph's own ops, measured here or read from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2s
from pathlib import Path

import numpy as np

from pararev_hw.costmodels.measured_ops import op_keys, type_key
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.errors import BadInput
from pararev_hw.execution.loop_overheads import loop_overheads
from pararev_hw.execution.replay_timing import replay_times
from pararev_hw.measurement.environment import environment
from pararev_hw.measurement.op_store import (
    Measurements,
    add_to_store,
    machine_description,
    read_store,
    store_path,
)
from pararev_hw.types import BlockGraph, Device, MeasuredDevice, OpTime, Profile

Progress = Callable[[str], None]
_BETWEEN_S = 1e-6  # at most, between two ops


def measured_device(
    graph: BlockGraph,
    base: Device | Profile | MeasuredDevice,
    *,
    folder: Path | None = None,
    seconds: float = 10.0,
    anew: bool = False,
    progress: Progress = lambda _: None,
    warn: Progress = lambda _: None,
) -> MeasuredDevice:
    """`base`, a CPU that is this machine, with the times of the graph's ops as they run here.

    They are read from the store in `folder` where this graph was measured before (unless `anew`), else replayed for
    about `seconds` and stored. `warn` hears why a store was ignored or could not be written. Raises BadInput for a
    device that is not this machine's CPU or a graph that cannot be run, Infeasible where memory does not hold it.
    """
    if isinstance(base, MeasuredDevice):
        base = base.base
    if base.kind != "cpu":
        raise BadInput(f"--measure times this machine's CPU, and {base.name} is a {base.kind}: give --device cpu")
    machine = machine_description()
    path = None if folder is None else store_path(folder, machine)
    stored = Measurements()
    if path is not None:
        stored, ignored = read_store(path, machine)
        if ignored is not None:
            warn(ignored)
    host = stored.host
    if not host:
        progress("measuring what PyTorch's loop spends beside its operations")
        host = loop_overheads()
    digest = graph_digest(graph)
    complete = set(op_keys(graph)) <= stored.ops.keys()
    if anew or not complete or (graph.program is not None and digest not in stored.graphs):
        new = Measurements(_op_times(graph, seconds, progress), host, (digest,))
        stored = Measurements({**stored.ops, **new.ops}, host, (digest,))
        if path is not None:
            _, unstored = add_to_store(path, machine, new)
            if unstored is not None:
                warn(unstored)
    return MeasuredDevice(base, environment("cpu", 1), stored.ops, host)


def graph_digest(graph: BlockGraph) -> str:
    """Equal for graphs of the same ops in the same order."""
    return blake2s("".join(op_keys(graph)).encode(), digest_size=12).hexdigest()


def _op_times(graph: BlockGraph, seconds: float, progress: Progress) -> Mapping[str, OpTime]:
    """The graph's op times by signature and by type, which add up to the step: a line of Python between two ops is
    shared evenly, all else by which the median step is slower than its undisturbed ops in proportion."""
    times = replay_times(graph, seconds, progress)
    between = min(times.whole_s - float(times.op_s.sum()), _BETWEEN_S * len(graph.ops))
    op_s = np.maximum(times.op_s + between / len(graph.ops), 0.0)
    op_s *= times.whole_s / max(float(op_s.sum()), 1e-12)
    reordered = np.abs(times.other_order_s - times.op_s)
    types = [type_key(graph.op_types[op.type]) for op in graph.ops]
    return {
        **_grouped(op_keys(graph), op_s, times.spread, reordered),
        **_grouped(types, op_s, times.spread, reordered),
    }


def _grouped(keys: tuple[str, ...] | list[str], op_s: Floats, spread: Floats, reordered: Floats) -> dict[str, OpTime]:
    names, index, count = np.unique(np.array(keys), return_inverse=True, return_counts=True)
    mean = np.bincount(index, op_s) / count
    wide = np.bincount(index, spread) / count
    moved = np.divide(np.bincount(index, reordered) / count, mean, out=np.zeros(len(mean)), where=mean > 0)
    return {
        str(name): OpTime(float(s), int(n), float(w), float(m))
        for name, s, n, w, m in zip(names, mean, count, wide, moved, strict=True)
    }
