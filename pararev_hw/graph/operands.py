"""The operands of a layer's operation: which is the activation, and which the weight.

A convolution's weight stands second. Of a matrix product the weight is the factor that is a parameter, on whichever
side it stands (`x @ W.T`, `W @ x`); where neither or both are, it is the second one, of a matrix with a vector the
matrix. An embedding bag multiplies one row of zeros and ones for each bag with its table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pararev_hw.graph.sites import parameter_behind
from pararev_hw.types import BlockGraph, Op, OpType
from pararev_hw.types.op_names import EMBEDDING_BAGS, base_name, factors

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operands:
    """Shapes. `channels`: outputs that share an input; `rows`: vectors (of a convolution: images) that meet the weight.
    `weight_is_parameter`: False where both operands are computed."""

    activation: Shape
    weight: Shape
    channels: int
    rows: int
    weight_is_parameter: bool


def operands(graph: BlockGraph, op: Op) -> Operands:
    """Of a convolution, a matrix product or an embedding bag."""
    op_type = graph.op_types[op.type]
    shapes = op_type.input_shapes
    if base_name(op_type.name) in EMBEDDING_BAGS:
        bags, (rows, columns) = op_type.output_shapes[0][0], shapes[0]
        return Operands((bags, rows), (rows, columns), columns, bags, True)
    behind = (parameter_behind(graph.op_types, graph.ops, graph.storages, s) for s in op.reads)
    sizes = [graph.storages[s].bytes for s, parameter in zip(op.reads, behind, strict=True) if parameter >= 0]
    if op_type.kind == "conv":
        return Operands(shapes[0], shapes[1], op_type.output_shapes[0][1], shapes[0][0], bool(sizes))
    left, right = (shapes[k] for k in factors(op_type.name))
    at = _weight_side(left, right, _item_bytes(op_type), sizes)
    if at == 0 or (at is None and len(right) == 1):
        channels = left[-2] if len(left) > 1 else 1
        return Operands(right, left, channels, math.prod(right) // left[-1], at is not None)
    return Operands(left, right, right[-1] if len(right) > 1 else 1, math.prod(left[:-1]), at is not None)


def _item_bytes(op_type: OpType) -> int:
    """Bytes of one element of the result."""
    elements = math.prod(op_type.output_shapes[0])
    return max(1, op_type.write_bytes // max(1, elements))


def _weight_side(left: Shape, right: Shape, item_bytes: int, parameters: Sequence[int]) -> int | None:
    """0 or 1: the factor that is a parameter of one of these sizes, or else a part of one; None where none is."""
    whole = [at for at, shape in ((1, right), (0, left)) if math.prod(shape) * item_bytes in parameters]
    if whole:
        return whole[0]
    parts = [
        at
        for at, shape in ((1, right), (0, left))
        if any(size > (part := math.prod(shape) * item_bytes) and size % part == 0 for size in parameters)
    ]
    return parts[0] if parts else None
