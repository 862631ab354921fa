"""This machine as a device for one graph: the times of the graph's own ops, measured here or read from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2s
from pathlib import Path

import numpy as np

from pararev_hw.costmodels.measured_ops import STEP_NAMES, op_keys, type_key
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.errors import BadInput
from pararev_hw.execution.loop_overheads import loop_overheads
from pararev_hw.execution.replay_timing import ReplayTimes, replay_times
from pararev_hw.execution.single_layer import SingleStep
from pararev_hw.measurement.environment import environment
from pararev_hw.measurement.op_store import (
    Measurements,
    add_to_store,
    machine_description,
    read_store,
    store_path,
)
from pararev_hw.measurement.pace import NOTABLY_SLOWER, PACE, typical_pace_s
from pararev_hw.progress import Progress, silent
from pararev_hw.types import BlockGraph, Device, Estimate, MeasuredDevice, OpTime, Profile, ReplayedStep

_BETWEEN_S = 1e-6  # at most, between two ops


def measured_device(
    graph: BlockGraph,
    base: Device | Profile | MeasuredDevice,
    *,
    folder: Path | None = None,
    seconds: float = 10.0,
    anew: bool = False,
    progress: Progress = silent,
    warn: Progress = silent,
    in_turns: Callable[[], None] = lambda: None,
) -> MeasuredDevice:
    """`base`, a CPU that is this machine, with the times of the graph's ops as they run here.

    They are read from the store in `folder` where this graph was measured before (unless `anew`, or this machine ran
    notably slower then than it does now), else replayed for about `seconds` and stored; `in_turns` runs before each
    replay. `warn` hears why a store was ignored or could not be written. Raises BadInput for a device that is not this
    machine's CPU or a graph that cannot be run, Infeasible where memory does not hold it.
    """
    if isinstance(base, MeasuredDevice):
        base = base.base
    if base.kind != "cpu":
        raise BadInput(f"--measure times this machine's CPU, and {base.name} is of kind {base.kind}: give --device cpu")
    machine = machine_description()
    path = None if folder is None else store_path(folder, machine)
    stored = Measurements()
    if path is not None:
        stored, ignored = read_store(path, machine)
        if ignored is not None:
            warn(ignored)
    host, digest = stored.host, graph_digest(graph)
    slowed = graph.program is not None and _measured_while_slowed(host, stored.graphs.get(digest))
    if slowed:
        progress("this machine is faster now than when it was measured: measuring anew")
    if slowed or not host:
        progress("measuring what PyTorch's loop spends beside its operations")
        host = loop_overheads()
    complete = set(op_keys(graph)) <= stored.ops.keys()
    if anew or slowed or not complete or (graph.program is not None and digest not in stored.graphs):
        single = SingleStep(training=graph.mode == "train")
        times = replay_times(graph, seconds, progress, in_turns, single.take_one)
        replayed = replace(times.whole, beside_s=single.beside_s)
        new = Measurements(_op_times(graph, times), host, {digest: replayed})
        stored = Measurements({**stored.ops, **new.ops}, host, new.graphs)
        if path is not None:
            _, unstored = add_to_store(path, machine, new)
            if unstored is not None:
                warn(unstored)
    step = stored.graphs.get(digest)
    ops = dict(stored.ops)
    if step is not None:
        for keys in (op_keys(graph), _type_keys(graph)):
            ops |= _adding_up_to(step, keys, ops)
    return MeasuredDevice(base, environment("cpu", 1), ops, _at_pace(host, step), step)


def _measured_while_slowed(host: Mapping[str, Estimate], step: ReplayedStep | None) -> bool:
    """Whether Python ran notably slower, while any of it was measured, than it does now."""
    paces = [e.value for name, e in host.items() if name == PACE] + ([] if step is None else [step.pace_s])
    return bool(paces) and max(paces) > NOTABLY_SLOWER * typical_pace_s()


def _adding_up_to(step: ReplayedStep, keys: Sequence[str], ops: Mapping[str, OpTime]) -> Mapping[str, OpTime]:
    """The times of a graph's ops, of those keys, as they were in its own replayed step, whatever was measured since."""
    factor = step.seconds / sum(ops[key].seconds for key in keys)
    return {key: replace(ops[key], seconds=factor * ops[key].seconds) for key in set(keys)}


def _at_pace(host: Mapping[str, Estimate], step: ReplayedStep | None) -> Mapping[str, Estimate]:
    """What stands beside ops, at the speed that the machine had while the step was replayed; what a step takes once, as
    it was beside that step."""
    pace = host.get(PACE)
    if pace is None or step is None:
        return host
    slowdown = step.pace_s / pace.value
    then = {name: Estimate(e.value * slowdown, e.sigma) for name, e in host.items()}
    if step.beside_s is None:
        return then
    once = {f"{name}{far}_s" for name in STEP_NAMES.values() for far in ("", "_far")}
    of_mode = dict.fromkeys(("train_step_s", "infer_step_s"), Estimate(step.beside_s))
    return {name: e for name, e in then.items() if name not in once} | of_mode


def graph_digest(graph: BlockGraph) -> str:
    """Equal for graphs of the same ops in the same order."""
    return blake2s("".join(op_keys(graph)).encode(), digest_size=12).hexdigest()


def _op_times(graph: BlockGraph, times: ReplayTimes) -> Mapping[str, OpTime]:
    """The graph's op times by signature and by type, which add up to the step: a line of Python between two ops is
    shared evenly, all else by which the median step is slower than its undisturbed ops in proportion."""
    whole_s = times.whole.seconds
    between = min(whole_s - float(times.op_s.sum()), _BETWEEN_S * len(graph.ops))
    op_s = np.maximum(times.op_s + between / len(graph.ops), 0.0)
    op_s *= whole_s / max(float(op_s.sum()), 1e-12)
    reordered = np.abs(times.other_order_s - times.op_s)
    return {
        **_grouped(op_keys(graph), op_s, times.spread, reordered),
        **_grouped(_type_keys(graph), op_s, times.spread, reordered),
    }


def _type_keys(graph: BlockGraph) -> tuple[str, ...]:
    of_type = tuple(map(type_key, graph.op_types))
    return tuple(of_type[op.type] for op in graph.ops)


def _grouped(keys: tuple[str, ...], op_s: Floats, spread: Floats, reordered: Floats) -> dict[str, OpTime]:
    names, index, count = np.unique(np.array(keys), return_inverse=True, return_counts=True)
    mean = np.bincount(index, op_s) / count
    wide = np.bincount(index, spread) / count
    moved = np.divide(np.bincount(index, reordered) / count, mean, out=np.zeros(len(mean)), where=mean > 0)
    return {
        str(name): OpTime(float(s), int(n), float(w), float(m))
        for name, s, n, w, m in zip(names, mean, count, wide, moved, strict=True)
    }
