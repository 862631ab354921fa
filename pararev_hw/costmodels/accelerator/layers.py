"""A step's layers as a table: what an accelerator runs as one pipeline, told apart only where it costs differently.

A *layer* is a run of operations of one task: it begins with one that needs all of its input before it gives its first
result (a convolution, a matrix product, a normalisation over the batch, a sum) and goes on with all elementwise work
and neurons up to the next such operation. Inside a layer, a few channels of a few samples pass through all operations
before the next ones do, all time steps of them together, so what one operation hands to the next takes little room,
and a neuron's membrane is such a thing. What a later layer reads must be whole.

Tasks that are made alike (the same operations on storages of the same sizes, with the same spikes) share their rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.accelerator.products import Product, products
from pararev_hw.costmodels.spikes import spiking_share
from pararev_hw.costmodels.traffic import Floats, Ints, Traffic, traffic
from pararev_hw.graph import layer_of_op
from pararev_hw.sizes import item_bytes
from pararev_hw.types import BlockGraph, OpType

# Kinds of words, each with a precision of its own.
WORDS = ("activation", "weight", "spike", "gradient")
ACTIVATION, WEIGHT, SPIKE, GRADIENT = range(4)

_WHOLE_INPUT = frozenset(
    """conv conv_backward gemm attention attention_backward norm_backward reduction softmax loss scan sort fft
    host""".split()
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A product of a layer and where its operands live: storage numbers of its task, -1 where none was found."""

    product: Product
    share: float  # of dense MACs that spikes cause; 1 for an input that is no spikes
    spiking: bool
    density: tuple[float, ...]  # of each input channel, where it was measured
    words: tuple[int, int, int]  # kinds of input, second operand, output
    storages: tuple[int, int]  # input, output
    resident: bool  # the second operand is a parameter


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes that an elementwise or other non-matrix operation of a layer moves."""

    storage: int
    bytes: float
    write: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """`vector` and `neuron` are elementary operations; accesses are those of everything but products."""

    phase: str
    matrices: tuple[Matrix, ...]
    vector: float
    neuron: float
    accesses: tuple[Access, ...]
    works: bool


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A storage as its task sees it. `first` and `last` are operations of the task, counted from its first.

    `inside`: made, used and dropped by this task. `slices`: in how many parts it can pass through its layer.
    """

    bytes: int
    word: int
    parameter: bool
    inside: bool
    slices: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class TaskLayers:
    """The layers of all tasks that are made alike."""

    layers: tuple[Layer, ...]
    storages: tuple[LocalStorage, ...]


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Everything of a graph that no accelerator changes. Rows are layers, class by class.

    `class_of_task` [tasks] and `row_of_op` [ops] (-1: an op of no task) say where a task and an op are found;
    `starts` [classes + 1] where the rows of a class begin. `weight_bytes` is that of all parameters, `word_bytes` the
    width of a traced word.
    """

    classes: tuple[TaskLayers, ...]
    class_of_task: Ints
    starts: Ints
    row_of_op: Ints
    weight_bytes: int
    word_bytes: int
    dtype: str

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        return tuple(layer for c in self.classes for layer in c.layers)


def layer_table(graph: BlockGraph, flow: Traffic | None = None) -> LayerTable:
    """The layers of a graph's tasks."""
    view = _View.of(graph, traffic(graph) if flow is None else flow)
    class_of: dict[TaskLayers, int] = {}
    class_of_task = np.zeros(len(graph.tasks), np.int64)
    layer_of_op: list[tuple[int, int, int]] = []  # (op, class, layer of the class)
    for number, task in enumerate(graph.tasks):
        layers, where = view.task(task.ops, task.phase)
        k = class_of.setdefault(layers, len(class_of))
        class_of_task[number] = k
        layer_of_op += [(op, k, at) for op, at in zip(task.ops, where, strict=True)]
    classes = tuple(class_of)
    starts = np.concatenate(([0], np.cumsum([len(c.layers) for c in classes]))).astype(np.int64)
    row_of_op = np.full(len(graph.ops), -1)
    for op, k, at in layer_of_op:
        row_of_op[op] = starts[k] + at
    weights = sum(s.bytes for s in graph.storages if s.role == "parameter")
    return LayerTable(classes, class_of_task, starts, row_of_op, weights, item_bytes(graph.dtype), graph.dtype)


