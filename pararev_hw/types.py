"""The nouns of the toolkit: frozen data, valid once constructed, units in field names, SI throughout.

    network --trace--> BlockGraph --cost model(Device)--> Costs --scheduler--> Schedule --simulate--> Prediction

`None` means "not known", zero means zero. Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from pararev_hw.errors import BadInput

SCHEMA_VERSION = 1

Phase = Literal["forward", "recompute", "backward", "update"]
PHASES: tuple[Phase, ...] = ("forward", "recompute", "backward", "update")

Role = Literal["parameter", "buffer", "optimizer", "input", "gradient", "saved", "recomputed", "cotangent", "transient"]
ROLES: tuple[Role, ...] = (
    "parameter",  # weights
    "buffer",  # running statistics and other state that is not trained
    "optimizer",  # momentum and the like
    "input",  # the batch and its targets, and constants that the network brought along
    "gradient",  # .grad of a parameter
    "saved",  # made in forward, read again by backward or recompute
    "recomputed",  # made while a reversible or checkpointed part runs again
    "cotangent",  # made in backward, not a parameter's gradient
    "transient",  # everything else
)

Standing = Literal["measured", "published", "assumed"]

# What a terminal obeys instead of showing it, and what turns the direction of the text around it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _html_table(title: str, *rows: tuple[str, str]) -> str:
    """What a notebook shows of a result."""
    body = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<table><caption>{escape(title)}</caption>{body}</table>"


# ---------------------------------------------------------------------------------------------------------------
# The graph of a traced step


@dataclass(frozen=True, slots=True)
class OpType:
    """What an op is and what it moves, apart from where it stands: many ops of a step share one.

    `flops` counts convolutions and matrix products as torch's `FlopCounterMode` does (a MAC is two flops) and is 0 for
    every other kind; `vector_flops` counts the elementwise, normalisation, pooling and reduction work by
    `pararev_hw.tracing.formulas`, and is None for an op that has no formula. A view moves no bytes.
    """

    name: str  # "aten.convolution.default"
    kind: str  # "conv", "conv_backward", "gemm", "elementwise", ... : see pararev_hw.tracing.formulas.KINDS
    dtype: str  # "float32": of the first output (of the first input for ops that only mutate)
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    # (("stride", (1, 1)), ("groups", (1,)), ...); "scattered": which inputs of a convolution are no block
    # of memory
    attributes: tuple[tuple[str, tuple[int, ...]], ...]
    flops: int
    vector_flops: int | None
    read_bytes: int
    write_bytes: int

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True, slots=True)
class Op:
    """One aten operation of the step. `reads` and `writes` are storage ids, `after` the ops it must follow."""

    type: int  # index into BlockGraph.op_types
    module: str  # "stages.0.blocks.1.f.conv1"; "" is the network itself or code outside any module
    phase: Phase
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    after: tuple[int, ...]  # indices into BlockGraph.ops, always smaller than this op's own


@dataclass(frozen=True, slots=True)
class Storage:
    """A piece of memory. `born` is the op that made it (-1: there before the step), `freed` the op after which eager
    PyTorch let it go (the number of ops, if it outlives the step)."""

    bytes: int
    role: Role
    born: int
    freed: int


@dataclass(frozen=True, slots=True)
class Task:
    """A schedulable group of ops: one branch of one block in one phase. `branch` is "" where the block has but one,
    and "join" for the sums that bring branches together."""

    id: str
    block: str
    branch: str
    phase: Phase
    ops: tuple[int, ...]  # indices into BlockGraph.ops, in program order
    flops: int
    vector_flops: int
    read_bytes: int
    write_bytes: int
    sops: int | None = None  # synaptic operations of the spiking inputs, None where no spikes were measured or assumed

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True, slots=True)
class Edge:
    """`dst` cannot start before `src` has ended; `bytes` flow (0: an ordering of accesses, or a view)."""

    src: int  # indices into BlockGraph.tasks, src < dst in at least one topological order
    dst: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerSpikes:
    """Activity of one convolution or linear layer's input over all T, per sample.

    `density` is the share of non-zero elements; `sops` the exact number of synaptic operations, the sum over input
    spikes of their fan-out (borders, strides and groups included); `dense_macs` the MACs as torch counts them, which
    takes the zeros of a padded border for work: so `density x dense_macs` exceeds `sops` by the border's share.
    `spiking` is False for an analog input (values other than 0 and one constant), which counts as MACs.
    """

    module: str
    density: float
    sops: float
    dense_macs: float
    spiking: bool
    channel_density: tuple[float, ...] = ()  # share of non-zero elements of each input channel


@dataclass(frozen=True, slots=True)
class Spikes:
    """Where the spike figures come from and what they are. `measured` False: `rate` was assumed for every layer."""

    measured: bool
    source: str  # "digits, 16 samples, random weights" or "assumed rate 0.15"
    rate: float  # mean density over spiking layers
    layers: tuple[LayerSpikes, ...]


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Memory of the step as eager PyTorch runs it, from the life of every storage. All in bytes."""

    peak_bytes: int
    saved_bytes: int  # made in forward and read again by backward or recompute
    parameter_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    input_bytes: int
    peak_op: int  # the op during which the peak is reached


