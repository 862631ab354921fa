"""Studies made up for the tests of the reports: ParaRev-like stages, list-scheduled on k lanes.

The dependencies are those of ParaRevSNN (a_i = b_{i-1} + F_i(a_{i-1}), b_i = a_{i-1} + G_i(a_i)) and of its backward
pass; the times, bytes and energies are invented and seeded: neither tracer nor cost model is asked.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pararev_hw.types import (
    PHASES,
    BlockGraph,
    CriticalPath,
    Device,
    DeviceParameter,
    Edge,
    Layer,
    LayerSpikes,
    MemoryCurve,
    Op,
    OpType,
    Phase,
    Placement,
    Prediction,
    Schedule,
    Spikes,
    StepMemory,
    Storage,
    Study,
    Task,
)

MIB = 1 << 20


class _Step:
    """Tasks and edges as they are written down: `add` returns the index of the new task."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, str, Phase]] = []
        self.edges: set[tuple[int, int]] = set()

    def add(self, block: str, branch: str, phase: Phase, after: Sequence[int]) -> int:
        self.tasks.append((block, branch, phase))
        self.edges |= {(i, len(self.tasks) - 1) for i in after}
        return len(self.tasks) - 1


def _pararev(stages: Sequence[int], mode: str) -> _Step:
    step = _Step()
    last = step.add("stem", "", "forward", ())
    outputs: list[tuple[int, int]] = []
    for s, n in enumerate(stages):
        a = b = last
        for i in range(n):
            block = f"stages.{s}.blocks.{i}"
            f = step.add(block, "f", "forward", (a,))
            a_next = step.add(block, "join", "forward", (b, f))
            g = step.add(block, "g", "forward", (a_next,))
            b_next = step.add(block, "join2", "forward", (a, g))
            a, b = a_next, b_next
        outputs.append((a, b))
        if s + 1 < len(stages):
            last = step.add(f"downs.{s}", "", "forward", (a, b))
    head = step.add("head", "", "forward", outputs[-1])
    if mode == "infer":
        return step
    cotangent = (step.add("head", "", "backward", (head,)),)
    update = [step.add("head", "", "update", cotangent)]
    for s in reversed(range(len(stages))):
        a, b = outputs[s]
        cot_a, cot_b = cotangent[0], cotangent[-1]
        for i in reversed(range(stages[s])):
            block = f"stages.{s}.blocks.{i}"
            g = step.add(block, "g", "recompute", (a, cotangent[0]) if i == stages[s] - 1 else (a,))
            a_prev = step.add(block, "join", "recompute", (b, g))
            back_g = step.add(block, "g", "backward", (g, cot_b, cot_a))
            f = step.add(block, "f", "recompute", (a_prev,))
            b = step.add(block, "join2", "recompute", (a, f))
            back_f = step.add(block, "f", "backward", (f, back_g, cot_a))
            a, cot_a, cot_b = a_prev, back_f, back_g
            update.append(step.add(block, "", "update", (back_f, back_g)))
        below = f"downs.{s - 1}" if s else "stem"
        cotangent = (step.add(below, "", "backward", (cot_a, cot_b)),)
        update.append(step.add(below, "", "update", cotangent))
    return step


def _times(step: _Step, rng: random.Random) -> list[float]:
    unit = {"forward": 90e-6, "recompute": 95e-6, "backward": 160e-6, "update": 12e-6}
    return [
        (4e-6 if branch.startswith("join") else unit[phase]) * rng.uniform(0.85, 1.2) for _, branch, phase in step.tasks
    ]