@dataclass(frozen=True, slots=True)
class _View:
    """A graph's facts by op and by storage, gathered once."""

    graph: BlockGraph
    inside: NDArray[np.bool_]
    word: list[int]
    share: Floats
    density: Mapping[str, tuple[float, ...]]  # of each layer
    layer_names: tuple[str | None, ...]  # of each op
    products: Mapping[int, tuple[Product, ...]]  # op type -> its products

    @staticmethod
    def of(graph: BlockGraph, flow: Traffic) -> _View:
        share = spiking_share(graph)
        layers = graph.spikes.layers if graph.spikes is not None else ()
        spikes: set[int] = set()
        for i, op in enumerate(graph.ops):
            if not math.isnan(share[i]):
                spikes |= {s for s in op.reads if graph.storages[s].role not in ("parameter", "input")}
        word = [
            SPIKE if k in spikes
            else WEIGHT if s.role in ("parameter", "buffer", "optimizer")
            else GRADIENT if s.role in ("gradient", "cotangent")
            else ACTIVATION
            for k, s in enumerate(graph.storages)
        ]  # fmt: skip
        by_module = {layer.module: layer.channel_density for layer in layers if layer.spiking}
        names = layer_of_op(graph)
        products_of = {k: products(t) for k, t in enumerate(graph.op_types) if t.flops > 0}
        return _View(graph, flow.internal, word, _backward_too(graph, share), by_module, names, products_of)

    def task(self, ops: Sequence[int], phase: str) -> tuple[TaskLayers, list[int]]:
        """Layers of a task, and the layer of each of its ops."""
        graph = self.graph
        where: list[int] = []
        local: dict[int, int] = {}
        first: list[int] = []
        last: list[int] = []
        for at, i in enumerate(ops):
            op, t = graph.ops[i], graph.op_types[graph.ops[i].type]
            begins = at > 0 and _needs_whole_input(t, graph.mode)
            where.append((where[-1] if where else 0) + (1 if begins else 0))
            for s in (*op.reads, *op.writes):
                if s not in local:
                    local[s] = len(local)
                    first.append(at)
                    last.append(at)
                last[local[s]] = at
        split = self._splits(ops, where, local)
        storages = tuple(
            LocalStorage(
                graph.storages[s].bytes, self.word[s], graph.storages[s].role == "parameter",
                bool(self.inside[s]), split[k], first[k], last[k],
            )
            for s, k in local.items()
        )  # fmt: skip
        members: list[list[int]] = [[] for _ in range(where[-1] + 1 if where else 0)]
        for at, i in zip(where, ops, strict=True):
            members[at].append(i)
        return TaskLayers(tuple(self._layer(m, phase, local) for m in members), storages), where

    def _splits(self, ops: Sequence[int], where: list[int], local: Mapping[int, int]) -> list[int]:
        """For each storage of a task: the parts in which it can pass through its layer, 1 where it must be whole."""
        layers: list[set[int]] = [set() for _ in local]
        parts = [1] * len(local)
        whole = [False] * len(local)
        for at, i in zip(where, ops, strict=True):
            op, t = self.graph.ops[i], self.graph.op_types[self.graph.ops[i].type]
            needs = _needs_whole_input(t, self.graph.mode)
            for s in op.reads:
                layers[local[s]].add(at)
                whole[local[s]] |= needs
            for s in op.writes:
                layers[local[s]].add(at)
                parts[local[s]] = max(parts[local[s]], self._parts(t))
        return [1 if w or len(k) > 1 else p for p, w, k in zip(parts, whole, layers, strict=True)]

    def _parts(self, t: OpType) -> int:
        """Samples x channels of what an op makes: `[batch, C, ...]`, `[T x batch, C, ...]` or `[T, batch, C, ...]`."""
        shape = t.output_shapes[0] if t.output_shapes else ()
        batch, steps = self.graph.batch, self.graph.timesteps or 1
        if len(shape) >= 2 and shape[0] in (batch, steps * batch):
            return batch * shape[1]
        if len(shape) >= 3 and shape[:2] == (steps, batch):
            return batch * shape[2]
        return 1

    def _layer(self, ops: Sequence[int], phase: str, local: Mapping[int, int]) -> Layer:
        graph = self.graph
        matrices: list[Matrix] = []
        accesses: list[Access] = []
        vector = neuron = 0.0
        for i in ops:
            op, t = graph.ops[i], graph.op_types[graph.ops[i].type]
            if t.kind == "neuron" and phase in ("forward", "recompute"):
                neuron += t.vector_flops or 0
            else:
                vector += t.vector_flops or 0
            op_products = self.products.get(op.type, ())
            if op_products:
                matrices += self._matrices(i, local)
            if not all(p.has_loops for p in op_products) or not op_products:
                accesses += self._accesses(op.reads, t.read_bytes, False, local)
                accesses += self._accesses(op.writes, t.write_bytes, True, local)
        works = bool(matrices) or vector > 0 or neuron > 0 or any(a.bytes > 0 for a in accesses)
        return Layer(phase, tuple(matrices), vector, neuron, tuple(accesses), works)

    def _accesses(self, storages: tuple[int, ...], total: int, write: bool, local: Mapping[int, int]) -> list[Access]:
        """An op's bytes by storage. A view reads part of a large storage, so small ones are taken for read whole."""
        accesses, left = [], total
        for k, s in enumerate(sorted(storages, key=lambda s: (self.graph.storages[s].bytes, s))):
            fair = -(-left // (len(storages) - k))
            part = min(self.graph.storages[s].bytes, left if k == len(storages) - 1 else fair)
            left -= part
            if part:
                accesses.append(Access(local[s], float(part), write))
        return accesses

    def _matrices(self, i: int, local: Mapping[int, int]) -> list[Matrix]:
        """The products of an op, each with the storages of its input and output."""
        graph, op = self.graph, self.graph.ops[i]
        roles = {s: graph.storages[s].role for s in (*op.reads, *op.writes)}
        size = {s: graph.storages[s].bytes for s in (*op.reads, *op.writes)}
        weights = [s for s in op.reads if roles[s] == "parameter"]
        others = sorted((s for s in op.reads if roles[s] != "parameter"), key=lambda s: (-size[s], s))
        gradients = [s for s in others if roles[s] == "cotangent"]
        inputs = [s for s in others if s not in gradients] or others
        outputs = sorted(op.writes, key=lambda s: (-size[s], s))
        share = 1.0 if math.isnan(self.share[i]) else float(self.share[i])
        spiking = not math.isnan(self.share[i])
        density = self.density.get(self.layer_names[i] or "", ()) if spiking else ()
        matrices = []
        for p in self.products[op.type]:
            if p.kind == "input_gradient":
                source = (gradients or others)[:1]
                out = [s for s in outputs if roles[s] != "gradient"][:1]
                words = (GRADIENT, WEIGHT, GRADIENT)
                matrices.append(Matrix(p, 1.0, False, (), words, self._pair(source, out, local), bool(weights)))
                continue
            source = [s for s in inputs if self.word[s] == SPIKE][:1] or inputs[:1]
            kind = self.word[source[0]] if source else ACTIVATION
            if p.kind == "weight_gradient":
                out = [s for s in outputs if roles[s] == "gradient"][:1] or outputs[-1:]
                words = (kind, GRADIENT, GRADIENT)
            else:
                out = outputs[:1]
                second = WEIGHT if weights else self.word[others[-1]] if others else ACTIVATION
                words = (kind, second, self.word[out[0]] if out else ACTIVATION)
            resident = p.kind == "forward" and bool(weights)
            matrices.append(Matrix(p, share, spiking, density, words, self._pair(source, out, local), resident))
        return matrices

    def _pair(self, source: Sequence[int], out: Sequence[int], local: Mapping[int, int]) -> tuple[int, int]:
        return (local[source[0]] if source else -1, local[out[0]] if out else -1)


def _needs_whole_input(t: OpType, mode: str) -> bool:
    """Whether an op gives nothing before it has read everything. Normalisation over the batch does so in training."""
    return t.kind in _WHOLE_INPUT or (t.kind == "norm" and mode == "train")


def _backward_too(graph: BlockGraph, share: Floats) -> Floats:
    """Spiking shares, also for gradients: the weight gradient of a layer reads the same spikes as the layer did."""
    share_of_module = {op.module: float(share[i]) for i, op in enumerate(graph.ops) if not math.isnan(share[i])}
    both = share.copy()
    for i, op in enumerate(graph.ops):
        if op.phase == "backward" and graph.op_types[op.type].kind == "conv_backward" and op.module in share_of_module:
            both[i] = share_of_module[op.module]
    return both