@dataclass(frozen=True, slots=True)
class BlockGraph:
    """A traced step: ops, the storages they touch, and the tasks they form. Tasks are in a topological order."""

    model: str
    mode: Literal["train", "infer"]
    batch: int
    timesteps: int | None
    dtype: str
    granularity: str
    input_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    op_types: tuple[OpType, ...]
    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    tasks: tuple[Task, ...]
    edges: tuple[Edge, ...]
    memory: StepMemory
    spikes: Spikes | None = None
    assumptions: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def _repr_html_(self) -> str:
        flops = sum(t.flops for t in self.tasks)
        return _html_table(
            f"{self.model}: {self.mode} step, batch {self.batch}",
            ("parameters", f"{self.parameters:,}"),
            ("operations", f"{len(self.ops):,} in {len(self.tasks)} tasks"),
            ("MACs", f"{flops // 2:,}"),
            ("peak memory", f"{self.memory.peak_bytes / 2**20:,.1f} MiB"),
            ("saved for backward", f"{self.memory.saved_bytes / 2**20:,.1f} MiB"),
        )

    @property
    def unknown_ops(self) -> Mapping[str, int]:
        """Op name -> how often it occurs, for ops that have no formula."""
        counts: dict[str, int] = {}
        for op in self.ops:
            t = self.op_types[op.type]
            if t.vector_flops is None:
                counts[t.name] = counts.get(t.name, 0) + 1
        return dict(sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class Hole:
    """Stands for the k-th tensor in the arguments of a `Call`."""

    index: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments with holes where the tensors go; many instructions share one."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Op k of the step, ready to run again: `inputs` fill the holes, `outputs` receive the results (None: no tensor).

    Two random instructions with the same `rng` token draw the same numbers, as a recomputation that restores the
    generator's state does; -1 where nothing is random.
    """

    call: int
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    rng: int = -1


@dataclass(frozen=True, slots=True)
class Program:
    """The traced step as something that runs: instruction k is `BlockGraph.ops[k]`. Lives in memory only.

    Slots name tensors. `externals` are those that exist before the step, by name ("parameter:stem.weight", "input:0"),
    `constants` those that the network's code brought along, `results` what the step leaves ("gradient:stem.weight",
    "output:0", "loss").
    """

    calls: tuple[Call, ...]
    instructions: tuple[Instruction, ...]
    externals: Mapping[int, str]
    constants: Mapping[int, Any]
    results: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest chain of tasks: through the whole step, and within each phase alone. `weight` says in what."""

    tasks: tuple[str, ...]
    length: float
    by_phase: Mapping[Phase, tuple[str, ...]]
    weight: str  # "work": flops + vector flops; "time_s": seconds on a device