def _neighbours(count: int, edges: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for e in edges:
        before[e.dst].append(e.src)
        after[e.src].append(e.dst)
    return before, after


def list_schedule(
    ids: Sequence[str], times: Sequence[float], edges: Sequence[Edge], lanes: int
) -> tuple[Placement, ...]:
    """Tasks by upward rank onto the lane that is free first."""
    before, after = _neighbours(len(ids), edges)
    rank = [0.0] * len(ids)
    for i in reversed(range(len(ids))):
        rank[i] = times[i] + max((rank[j] for j in after[i]), default=0.0)
    missing = [len(b) for b in before]
    ready = [(-rank[i], i) for i in range(len(ids)) if not missing[i]]
    heapq.heapify(ready)
    free, end, placed = [0.0] * lanes, [0.0] * len(ids), []
    while ready:
        _, i = heapq.heappop(ready)
        earliest = max((end[j] for j in before[i]), default=0.0)
        lane = min(range(lanes), key=lambda k: (max(free[k], earliest), k))
        start = max(free[lane], earliest)
        free[lane] = end[i] = start + times[i]
        placed.append(Placement(ids[i], lane, start, end[i]))
        for j in after[i]:
            missing[j] -= 1
            if not missing[j]:
                heapq.heappush(ready, (-rank[j], j))
    return tuple(sorted(placed, key=lambda p: (p.start_s, p.lane, p.task)))


def _memory(tasks: Sequence[Task], edges: Sequence[Edge], placements: Sequence[Placement]) -> MemoryCurve:
    end = {p.task: p.end_s for p in placements}
    _, after = _neighbours(len(tasks), edges)
    index = {t.id: i for i, t in enumerate(tasks)}
    makespan = max((p.end_s for p in placements), default=0.0)
    role_of = {"forward": "transient", "recompute": "recomputed", "backward": "cotangent", "update": "transient"}
    changes: list[tuple[float, str, int]] = [
        (0.0, role, size * MIB) for role, size in (("parameter", 81), ("buffer", 2), ("optimizer", 81), ("input", 6))
    ]
    for p in placements:
        task = tasks[index[p.task]]
        saved = task.phase == "forward" and (not task.branch)
        last = max((end[tasks[j].id] for j in after[index[p.task]]), default=p.end_s)
        role = "saved" if saved else role_of[task.phase]
        size = (60 if saved else 24 if task.branch in "fg" else 8) * MIB
        changes += [(p.start_s, role, size), (makespan if saved else last, role, -size)]
        if task.phase == "backward":
            changes.append((p.start_s, "gradient", 2 * MIB))
    times = sorted({t for t, _, _ in changes if t < makespan} | {0.0})
    roles = tuple(dict.fromkeys(role for _, role, _ in changes))
    at = {t: k for k, t in enumerate(times)}
    curves = {role: [0] * len(times) for role in roles}
    for t, role, size in changes:
        if t < makespan:
            curves[role][at[t]] += size
    for curve in curves.values():
        for k in range(1, len(curve)):
            curve[k] += curve[k - 1]
    return MemoryCurve((*times, makespan), {role: tuple(c) for role, c in curves.items()})


def _prediction(
    tasks: Sequence[Task],
    edges: Sequence[Edge],
    times: Sequence[float],
    lanes: int,
    scheduler: str,
    launch: str,
    bound_s: float,
    energy: bool,
    standing: str,
) -> Prediction:
    slow = 1.35 if launch == "eager" else 1.0
    placements = list_schedule([t.id for t in tasks], [t * slow for t in times], edges, lanes)
    makespan = max((p.end_s for p in placements), default=0.0)
    busy = tuple(sum(p.end_s - p.start_s for p in placements if p.lane == k) for k in range(lanes))
    memory = _memory(tasks, edges, placements)
    parts = {"compute": 0.31 * makespan * 400, "dram": 0.4 * makespan * 400, "static": 90 * makespan}
    energy_j = {**parts, "total": sum(parts.values())} if energy else {}
    phase_of = {t.id: t.phase for t in tasks}
    phases = [phase for phase in PHASES if any(t.phase == phase for t in tasks)]
    by_phase = {phase: sum(p.end_s - p.start_s for p in placements if phase_of[p.task] == phase) for phase in phases}
    total = sum(by_phase.values()) or 1.0
    schedule = Schedule(
        device="h200",
        scheduler=scheduler,
        lanes=lanes,
        placements=placements,
        makespan_s=makespan,
        sequential_s=sum(times) * slow,
        lower_bound_s=bound_s * slow,
        bound_by="critical path",
        optimal=False,
        peak_bytes=memory.peak_bytes,
        energy_j=energy_j,
    )
    return Prediction(
        device="h200",
        scheduler=scheduler,
        launch=launch,
        schedule=schedule,
        latency_s=makespan,
        host_s=makespan * 0.83 if launch == "eager" else 0.0,
        lane_busy_s=busy,
        peak_bytes=memory.peak_bytes,
        memory=memory,
        energy_j=energy_j,
        energy_by_phase_j={
            phase: {part: j * by_phase[phase] / total for part, j in energy_j.items()} for phase in phases if energy_j
        },
        time_by_phase_s=by_phase,
        provenance=standing,  # type: ignore[arg-type]
        assumptions=("spike rate 0.15 assumed for every layer", "batch normalisation in training mode"),
        not_modelled=("cache misses between tasks", "time to read the batch from disk"),
    )


def _layers(tasks: Sequence[Task], times: Sequence[float]) -> tuple[Layer, ...]:
    """A layer for each block: the times and operations of its tasks."""
    of_block: dict[str, list[int]] = {}
    for k, t in enumerate(tasks):
        of_block.setdefault(t.block, []).append(k)
    return tuple(
        Layer(
            module=block,
            type="Conv2d",
            input_shape=(32, 64, 8, 8),
            output_shape=(32, 64, 8, 8),
            parameters=36_864,
            macs=sum(tasks[k].flops for k in members) // 2,
            true_macs=sum(tasks[k].flops for k in members) // 2,
            forward_macs=sum(tasks[k].flops for k in members if tasks[k].phase == "forward") // 2,
            sops=sum(tasks[k].sops or 0 for k in members) or None,
            rate=0.15,
            saved_bytes=60 * MIB,
            time_s=sum(times[k] for k in members),
            energy_j=1e-3 * len(members),
        )
        for block, members in of_block.items()
    )


def _critical(tasks: Sequence[Task], edges: Sequence[Edge], times: Sequence[float], among: Sequence[int]) -> list[int]:
    """Longest chain by time among the tasks of that index."""
    inside = set(among)
    before, _ = _neighbours(len(tasks), edges)
    best: dict[int, tuple[float, int]] = {}
    for i in among:
        length, j = max(((best[j][0], j) for j in before[i] if j in inside), default=(0.0, -1))
        best[i] = (length + times[i], j)
    path: list[int] = []
    at = max(best, key=lambda i: (best[i][0], -i), default=-1)
    while at >= 0:
        path.append(at)
        at = best[at][1]
    return path[::-1]


def device(standing: str = "published", title: str = "NVIDIA H200 SXM", lanes: int = 8) -> Device:
    return Device(
        name="h200",
        kind="gpu",
        title=title,
        lanes=lanes,
        parameters={
            "flops_per_s": DeviceParameter(67e12, "datasheet, FP32", standing),  # type: ignore[arg-type]
            "bandwidth_bytes_per_s": DeviceParameter(4.8e12, "datasheet", "published"),
            "launch_s": DeviceParameter(4e-6, "a guess from other cards", "assumed"),
        },
        notes=("clock assumed to stay at 1980 MHz",),
    )


def study(
    stages: Sequence[int] = (2, 2, 2, 2),
    lanes: int = 2,
    *,
    model: str = "pararevsnn37",
    mode: str = "train",
    energy: bool = True,
    spikes: bool = True,
    unknown: Mapping[str, int] | None = None,
    rename: Mapping[str, str] | None = None,
    standing: str = "published",
    seed: int = 0,
) -> Study:
    """A study of stages of ParaRev pairs: sequential (eager), one lane as a graph, and `lanes` lanes as a graph."""
    return assemble(
        _pararev(stages, mode), lanes, model, mode, energy, spikes, unknown or {}, rename or {}, standing, seed
    )


def single_task(**options: object) -> Study:
    """A study of one task."""
    step = _Step()
    step.add("net", "", "forward", ())
    return assemble(step, 2, "one", "infer", True, False, {}, {}, "assumed", 0, **options)


def fan(width: int, lanes: int = 4) -> Study:
    """A study of `width` independent branches between a source and a sink."""
    step = _Step()
    source = step.add("source", "", "forward", ())
    branches = [step.add("fan", f"branch {i}", "forward", (source,)) for i in range(width)]
    step.add("sink", "", "forward", branches)
    return assemble(step, lanes, "fan", "infer", True, False, {}, {}, "assumed", 0)


def assemble(
    step: _Step,
    lanes: int,
    model: str,
    mode: str,
    energy: bool,
    spikes: bool,
    unknown: Mapping[str, int],
    rename: Mapping[str, str],
    standing: str,
    seed: int,
    **options: object,
) -> Study:
    rng = random.Random(seed)
    times = _times(step, rng)
    op_types = [
        OpType("aten.convolution.default", "conv", "float32", ((1,),), ((1,),), (), 2_000_000_000, 0, 1 << 22, 1 << 21),
        *(OpType(name, "unknown", "float32", (), (), (), 0, None, 0, 0) for name in unknown),
    ]
    kinds = [0] * len(step.tasks) + [k + 1 for k, name in enumerate(unknown) for _ in range(unknown[name])]
    ops = tuple(Op(kind, "", "forward", (), (0,), ()) for kind in kinds)
    tasks = []
    for i, (block, branch, phase) in enumerate(step.tasks):
        block = rename.get(block, block)
        flops = 0 if branch.startswith("join") or phase == "update" else round(times[i] * 4e13)
        owned = (i, *range(len(step.tasks), len(ops))) if i == 0 else (i,)
        tasks.append(
            Task(
                id=f"{block}{'.' if branch else ''}{branch}:{phase}",
                block=block,
                branch="join" if branch.startswith("join") else branch,
                phase=phase,
                ops=owned,
                flops=flops,
                vector_flops=flops // 100 + 1000,
                read_bytes=4 * MIB,
                write_bytes=2 * MIB,
                sops=flops // 14 if spikes and flops else None,
            )
        )
    edges = tuple(Edge(src, dst, MIB) for src, dst in sorted(step.edges))
    everything = range(len(tasks))
    critical = _critical(tasks, edges, times, everything)
    length = sum(times[i] for i in critical)
    by_phase = {
        phase: tuple(tasks[i].id for i in _critical(tasks, edges, times, among))
        for phase in PHASES
        if (among := [i for i in everything if tasks[i].phase == phase])
    }
    setups = (("sequential", "eager", 1), ("sequential", "graph", 1), ("heft", "graph", lanes))
    predictions = tuple(
        _prediction(tasks, edges, times, k, name, launch, length, energy, standing) for name, launch, k in setups
    )
    graph = BlockGraph(
        model=model,
        mode=mode,  # type: ignore[arg-type]
        batch=32,
        timesteps=4,
        dtype="float32",
        granularity="block",
        input_shapes=((32, 3, 32, 32),),
        parameters=21_160_000,
        op_types=tuple(op_types),
        ops=ops,
        storages=(Storage(MIB, "transient", -1, len(ops)),),
        tasks=tuple(tasks),
        edges=edges,
        memory=StepMemory(predictions[0].peak_bytes, 300 * MIB, 81 * MIB, 2 * MIB, 81 * MIB, 81 * MIB, 6 * MIB, 0),
        spikes=Spikes(False, "assumed rate 0.15", 0.15, (LayerSpikes("stem", 0.15, 1e6, 7e6, True),))
        if spikes
        else None,
        assumptions=("the batch is already on the device",),
    )
    path = CriticalPath(tuple(tasks[i].id for i in critical), length, by_phase, "time_s")
    made = Study(graph, device(standing), predictions, 2, path, layers=_layers(tasks, times))
    return replace(made, **options) if options else made  # type: ignore[arg-type]
