"""Ops that were timed in place on this machine cost what they took there; the rest cost what the base device says.

    seconds(op) = mean time of its signature inside replayed steps + what PyTorch's own loop spends beside it

The last term is Python and autograd: a module's call, a custom function and its gradient, a hook that packs what is
saved, a node of the graph, the optimizer's loop. How often each is called the trace has counted. Python that ran a
moment ago is in the caches; after megabytes of other data its code and objects come from afar, which takes several
times as long:

    seconds(event) = near + far x miss share of the traffic since an event of its kind

Both were measured, on networks whose ops do next to nothing and on some of a usual size. What Python takes once a step
is measured again beside every replayed step: after those ops, neighbours of the caches included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2s

import numpy as np

from pararev_hw.costmodels.calibrated.cache_model import miss_share
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.types import BlockGraph, Estimate, MeasuredDevice, OpType

_LEAST_S = 1e-8
_CODE_BYTES = 3e6  # moved, after which a cache no longer holds what Python needs: judged, steps of 45 networks
STEP_NAMES = {"forward": "train_step", "backward": "backward_step", "update": "update_step", "infer": "infer_step"}
_GOES_FAR = ("functions", "backwards", *STEP_NAMES.values())  # the rest was not seen to take longer


def type_key(t: OpType) -> str:
    """The key of an op by its type alone, as a graph that was read from a file gives it."""
    text = repr((t.name, t.dtype, t.input_shapes, t.output_shapes, t.attributes))
    return f"type:{blake2s(text.encode(), digest_size=12).hexdigest()}"


def op_keys(graph: BlockGraph) -> tuple[str, ...]:
    """The key under which each op's time is looked up: its signature, or its type where the graph has no program."""
    if graph.program is not None:
        signatures = graph.program.signatures
        return tuple(signatures[i.call] for i in graph.program.instructions)
    of_type = tuple(map(type_key, graph.op_types))
    return tuple(of_type[op.type] for op in graph.ops)


def is_measured(graph: BlockGraph, device: MeasuredDevice) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each op's time was measured."""
    return np.fromiter((key in device.ops for key in op_keys(graph)), np.bool_, len(graph.ops))


def python_calls(graph: BlockGraph) -> Mapping[tuple[str, str], int]:
    """How often the step calls into Python. A graph without a program tells only where it goes to another module."""
    if graph.program is not None:
        return graph.program.python_calls
    counts: Counter[tuple[str, str]] = Counter()
    last = ""
    for op in graph.ops:
        if op.phase in ("forward", "recompute") and op.module != last:
            counts["forward" if op.phase == "forward" else "backward", "modules"] += 1
            last = op.module
    return counts


def moved_bytes(graph: BlockGraph) -> float:
    """Bytes that the step's ops read and write."""
    types = graph.op_types
    return float(sum(types[op.type].read_bytes + types[op.type].write_bytes for op in graph.ops))


def python_events(graph: BlockGraph, other_bytes: float = 0.0) -> Mapping[str, Mapping[str, float]]:
    """How often each part of the step ("forward", "backward" with recomputation, "update"; "infer") does what takes
    time beside its ops, by the name of what that takes, as in `MeasuredDevice.host`.

    A name with "far" counts those whose code and objects come from afar. `other_bytes` are moved between two steps.
    """
    parts = ("infer",) if graph.mode == "infer" else ("forward", "backward", "update")
    counts = {part: Counter({STEP_NAMES[part]: 1}) for part in parts}
    for (where, event), count in python_calls(graph).items():
        counts["infer" if graph.mode == "infer" else where][event] += count
    everywhere = sum(counts.values(), Counter[str]())
    names = [name for name in everywhere if name in _GOES_FAR]
    shares = miss_share(
        (moved_bytes(graph) + other_bytes) / np.array([everywhere[name] for name in names]), _CODE_BYTES
    )
    far = dict(zip(names, shares.tolist(), strict=True))
    return {
        part: {f"{name}_s": float(n) for name, n in here.items()}
        | {f"{name}_far_s": n * far[name] for name, n in here.items() if name in far}
        for part, here in counts.items()
    }


def host_seconds(graph: BlockGraph, measured: Mapping[str, Estimate]) -> Floats:
    """Seconds beside each op in PyTorch's own loop: its own, and an even share of what else its part of the step does.

    `measured` is what each takes, as in `MeasuredDevice.host`.
    """
    phases = np.array([op.phase for op in graph.ops])
    beside = np.zeros(len(phases))
    host = {name: e.value for name, e in measured.items()}
    for phase in np.unique(phases):
        beside[phases == phase] = host.get("infer_s" if graph.mode == "infer" else f"{phase}_s", 0.0)
    inside = {"backward": ("recompute", "backward"), "infer": ("forward",)}
    for part, events in python_events(graph).items():
        there = np.isin(phases, inside.get(part, (part,)))
        if there.any():
            beside[there] += sum(n * host.get(name, 0.0) for name, n in events.items()) / there.sum()
    return beside


def _fill_factors(graph: BlockGraph, timed: Floats, base_s: Floats) -> Floats:
    """What the base device's time of an op is to be multiplied with: by how much it is off for the measured ops of the
    same kind in this graph, else for all of them."""
    is_timed = ~np.isnan(timed)
    whole = _ratio(timed[is_timed], base_s[is_timed])
    kinds = np.array([graph.op_types[op.type].kind for op in graph.ops])
    factors = np.full(len(kinds), whole)
    for kind in np.unique(kinds[~is_timed]):
        alike = is_timed & (kinds == kind)
        if alike.any():
            factors[kinds == kind] = _ratio(timed[alike], base_s[alike])
    return factors


def _ratio(timed_s: Floats, base_s: Floats) -> float:
    total = float(base_s.sum())
    return float(timed_s.sum()) / total if total > 0 and len(timed_s) else 1.0


def measured_op_costs(graph: BlockGraph, device: MeasuredDevice, base: OpCosts) -> OpCosts:
    """What each op costs, `base` being what the base device says of all of them."""
    beside = host_seconds(graph, device.host)
    times = [device.ops.get(key) for key in op_keys(graph)]
    timed = np.array([np.nan if t is None else t.seconds for t in times], np.float64) + beside
    filled = base.seconds * _fill_factors(graph, timed, base.seconds)
    seconds = np.maximum(np.where(np.isnan(timed), filled, timed), _LEAST_S)
    held_s = device.device.get("host_overhead_s", 0.0) + beside  # threads share the interpreter's lock meanwhile
    return replace(
        base,
        seconds=seconds,
        overhead_s=np.zeros(len(graph.ops)),
        occupancy=np.minimum(held_s / seconds, 1.0),
    )