# ---------------------------------------------------------------------------------------------------------------
# Devices


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its origin."""

    value: float
    source: str
    standing: Standing

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value < 0:
            raise BadInput(f"a device figure is {self.value!r}: it must be finite and not negative")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, a CPU, or an accelerator: lanes that run tasks, and what they share.

    `figures` holds every number by its name; pararev_hw.devices lists the names, their units and meaning, and which
    of them a kind of device must have. Ask with `value(name)`.
    """

    name: str
    kind: Literal["gpu", "cpu", "accelerator", "neuromorphic"]
    title: str
    lanes: int
    figures: Mapping[str, Figure]
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise BadInput(f"device {self.name!r} has {self.lanes} lanes: at least 1 is needed")

    def value(self, name: str) -> float:
        """The figure of that name. Raises BadInput where the device has none."""
        if name not in self.figures:
            raise BadInput(f"device {self.name!r} gives no {name}: add it to its YAML")
        return self.figures[name].value

    def get(self, name: str, default: float) -> float:
        """The figure of that name, or `default` where the device has none."""
        return self.figures[name].value if name in self.figures else default

    @property
    def standing(self) -> Standing:
        """The weakest standing among the figures: a prediction is no better than that."""
        found = {f.standing for f in self.figures.values()}
        return "assumed" if "assumed" in found else "published" if "published" in found else "measured"


# ---------------------------------------------------------------------------------------------------------------
# Calibration: a device with fitted numbers


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted number and its standard deviation, None where the data do not say. Its name carries the unit."""

    value: float
    sigma: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or not (self.sigma is None or 0 <= self.sigma < math.inf):
            raise BadInput(f"an estimate is {self.value!r} +- {self.sigma!r}: both must be finite, the second >= 0")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and how something was measured. `clocks_hz` and `driver` are what the machine tells, empty where it does
    not."""

    machine: str  # "AMD EPYC, 2 cores, Linux 6.1"
    device: str  # "NVIDIA H200"; of a CPU its model
    driver: str
    torch: str
    threads: int
    clocks_hz: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OpSample:
    """One op measured alone, every sample kept: seconds per call. Held-out samples never enter a fit.

    `cold`: its inputs were out of the caches. `noisy`: the spread stayed above the limit however often it was repeated.
    `faulted_bytes`: memory that the operating system had to map in per call, a cost of the allocator, not of the op.
    `density`: the share of its mask that was set, of an op whose time depends on it.
    """

    op: OpType
    cold: bool
    held_out: bool
    noisy: bool
    seconds: tuple[float, ...]
    faulted_bytes: int = 0
    density: float | None = None

    def __post_init__(self) -> None:
        if not self.seconds or not all(0 <= s < math.inf for s in self.seconds):
            raise BadInput(f"{self.op.name} was measured as {self.seconds[:3]}: at least one finite time is needed")

    @property
    def median_s(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2]

    @property
    def min_s(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True, slots=True)
class Fit:
    """The fitted time of one group of ops; pararev_hw.costmodels.calibrated.op_times says what each coefficient does.

    `group` is an op's name ("aten.convolution.default"), or a kind ("elementwise"), which stands in for the ops of
    that kind that were not measured. Residuals are |predicted / measured - 1| over the held-out samples; `bias` is
    the median of the signed ones. None: nothing was held out.
    """

    group: str
    dtype: str
    coefficients: Mapping[str, Estimate]
    samples: int
    held_out: int
    residual_median: float | None
    residual_p90: float | None
    bias: float | None


