"""A run on a chip as tasks: one for each core and time step, and one for each barrier.

Every core's task of a step comes before the step's barrier, and the barrier before the next step's tasks; a task may
run on its own core alone. So whatever schedules it gives the chip's own timeline. Where steps are many, a task stands
for several in a row.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from pararev_hw.costmodels.neuromorphic.run import Run
from pararev_hw.costmodels.opcosts import OpCosts
from pararev_hw.types import (
    BlockGraph,
    CommEdge,
    Device,
    Edge,
    Op,
    OpType,
    SchedulingProblem,
    StepMemory,
    Storage,
    Task,
    TaskCost,
)

_MOST_TASKS = 3_000
_BARRIER = "barrier"
_NOT_MODELLED = (
    "activity that differs from one time step to the next",
    "loading the network and its inputs onto the chip",
)


def timeline(graph: BlockGraph, ran: Run) -> BlockGraph:
    """The traced step with the chip's tasks in place of its own."""
    spans, cores = _spans(ran), ran.summary.cores
    count = len(cores)
    events = sum(layer.events for layer in ran.summary.layers) / ran.summary.timesteps
    tasks: list[Task] = []
    ops: list[Op] = []
    edges: list[Edge] = []
    for first, last in spans:
        steps, base = last - first + 1, len(tasks)
        word = f"step {first}" if steps == 1 else f"steps {first}-{last}"
        for c in range(count):
            block = ", ".join(ran.populations[c]) or f"core {c}"
            share = float(ran.busy_s[c]) / max(1e-30, float(ran.busy_s.sum()))
            sops = round(events * steps * share)
            tasks.append(Task(f"{word}, core {c}", block, "", "forward", (len(ops),), 0, 0, 0, 0, sops))
            ops.append(Op(0, block, "forward", (c,), (), ()))
        after = tuple(range(base, base + count))
        tasks.append(Task(f"{_BARRIER} of {word}", _BARRIER, "join", "forward", (len(ops),), 0, 0, 0, 0))
        ops.append(Op(1, _BARRIER, "forward", (), (), after))
        edges += [Edge(k, base + count, 0) for k in after]
        if base:
            edges += [Edge(base - 1, k, 0) for k in after]
    bytes_of = [core.synapse_bytes for core in cores]
    return replace(
        graph,
        granularity="core and time step",
        op_types=(_type("time_step"), _type(_BARRIER)),
        ops=tuple(ops),
        storages=tuple(Storage(b, "parameter", -1, len(ops)) for b in bytes_of),
        tasks=tuple(tasks),
        edges=tuple(edges),
        memory=StepMemory(sum(bytes_of), 0, sum(bytes_of), 0, 0, 0, 0, 0),
        assumptions=(*ran.assumptions[:1], *graph.assumptions) if graph.mode == "train" else graph.assumptions,
        modules=(),
    )


def _type(name: str) -> OpType:
    return OpType(f"chip.{name}.default", name, "int8", (), (), (), 0, 0, 0, 0)


def _spans(ran: Run) -> list[tuple[int, int]]:
    """First and last time step of each row of tasks, counted from 1 over all samples."""
    rows = min(ran.steps, max(1, _MOST_TASKS // (len(ran.summary.cores) + 1)))
    bounds = [round(k * ran.steps / rows) for k in range(rows + 1)]
    return [(a + 1, b) for a, b in pairwise(bounds)]


def op_costs(ran: Run) -> OpCosts:
    """What each op of the timeline costs."""
    waits_s = ran.summary.time_step_s - float(ran.busy_s.max())
    steps = np.array([last - first + 1 for first, last in _spans(ran)], np.float64)
    seconds = np.outer(steps, np.append(ran.busy_s, waits_s)).ravel()
    n = len(seconds)
    return OpCosts(
        seconds=seconds,
        overhead_s=np.zeros(n),
        host_s=np.zeros(n),
        occupancy=np.zeros(n),
        dram_bytes=np.zeros(n),
        energy_j={part: np.outer(steps, np.append(v, 0.0)).ravel() for part, v in ran.energy_j.items()},
        notes=ran.assumptions,
    )


def problem(chip_graph: BlockGraph, device: Device, ran: Run, ops: OpCosts, lanes: int | None) -> SchedulingProblem:
    """The timeline as a scheduling problem in which each task has one core."""
    count = ran.summary.cores_used
    width = count if lanes is None else max(lanes, count)
    tasks = []
    for k, task in enumerate(chip_graph.tasks):
        core = k % (count + 1)
        times = [math.inf] * width
        times[0 if core == count else core] = float(ops.seconds[k])
        energy = {part: float(values[k]) for part, values in ops.energy_j.items()}
        tasks.append(TaskCost(task.id, tuple(times), energy_j=energy))
    assumed = device.assumed_parameters()
    assumptions = () if assumed is None else (assumed,)
    spikes = chip_graph.spikes
    unsure = (f"spikes were not measured: {spikes.source}",) if spikes is not None and not spikes.measured else ()
    unknown = ("no spikes are known: every matrix operation counts as dense",) if spikes is None else ()
    no_static = () if "static_power_w" in device.parameters else ("static power, which the device does not give",)
    return SchedulingProblem(
        device=device.name,
        lanes=width,
        tasks=tuple(tasks),
        edges=tuple(CommEdge(e.src, e.dst) for e in chip_graph.edges),
        static_bytes=sum(s.bytes for s in chip_graph.storages),
        static_power_w=device.get("static_power_w", 0.0) * ran.summary.chips,
        assumptions=(*ran.assumptions, *assumptions, *unsure, *unknown),
        not_modelled=(*_NOT_MODELLED, *no_static),
    )
