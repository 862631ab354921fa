"""Weights of an ONNX model wherever its exporter put them: in Constant and ConstantOfShape nodes, or left out.

Some exporters write weights as nodes instead of initializers; workloads for hardware models are shipped without the
values of their weights, which nothing but the values needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from pararev_hw.atomic import real_path
from pararev_hw.errors import BadFile

# inputs of each operator that hold weights; None: all that are constant
_WEIGHT_INPUTS: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "PRelu", "LSTM", "GRU", "RNN"), (1, 2, 3)),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "InstanceNormalization"), (1, 2)),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "MatMul": None,
    "Gather": (0,),
}


_REAL_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def constants_to_initializers(model: ModelProto, limit_bytes: int) -> None:
    """Move weights that stand in nodes to the initializers, in place, also in the bodies of loops and branches."""
    _to_initializers(model.graph, limit_bytes)


def _to_initializers(graph: GraphProto, limit_bytes: int) -> None:
    for body in [a.g for node in graph.node for a in node.attribute if a.g.node]:
        _to_initializers(body, limit_bytes)
    weight_names = _weight_names(graph)
    values = {t.name: t for t in graph.initializer}
    rest, total = [], 0
    for node in graph.node:
        weight = _constant(node, values, limit_bytes) if node.output and node.output[0] in weight_names else None
        if weight is None or weight.data_type not in _REAL_TYPES or not weight.dims:
            if node.op_type == "Constant" and (proto := _value(node)) is not None:
                values[node.output[0]] = proto
            rest.append(node)
            continue
        total += 8 * math.prod(weight.dims)
        if total > limit_bytes:
            raise BadFile(f"the weights in its nodes have more than {limit_bytes} bytes")
        moved = graph.initializer.add()
        moved.CopyFrom(weight)
        moved.name = node.output[0]
    if len(rest) < len(graph.node):
        del graph.node[:]
        graph.node.extend(rest)


def _weight_names(graph: GraphProto) -> set[str]:
    """Values that an operator takes for weights, also through an Identity."""
    names: set[str] = set()
    for node in graph.node:
        positions = _WEIGHT_INPUTS.get(node.op_type, ())
        names |= {name for k, name in enumerate(node.input) if positions is None or k in positions}
    products = {node.output[0] for node in graph.node if node.op_type in ("MatMul", "Conv", "Gemm")}
    for node in graph.node:
        if node.op_type == "Add" and any(name in products for name in node.input):
            names |= set(node.input) - products  # a bias that is added by a node of its own
    for node in reversed(graph.node):
        if node.op_type == "Identity" and node.output[0] in names:
            names.add(node.input[0])
    return names


def _value(node: NodeProto) -> TensorProto | None:
    return next((a.t for a in node.attribute if a.name == "value"), None)


def _constant(node: NodeProto, values: Mapping[str, TensorProto], limit_bytes: int) -> TensorProto | None:
    """The tensor that a node gives whatever its inputs are, None where there is no such one."""
    if node.op_type == "Constant":
        return _value(node)
    if node.op_type != "ConstantOfShape" or node.input[0] not in values:
        return None
    shape = tuple(int(n) for n in numpy_helper.to_array(values[node.input[0]]))
    if any(n < 0 for n in shape) or 8 * math.prod(shape) > limit_bytes:
        return None
    fill = _value(node)
    number = np.zeros(1, np.float32) if fill is None else numpy_helper.to_array(fill).reshape(-1)[:1]
    return numpy_helper.from_array(np.full(shape, number, number.dtype))


def fill_absent_weights(model: ModelProto, folder: Path, limit_bytes: int) -> tuple[str, ...]:
    """Put zeros where the values of weights are neither in the model nor in a file beside it; the weights' names."""
    kinds = TensorProto
    widths = {kinds.FLOAT: 4, kinds.DOUBLE: 8, kinds.FLOAT16: 2, kinds.BFLOAT16: 2, kinds.INT8: 1, kinds.UINT8: 1}
    _inputs_to_initializers(model.graph)
    names, total = [], 0
    for tensor in model.graph.initializer:
        size = math.prod(tensor.dims)
        width = widths.get(tensor.data_type, 0)
        outside = tensor.data_location == TensorProto.EXTERNAL
        if not width or size < 1 or not (_absent_file(tensor, folder) if outside else _empty(tensor)):
            continue
        total += size * width
        if total > limit_bytes:
            raise BadFile(f"its weights have more than {limit_bytes} bytes")
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        tensor.raw_data = bytes(size * width)
        names.append(tensor.name)
    return tuple(names)


def _inputs_to_initializers(graph: GraphProto) -> None:
    """Weights that a file lists among its inputs alone, with their shapes: initializers without values."""
    initializer_names = {t.name for t in graph.initializer}
    where: dict[str, set[bool]] = {}
    for node in graph.node:
        positions = _WEIGHT_INPUTS.get(node.op_type) or ()
        for k, name in enumerate(node.input):
            where.setdefault(name, set()).add(k in positions)
    weights = [v for v in graph.input if v.name not in initializer_names and where.get(v.name) == {True}]
    for value in weights:
        kind = value.type.tensor_type
        sizes = [d.dim_value for d in kind.shape.dim]
        if sizes and min(sizes) > 0 and len(weights) < len(graph.input):
            graph.initializer.add(name=value.name, data_type=kind.elem_type, dims=sizes)


def _empty(tensor: TensorProto) -> bool:
    return not (tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.double_data)


def _absent_file(tensor: TensorProto, folder: Path) -> bool:
    """Whether the file of a tensor's values would lie in the folder, and is not there."""
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    place = real_path(folder / location)
    return bool(location) and place.is_relative_to(real_path(folder)) and not place.exists()