@dataclass(frozen=True, slots=True)
class PairSample:
    """Two ops, each again and again (`counts` times), on two threads or streams: seconds of each loop alone, and until
    both were done together; medians."""

    ops: tuple[OpType, OpType]
    alone_s: tuple[float, float]
    together_s: float
    counts: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class StepSample:
    """A whole step of a held-in network: every measured step, and what the ops alone predicted for it.

    `network` begins with the network's name and says which step it was ("revsresnet21 train, width 0.25, batch 8").
    """

    network: str
    seconds: tuple[float, ...]
    ops_s: float
    faulted_bytes: int = 0  # memory that the operating system had to map in
    flops: int = 0  # of the step's matrix operations; 0: not recorded


@dataclass(frozen=True, slots=True)
class Profile:
    """A device as it was measured: fitted times by kind of op, with uncertainties, residuals and the raw samples.

    `host` are overheads per op ("dispatch_s", "view_s", "autograd_s", ...), `curves` measured (size, rate) points by
    name, `corrections` what whole steps of the `held_in` networks showed beyond their ops (seconds per op by phase, as
    "backward_shift_s", what the allocator keeps, "kept_bytes", and what fresh memory costs). `missing` lists what was
    not measured, each with its reason: an interrupted calibration is a valid profile with something missing.
    """

    device: Device
    environment: Environment
    host: Mapping[str, Estimate]
    fits: tuple[Fit, ...]
    corrections: Mapping[str, Estimate]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    samples: tuple[OpSample, ...]
    pairs: tuple[PairSample, ...]
    steps: tuple[StepSample, ...]
    held_in: tuple[str, ...]
    missing: tuple[str, ...]
    seed: int
    schema_version: int = SCHEMA_VERSION

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def kind(self) -> str:
        return self.device.kind

    @property
    def lanes(self) -> int:
        return self.device.lanes


Hardware = Device | Profile


# ---------------------------------------------------------------------------------------------------------------
# Costs, schedules, predictions

