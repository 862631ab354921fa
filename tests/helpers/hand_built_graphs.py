"""Small step graphs made by hand, for tests that must not depend on the tracer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pararev_hw.types import BlockGraph, Edge, LayerSpikes, Op, OpType, Phase, Role, Spikes, StepMemory, Storage, Task

WORD = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


@dataclass
class Step:
    """Collects ops, storages and tasks; edges follow from which task touches which storage."""

    batch: int = 2
    channels: int = 8
    size: int = 8
    timesteps: int = 4
    dtype: str = "float32"
    types: list[OpType] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    tasks: list[tuple[str, str, str, Phase, list[int]]] = field(default_factory=list)

    @property
    def image(self) -> tuple[int, ...]:
        return (self.timesteps * self.batch, self.channels, self.size, self.size)

    def storage(self, shape: tuple[int, ...], role: Role, born: int = -1) -> int:
        self.storages.append(Storage(math.prod(shape) * WORD[self.dtype], role, born, -1))
        return len(self.storages) - 1

    def task(self, block: str, branch: str, phase: Phase) -> None:
        self.tasks.append((f"{block}.{branch}:{phase}", block, branch, phase, []))

    def op(
        self,
        kind: str,
        reads: tuple[int, ...],
        writes: tuple[int, ...],
        *,
        module: str = "",
        shape: tuple[int, ...] | None = None,
        flops: int = 0,
        vector_flops: int | None = 0,
    ) -> int:
        """Adds an op to the last task. Storages that it writes for the first time are born here."""
        index, out = len(self.ops), shape or self.image
        free = kind == "view"
        op_type = OpType(
            f"aten.{kind}.default", kind, self.dtype, (self.image,), (out,), (), flops, vector_flops,
            0 if free else sum(self.storages[s].bytes for s in reads),
            0 if free else sum(self.storages[s].bytes for s in writes),
        )  # fmt: skip
        if op_type not in self.types:
            self.types.append(op_type)
        phase = self.tasks[-1][3]
        self.tasks[-1][4].append(index)
        self.ops.append(Op(self.types.index(op_type), module, phase, reads, writes, ()))
        return index

    def new(self, kind: str, reads: tuple[int, ...], *, role: Role = "transient", module: str = "", **work: int) -> int:
        """An op that makes one new image-shaped storage; its id."""
        made = self.storage(self.image, role, len(self.ops))
        self.op(kind, reads, (made,), module=module, **work)  # type: ignore[arg-type]
        return made

    @property
    def conv_flops(self) -> int:
        return 2 * 9 * self.channels * math.prod(self.image)

    def conv(self, x: int, weight: int, module: str, role: Role = "transient") -> int:
        return self.new("conv", (x, weight), role=role, module=module, flops=self.conv_flops)

    def neuron(self, x: int, role: Role = "transient") -> int:
        return self.new("neuron", (x,), role=role, vector_flops=4 * math.prod(self.image))

    def add(self, a: int, b: int) -> int:
        return self.new("elementwise", (a, b), vector_flops=math.prod(self.image))

    def view(self, x: int) -> None:
        self.op("view", (x,), ())

    def weight(self) -> int:
        return self.storage((self.channels, self.channels, 3, 3), "parameter")

    def graph(self, name: str, rate: float | None = None, outlives: tuple[int, ...] = ()) -> BlockGraph:
        n, last = len(self.ops), {}
        for i, op in enumerate(self.ops):
            for s in (*op.reads, *op.writes):
                last[s] = i
        storages = tuple(
            Storage(s.bytes, s.role, s.born, n if s.born < 0 or k in outlives else last.get(k, s.born))
            for k, s in enumerate(self.storages)
        )
        tasks = []
        for task_id, block, branch, phase, members in self.tasks:
            kinds = [self.types[self.ops[i].type] for i in members]
            flops = sum(t.flops for t in kinds)
            spiking = round(rate * flops / 2) if rate is not None and phase in ("forward", "recompute") else None
            tasks.append(
                Task(
                    task_id,
                    block,
                    branch,
                    phase,
                    tuple(members),
                    flops,
                    sum(t.vector_flops or 0 for t in kinds),
                    sum(t.read_bytes for t in kinds),
                    sum(t.write_bytes for t in kinds),
                    spiking,
                )
            )
        modules = sorted({o.module for o in self.ops if self.types[o.type].kind == "conv"})
        macs = self.conv_flops / 2 / self.batch
        spikes = None
        if rate is not None:
            layers = tuple(LayerSpikes(m, rate, rate * macs, macs, True) for m in modules)
            spikes = Spikes(True, "made by hand", rate, layers)
        return BlockGraph(
            name, "train", self.batch, self.timesteps, self.dtype, "block", (self.image,),
            sum(s.bytes for s in storages if s.role == "parameter") // WORD[self.dtype],
            tuple(self.types), tuple(self.ops), storages, tuple(tasks), self._edges(),
            StepMemory(0, 0, 0, 0, 0, 0, 0, 0), spikes,
        )  # fmt: skip

    def _edges(self) -> tuple[Edge, ...]:
        """Read after write carries bytes; write after read and write after write carry none."""
        flow: dict[tuple[int, int], int] = {}
        writer: dict[int, int] = {}
        readers: dict[int, set[int]] = {}
        carried: set[tuple[int, int]] = set()
        for t, (*_, members) in enumerate(self.tasks):
            for i in members:
                for s in self.ops[i].reads:
                    if (w := writer.get(s, t)) != t:
                        new = 0 if (s, t) in carried else self.storages[s].bytes
                        flow[w, t] = flow.get((w, t), 0) + new
                        carried.add((s, t))
                    readers.setdefault(s, set()).add(t)
                for s in self.ops[i].writes:
                    for before in {writer.get(s, t), *readers.get(s, ())} - {t}:
                        flow.setdefault((before, t), 0)
                    writer[s] = t
        return tuple(Edge(a, b, size) for (a, b), size in sorted(flow.items()))


def chain(n: int, rate: float | None = None, **shape: object) -> BlockGraph:
    """n spiking layers, forward, backward and update: no two tasks of a phase may run at once."""
    step = Step(**shape)  # type: ignore[arg-type]
    weights = [step.weight() for _ in range(n)]
    x = step.storage(step.image, "input")
    spikes = []
    for k, w in enumerate(weights):
        step.task(f"layer{k}", "", "forward")
        spikes.append(step.neuron(x, "saved"))
        x = step.conv(spikes[k], w, f"layer{k}.conv")
        step.view(x)
    gradients, grad = [], x
    for k in reversed(range(n)):
        step.task(f"layer{k}", "", "backward")
        grad, dw = _conv_backward(step, grad, spikes[k], weights[k], f"layer{k}.conv")
        gradients.append((k, dw))
    for k, dw in gradients:
        step.task(f"layer{k}", "", "update")
        step.op("optimizer", (dw, weights[k]), (weights[k],), shape=(1,), vector_flops=4)
    return step.graph(f"chain{n}", rate, tuple(dw for _, dw in gradients))


def _conv_backward(step: Step, grad: int, x: int, weight: int, module: str) -> tuple[int, int]:
    """(input gradient, weight gradient)."""
    dx = step.storage(step.image, "cotangent", len(step.ops))
    dw = step.storage((step.channels, step.channels, 3, 3), "gradient", len(step.ops))
    step.op("conv_backward", (grad, x, weight), (dx, dw), module=module, flops=2 * step.conv_flops)
    return dx, dw


def pararev_stage(n: int, rate: float | None = None, **shape: object) -> BlockGraph:
    """Forward of n ParaRev blocks, a_i = b_(i-1) + F_i(a_(i-1)), b_i = a_(i-1) + G_i(a_i): G_i and F_(i+1) are free to
    run together."""
    step = Step(**shape)  # type: ignore[arg-type]
    a, b = step.storage(step.image, "input"), step.storage(step.image, "input")
    for i in range(n):
        block = f"blocks.{i}"
        step.task(block, "f", "forward")
        f = step.conv(step.neuron(a), step.weight(), f"{block}.f.conv")
        step.task(block, "join", "forward")
        a_next = step.add(b, f)
        step.task(block, "g", "forward")
        g = step.conv(step.neuron(a_next), step.weight(), f"{block}.g.conv")
        step.task(block, "join_g", "forward")
        a, b = a_next, step.add(a, g)
    return step.graph(f"pararev{n}", rate, (a, b))
