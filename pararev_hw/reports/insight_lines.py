"""What a study shows that people are glad to be told: one line each, where it holds."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from pararev_hw.reports import phrasing, units
from pararev_hw.types import BlockGraph, Prediction, Study

LAUNCH_BOUND = 0.25  # share of the eager step from which on waiting for the host is worth a line
LONG_WAIT = 0.05  # of the step: a lane that idles for so long before a sum
MANY = 3  # blocks of one size that keep their output: from here on saved memory grows with depth


def insights(study: Study) -> tuple[str, ...]:
    """Lines on launching, recomputation that saves too little or updates twice, branches that wait, silent inputs."""
    graph = study.graph
    lines = (_launch_bound(study), _saved_all_the_same(graph), _updated_twice(graph), _waits(study), _silence(graph))
    return tuple(line for line in lines if line)


def _silence(graph: BlockGraph) -> str:
    """Where no spike was counted: on which inputs."""
    spikes = graph.spikes
    if spikes is None or not spikes.measured or graph.totals.sops != 0:
        return ""
    return f"Synaptic operations are 0: {spikes.source}."


def _launch_bound(study: Study) -> str:
    """Where a GPU waits for the host: the same step, sequential, launched op by op and as a CUDA graph."""
    as_traced = [p for p in study.predictions if p.scheduler == "sequential" and not p.choices]
    eager = next((p for p in as_traced if p.launch == "eager"), None)
    graph = next((p for p in as_traced if p.launch == "graph"), None)
    if study.device.kind != "gpu" or eager is None or graph is None or eager.latency_s <= 0:
        return ""
    share = 1 - graph.latency_s / eager.latency_s
    if share < LAUNCH_BOUND:
        return ""
    return (
        f"Launch-bound: {units.percent(share)} of the eager step waits for the host; as a CUDA graph the same step "
        f"takes {units.seconds(graph.latency_s)}."
    )


def _saved_all_the_same(graph: BlockGraph) -> str:
    """Where blocks that are recomputed keep their outputs for backward all the same, one like the other."""
    recomputed = {t.block for t in graph.tasks if t.phase == "recompute"}
    block_of = {op: t.block for t in graph.tasks if t.phase == "forward" and t.block in recomputed for op in t.ops}
    saved: Counter[str] = Counter()
    outputs: dict[str, int] = {}
    for storage in graph.storages:
        block = block_of.get(storage.born)
        if block is None:
            continue
        outputs[block] = max(outputs.get(block, 0), storage.bytes)
        if storage.role == "saved":
            saved[block] += storage.bytes
    # statistics of a normalisation are saved too, and are small
    sizes = Counter(size for block, size in saved.items() if size >= outputs[block] / 2)
    size, count = max(sizes.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    if count < MANY:
        return ""
    return (
        f"The step recomputes, yet its saved bytes grow with depth: {count} of {len(recomputed)} recomputed blocks "
        f"keep {units.size(size)} each for the backward pass."
    )


def _updated_twice(graph: BlockGraph) -> str:
    """BatchNorm layers whose running statistics a recomputation writes again."""
    twice = {
        op.module
        for op in graph.ops
        if op.phase == "recompute"
        and graph.op_types[op.type].kind == "norm"
        and "batch_norm" in graph.op_types[op.type].name
        and any(graph.storages[s].role == "buffer" for s in op.writes)
    }
    if not twice:
        return ""
    first = min(twice)
    layers = f"BatchNorm in {first}" if len(twice) == 1 else f"{len(twice)} BatchNorm layers, {first} among them,"
    verb = "updates its" if len(twice) == 1 else "update their"
    return (
        f"{layers} {verb} running statistics twice per step: in the forward pass and when the block is recomputed. "
        "Freeze them while recomputing."
    )


def _waits(study: Study) -> str:
    """The branch that waits longest for another one at a short sum, its lane idle meanwhile."""
    chosen, graph = study.chosen, study.chosen_graph
    if phrasing.lanes_used(chosen) < 2 or chosen.latency_s <= 0:
        return ""
    waits = _idle_before_joins(chosen, graph)
    if not waits:
        return ""
    idle_s, early, late, join, join_s = max(waits)
    if idle_s < LONG_WAIT * chosen.latency_s or join_s > idle_s / 5:
        return ""
    return (
        f"In the recommended schedule the lane of {early} idles {units.seconds(idle_s)} until {late} ends, for their "
        f"sum, {join}, which takes {units.seconds(join_s)}."
    )


def _idle_before_joins(prediction: Prediction, graph: BlockGraph) -> list[tuple[float, str, str, str, float]]:
    """Idle seconds, the input that was early, the one that was late, the task that joins them and its seconds."""
    at = {p.task: p for p in prediction.schedule.placements}
    starts: dict[int, list[float]] = {}
    for p in prediction.schedule.placements:
        starts.setdefault(p.lane, []).append(p.start_s)
    for of_lane in starts.values():
        of_lane.sort()
    inputs: dict[int, list[int]] = {}
    for e in graph.edges:
        inputs.setdefault(e.dst, []).append(e.src)
    waits = []
    for dst, sources in inputs.items():
        join = at.get(graph.tasks[dst].id)
        placed = sorted((at[graph.tasks[s].id] for s in sources if graph.tasks[s].id in at), key=lambda p: p.end_s)
        if graph.tasks[dst].branch != "join" or join is None or len(placed) < 2:
            continue
        early, late = placed[0], placed[-1]
        after = bisect_left(starts[early.lane], early.end_s)
        following = starts[early.lane][after] if after < len(starts[early.lane]) else join.start_s
        idle_s = min(following, late.end_s) - early.end_s
        if early.lane != late.lane and idle_s > 0:
            waits.append((idle_s, early.task, late.task, join.task, join.end_s - join.start_s))
    return waits
