"""The layers of a step: each matrix operation of the graph and the layer that it belongs to.

A layer is a module that does one convolution or matrix product (or sums the rows of a table that indices name, which is
a product too); where a module does several (attention, functional calls on weights of its own), each distinct one is a
layer, told apart by its weight or, without weights, by its sizes: "attn", "attn:2", "attn:3". The calls of one layer
over time steps and micro-batches belong together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from pararev_hw.types import BlockGraph, Op, OpType, Storage
from pararev_hw.types.op_names import EMBEDDING_BAGS, base_name

MATRIX_KINDS = ("conv", "gemm")


def layer_names(modules_and_keys: Sequence[tuple[str, Hashable]]) -> list[str]:
    """The name of each operation's layer: its module, and a number where the module has several distinct keys."""
    numbers: dict[str, dict[Hashable, int]] = {}
    names: list[str] = []
    for module, key in modules_and_keys:
        keys = numbers.setdefault(module, {})
        number = keys.setdefault(key, len(keys) + 1)
        names.append(module if number == 1 else f"{module}:{number}")
    return names


def layer_of_op(graph: BlockGraph) -> tuple[str | None, ...]:
    """Per op the name of its layer, None where it is no forward or recomputed convolution, matrix product
    or embedding bag."""
    return layer_of_ops(graph.op_types, graph.ops, graph.storages)


def layer_of_ops(types: Sequence[OpType], ops: Sequence[Op], storages: Sequence[Storage]) -> tuple[str | None, ...]:
    """`layer_of_op` of a graph's parts."""
    matrix = [k for k, t in enumerate(types) if t.kind in MATRIX_KINDS or base_name(t.name) in EMBEDDING_BAGS]
    of_type = {k: _sizes(types[k]) for k in matrix}
    places = [k for k, op in enumerate(ops) if op.type in of_type and op.phase in ("forward", "recompute")]

    def weights(op: Op) -> tuple[int, ...]:
        return tuple(sorted(p for s in op.reads if (p := parameter_behind(types, ops, storages, s)) >= 0))

    keys = [(ops[k].module, weights(ops[k]) or of_type[ops[k].type]) for k in places]
    names: list[str | None] = [None] * len(ops)
    for k, name in zip(places, layer_names(keys), strict=True):
        names[k] = name
    return tuple(names)


def parameter_behind(types: Sequence[OpType], ops: Sequence[Op], storages: Sequence[Storage], storage: int) -> int:
    """The parameter that a storage holds, itself or cast to another type; -1 where it holds something else."""
    s = storages[storage]
    if s.role == "parameter":
        return storage
    if s.born >= 0 and types[ops[s.born].type].name.startswith("aten._to_copy"):
        reads = ops[s.born].reads
        if len(reads) == 1 and storages[reads[0]].role == "parameter":
            return reads[0]
    return -1


def _sizes(op_type: OpType) -> Hashable:
    """What tells an op without weights from another: its name and the sizes that do not depend on the batch."""
    shapes = op_type.input_shapes
    if op_type.kind == "conv":
        return op_type.name, shapes[1:2]
    return op_type.name, *(shape[-2:] for shape in shapes[-1:]), *(shape[-1:] for shape in shapes[-2:-1])