EnergyParts = Mapping[str, float]  # part -> joule; parts: "compute", "sram", "dram", "noc", "neuron", "static", ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What one task costs on a device.

    `times_s[k]` is its time on lane k when nothing else runs, `inf` where it may not run there. While it runs it asks
    for the shares `compute_demand` and `bandwidth_demand` (0..1) of what the lanes have in common; where the total
    asked for exceeds 1, all running tasks slow down in proportion. `host_s` is the time the launching host needs for
    it (0: no host clock). `memory_bytes` is its output, alive until its last consumer ends. `lane_energy_j[k]` is its
    energy on lane k where lanes differ; empty where `energy_j` holds for all.
    """

    task: str
    times_s: tuple[float, ...]
    compute_demand: float = 0.0
    bandwidth_demand: float = 0.0
    host_s: float = 0.0
    memory_bytes: int = 0
    energy_j: EnergyParts = field(default_factory=dict)
    lane_energy_j: tuple[EnergyParts, ...] = ()

    @property
    def best_s(self) -> float:
        return min(self.times_s)

    def energy_on(self, lane: int) -> EnergyParts:
        """Energy of the task on that lane."""
        return self.lane_energy_j[lane] if self.lane_energy_j else self.energy_j


@dataclass(frozen=True, slots=True)
class CommEdge:
    """`dst` waits `delay_s` after the end of `src` where they run on different lanes, nothing on the same lane."""

    src: int
    dst: int
    delay_s: float = 0.0
    bytes: int = 0
    energy_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that is alive from the first start to the last end of `tasks`, or to the end of the step if it `stays`."""

    bytes: int
    tasks: tuple[int, ...]  # indices into Costs.tasks: who writes it and who reads it
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """A scheduling problem: tasks with times on lanes, and what must come before what.

    Memory is what `buffers` say; where there are none, each task's `memory_bytes` is a buffer of the task and its
    consumers (`held()` gives one or the other).

    Valid once constructed: ids unique, edges between known tasks, no cycle (a cycle is named), every task allowed on
    at least one lane, times finite or inf but never NaN or negative, sizes not negative.
    """

    device: str
    lanes: int
    tasks: tuple[Cost, ...]
    edges: tuple[CommEdge, ...]
    memory_limit_bytes: int | None = None
    static_bytes: int = 0  # alive all the time: parameters, optimizer state, input
    static_power_w: float = 0.0  # leakage or idle power: energy = power x makespan
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    buffers: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise BadInput(f"a schedule needs at least one lane, not {self.lanes}")
        seen: set[str] = set()
        for cost in self.tasks:
            if cost.task in seen:
                raise BadInput(f"task id {cost.task!r} occurs twice: ids must be unique")
            seen.add(cost.task)
            if len(cost.times_s) != self.lanes:
                raise BadInput(f"task {cost.task!r} has {len(cost.times_s)} times for {self.lanes} lanes: one per lane")
            for time_s in cost.times_s:
                if not time_s >= 0:
                    raise BadInput(f"task {cost.task!r} has a time of {time_s}: times are numbers >= 0")
            if cost.best_s == math.inf:
                raise BadInput(f"task {cost.task!r} may run on no lane: allow at least one of 0..{self.lanes - 1}")
            if cost.memory_bytes < 0:
                raise BadInput(f"task {cost.task!r} has {cost.memory_bytes} memory bytes: they must not be negative")
        for b in self.buffers:
            if b.bytes < 0 or not b.tasks or not all(0 <= i < len(self.tasks) for i in b.tasks):
                raise BadInput(f"a buffer of {b.bytes} bytes for tasks {b.tasks}: bytes >= 0, tasks that exist")
        self.topological_order()

    def held(self) -> tuple[Buffer, ...]:
        """What lives in memory beside `static_bytes`: who touches it, and how large it is."""
        if self.buffers:
            return self.buffers
        users = [[i] for i in range(len(self.tasks))]
        for e in self.edges:
            users[e.src].append(e.dst)
        return tuple(Buffer(c.memory_bytes, tuple(u)) for c, u in zip(self.tasks, users, strict=True) if c.memory_bytes)

    def successors(self) -> tuple[tuple[CommEdge, ...], ...]:
        """Outgoing edges of each task."""
        out: list[list[CommEdge]] = [[] for _ in self.tasks]
        for e in self.edges:
            out[e.src].append(e)
        return tuple(map(tuple, out))

    def predecessors(self) -> tuple[tuple[CommEdge, ...], ...]:
        """Incoming edges of each task."""
        into: list[list[CommEdge]] = [[] for _ in self.tasks]
        for e in self.edges:
            into[e.dst].append(e)
        return tuple(map(tuple, into))

    def topological_order(self) -> tuple[int, ...]:
        """Task indices, predecessors first, ties by index. Raises BadInput naming the cycle, if there is one."""
        import heapq

        n = len(self.tasks)
        if all(0 <= e.src < e.dst < n for e in self.edges):
            return tuple(range(n))
        missing = [0] * n
        out: list[list[int]] = [[] for _ in range(n)]
        for e in self.edges:
            if not (0 <= e.src < n and 0 <= e.dst < n):
                raise BadInput(f"edge {e.src} -> {e.dst} names a task that does not exist: there are {n}")
            out[e.src].append(e.dst)
            missing[e.dst] += 1
        ready = [i for i in range(n) if missing[i] == 0]
        order: list[int] = []
        while ready:
            i = heapq.heappop(ready)
            order.append(i)
            for j in out[i]:
                missing[j] -= 1
                if missing[j] == 0:
                    heapq.heappush(ready, j)
        if len(order) < n:
            raise BadInput(f"the tasks form a cycle: {' -> '.join(self._cycle(missing))}")
        return tuple(order)

    def _cycle(self, missing: list[int]) -> list[str]:
        """Ids along one cycle among the tasks that could not be ordered, the first one repeated at the end."""
        before: dict[int, int] = {}
        for e in self.edges:
            if missing[e.src] > 0 and missing[e.dst] > 0:
                before[e.dst] = min(e.src, before.get(e.dst, e.src))
        at = next(i for i in sorted(before) if missing[i] > 0)
        path: list[int] = []
        while at not in path:
            path.append(at)
            at = before[at]
        loop = path[path.index(at) :][::-1]
        return [self.tasks[i].task for i in (*loop, loop[0])]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to do part of a step: `tasks` take the place of the tasks `replaces` of a problem.

    Two alternatives that replace a common task exclude each other. The problem's edges follow: an edge that enters a
    replaced task enters `takes[edge]` instead, one that leaves it leaves `gives[edge]` (positions in `tasks`); an edge
    that is not named vanishes. `inner` edges join `tasks` by position. `after` are further edges, from a task of the
    problem, or whatever stands for it, to a position in `tasks`.

    `tasks` may hold a task of no time: it stands for memory that is kept from its start until its last consumer ends.

    Where the problem has buffers, one that a replaced task touches is touched by the positions `holds[buffer]` instead,
    by all of `tasks` where it is not named; the `memory_bytes` of `tasks` live until their last consumers end.
    """

    name: str  # "fuse stages.0.blocks.1 g + stages.0.blocks.2 f, forward"
    kind: Literal["share", "fuse", "split", "store", "wait"]
    replaces: tuple[int, ...]  # indices into Costs.tasks
    tasks: tuple[Cost, ...]
    takes: Mapping[int, tuple[int, ...]]  # keys are indices into Costs.edges
    gives: Mapping[int, tuple[int, ...]]
    inner: tuple[CommEdge, ...] = ()
    after: tuple[CommEdge, ...] = ()  # src: index into Costs.tasks, dst: position in `tasks`
    holds: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # keys are indices into Costs.buffers


@dataclass(frozen=True, slots=True)
class Placement:
    """Task `task` runs on `lane` from `start_s` to `end_s`."""

    task: str
    lane: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who runs where and when. Placements are sorted by start, then lane, then task id.

    `lower_bound_s` is a time that no schedule of the same problem can beat, `bound_by` says what sets it
    ("critical path", "work over lanes", ...). `optimal` is True only where the schedule is proved to be.

    `waits` are pairs (before, after) of task ids on different lanes: beyond what the edges ask for, `after` starts when
    `before` has ended. Whoever keeps lane orders, edges and waits stays within the memory limit, however long tasks
    take. `chosen` names the alternatives that were taken, `notes` what the scheduler has to say about its result.
    `front` are schedules of which none is both faster and smaller than another, where a scheduler was asked for those.
    """

    device: str
    scheduler: str
    lanes: int
    placements: tuple[Placement, ...]
    makespan_s: float
    sequential_s: float
    lower_bound_s: float
    bound_by: str
    optimal: bool
    peak_bytes: int | None = None
    energy_j: EnergyParts = field(default_factory=dict)
    waits: tuple[tuple[str, str], ...] = ()
    chosen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    front: tuple[Schedule, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def _repr_html_(self) -> str:
        return _html_table(
            f"{self.scheduler} on {self.device}",
            ("makespan", f"{self.makespan_s * 1e3:,.4g} ms"),
            ("speed-up over one lane", f"{self.speedup:.3f}"),
            ("lower bound", f"{self.lower_bound_s * 1e3:,.4g} ms ({self.bound_by})"),
            ("above the bound", f"{self.gap:.2%}"),
        )

    @property
    def speedup(self) -> float:
        """Time on one lane over this schedule's time."""
        return self.sequential_s / self.makespan_s if self.makespan_s > 0 else 1.0

    @property
    def gap(self) -> float:
        """How far above the lower bound, relative: 0 is proved optimal."""
        return self.makespan_s / self.lower_bound_s - 1.0 if self.lower_bound_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """Live bytes by role over time: `bytes[role][k]` is alive from `times_s[k]` to `times_s[k + 1]`."""

    times_s: tuple[float, ...]
    bytes: Mapping[str, tuple[int, ...]]

    @property
    def total(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*self.bytes.values(), strict=True))) if self.bytes else ()

    @property
    def peak_bytes(self) -> int:
        return max(self.total, default=0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a schedule costs when it is played on its device."""

    device: str
    scheduler: str
    launch: str  # "eager": a host launches every op; "graph": replayed as one graph, no host clock; "" where no host
    schedule: Schedule
    latency_s: float
    host_s: float  # time the launching host is busy; 0 where there is no host clock
    lane_busy_s: tuple[float, ...]
    peak_bytes: int
    memory: MemoryCurve
    energy_j: EnergyParts  # with "total"
    energy_by_phase_j: Mapping[str, EnergyParts]
    time_by_phase_s: Mapping[str, float]  # lane time spent in each phase
    standing: Standing
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    # of the step in program order as PyTorch's own allocator counts it, library workspaces included, where that is what
    # runs: a sequential schedule, launched eagerly, on a CPU or a GPU; `peak_bytes` is the tensors alone, as scheduled
    eager_peak_bytes: int | None = None
    schema_version: int = SCHEMA_VERSION

    def _repr_html_(self) -> str:
        return _html_table(
            f"{self.scheduler} on {self.device} ({self.standing} figures)",
            ("latency", f"{self.latency_s * 1e3:,.4g} ms"),
            ("peak memory", f"{self.peak_bytes / 2**20:,.1f} MiB"),
            ("energy", f"{self.energy_j.get('total', 0.0) * 1e3:,.4g} mJ"),
        )


# ---------------------------------------------------------------------------------------------------------------
# What reports show


@dataclass(frozen=True, slots=True)
class Study:
    """One network on one device: the step as PyTorch runs it and the schedules that were tried.

    `predictions[0]` is the sequential one that the others are compared with; `best` is the index of the recommended
    one. `critical_path` is weighted by time on the device.
    """

    graph: BlockGraph
    device: Device
    predictions: tuple[Prediction, ...]
    best: int
    critical_path: CriticalPath

    def __post_init__(self) -> None:
        if not 0 <= self.best < len(self.predictions):
            raise BadInput(f"best is {self.best}: it must name one of {len(self.predictions)} predictions")

    @property
    def sequential(self) -> Prediction:
        return self.predictions[0]

    @property
    def chosen(self) -> Prediction:
        return self.predictions[self.best]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several networks on one device, in the order the user named them."""

    device: Device
    studies: tuple[Study, ...]


# ---------------------------------------------------------------------------------------------------------------
# Validation: predictions beside real steps


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step takes, predicted or measured. `energy_j` None: the machine has no counter, or none is modelled."""

    latency_s: float
    peak_bytes: int
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class ValidationCase:
    """A network that really ran: what was predicted for a step of it, and what was measured.

    `held_out` "network": the calibration ran no whole step of this family of networks; "shape": it ran another depth or
    size of the family. `baselines` are seconds by name. `samples_s` is every measured step. A case that did not come
    to an end says why in `failed` and has no measurement.
    """

    name: str  # "pararevsnn37 train, width 0.25, batch 8, T 2, float32"
    network: str
    held_out: Literal["network", "shape"]
    mode: Literal["train", "infer"]
    launch: Literal["eager", "graph"]
    dtype: str
    batch: int
    timesteps: int
    width: float
    flops: int
    predicted: StepCost | None
    measured: StepCost | None
    baselines: Mapping[str, float] = field(default_factory=dict)
    samples_s: tuple[float, ...] = ()
    failed: str | None = None

    def __post_init__(self) -> None:
        if (self.measured is None) != (self.failed is not None):
            raise BadInput(f"case {self.name!r}: it has a measurement, or the reason why there is none")

    def error(self, quantity: Literal["latency_s", "peak_bytes", "energy_j"]) -> float | None:
        """Predicted over measured, minus 1; None where one of the two is not known."""
        if self.predicted is None or self.measured is None:
            return None
        predicted, measured = getattr(self.predicted, quantity), getattr(self.measured, quantity)
        return None if predicted is None or not measured else predicted / measured - 1.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far predictions are from measurements over `cases` cases; shares of one. `kendall_tau` tells how well the
    ranking is predicted: None where fewer than two cases, or no two different ones, are ranked."""

    cases: int
    mape: float  # mean of |predicted / measured - 1|
    max: float
    within_10pct: float
    kendall_tau: float | None


@dataclass(frozen=True, slots=True)
class Validation:
    """Predictions of one profile beside real training on its device.

    `by_held_out` splits latency by what a case holds out, `by_group` by family, mode, datatype and launch; `baselines`
    is the latency of simpler predictions on the same cases. `left_out` are cases that were not tried, each with its
    reason. `interrupted`: the user stopped it, and the cases are those that had ended.
    """

    device: str
    title: str
    kind: str
    suite: str
    environment: Environment
    cases: tuple[ValidationCase, ...]
    latency: Accuracy | None
    memory: Accuracy | None
    energy: Accuracy | None
    by_held_out: Mapping[str, Accuracy]
    baselines: Mapping[str, Accuracy]
    by_group: Mapping[str, Accuracy] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    schema_version: int = SCHEMA_VERSION

    def within(self, tolerance: float) -> bool:
        """Whether every mean error that was measured is at most `tolerance`, a share of one, and no case failed."""
        found = [a.mape for a in (self.latency, self.memory, self.energy) if a is not None]
        return bool(found) and max(found) <= tolerance and all(c.failed is None for c in self.cases)


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A relative figure of a paper beside our predictions of it, by way to launch."""

    quantity: str  # "training time"
    ratio: str  # "ParaRevSNN37 / RevSNN37"
    form: str  # which form of the network above the line is predicted: "2 lanes", "merged"; "" where it has but one
    source: str
    published: float
    predicted: Mapping[str, float]  # "eager", "graph", or "" where the way to launch means nothing


@dataclass(frozen=True, slots=True)
class PaperCheck:
    """Relative figures of a paper beside predictions, none of them fitted. `untraced` are published figures that no
    table of the paper gives."""

    paper: str
    device: str
    rows: tuple[PaperRow, ...]
    assumptions: tuple[str, ...]
    untraced: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION


# ---------------------------------------------------------------------------------------------------------------
# Sweeps: many configurations of a device and a network


@dataclass(frozen=True, slots=True)
class SweepAxis:
    """A parameter or an objective of a sweep: the name of its column, its unit, how it is best drawn."""

    name: str
    unit: str
    log: bool = False
    maximise: bool = False


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """A configuration that works: its number, its parameters and derived quantities, its objectives."""

    row: int
    parameters: Mapping[str, Any]
    objectives: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished sweep.

    `parameters` are those that vary, `fixed` those that do not. `pareto` is sorted by the first objective; `sample`
    are other configurations, for pictures. `sensitivity[objective][parameter]` is the share of the variance of the
    objective's logarithm that the parameter explains alone, None where nothing could be said. `configs_per_s` None:
    nothing was computed this time. `combinations` None: a range without steps has no number of values.
    """

    name: str
    device: str
    scheduler: str
    method: str
    parameters: tuple[SweepAxis, ...]
    fixed: Mapping[str, Any]
    objectives: tuple[SweepAxis, ...]
    evaluated: int
    failed: int
    reasons: Mapping[str, int]
    resumed: int
    configs_per_s: float | None
    pareto: tuple[SweepPoint, ...]
    sample: tuple[SweepPoint, ...]
    sensitivity: Mapping[str, Mapping[str, float | None]]
    combinations: int | None
    schema_version: int = SCHEMA_VERSION
