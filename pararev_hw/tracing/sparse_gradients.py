"""Sparse gradients, as an embedding with `sparse=True` gives them, written down by their two dense parts.

A sparse tensor has no memory of its own: it holds indices [dims, n] and values [n, ...]. It stands in the tape as a
view of its values, and what is done with it as ops on the parts. (Fake sparse tensors cannot stand in for this: they
lose their elements when they are copied.) The number of elements is that of the rows looked up, repeated ones included;
what merges equal rows (`coalesce`) would make it depend on data, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pararev_hw.errors import TraceError
from pararev_hw.torch_private import FakeTensor, graph_task_id
from pararev_hw.types import OpType

if TYPE_CHECKING:
    from pararev_hw.tracing.recorder import Recorder

_aten = torch.ops.aten
MAKE = torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors.default
_BAG = torch.ops.aten._embedding_bag_backward.default
MAKERS = frozenset({MAKE, _BAG})
_SUM, _MEAN = 0, 1  # modes of an embedding bag
_ADDED = (_aten.add_.Tensor, _aten.sub_.Tensor)
_OF_SHAPE = (_aten.sparse_dim.default, _aten.dense_dim.default)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a fake sparse tensor stands for."""

    sparse_dim: int
    dense_dim: int
    size: tuple[int, ...]
    indices: Any
    values: Any


def makes_sparse(func: Any, args: Sequence[Any]) -> bool:
    return func is MAKE or (func is _BAG and bool(args[9]))


def is_sparse(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.layout is torch.sparse_coo


def has_sparse(args: Sequence[Any]) -> bool:
    return any(is_sparse(a) or (isinstance(a, list | tuple) and any(map(is_sparse, a))) for a in args)


def run(recorder: Recorder, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `func` gives, which makes a sparse tensor or is given one, its work recorded."""
    if func is MAKE:
        sparse_dim, dense_dim, size, indices, values = args[:5]
        return _new_sparse(
            recorder, sparse_dim, dense_dim, size, indices, values, kwargs.get("dtype"), kwargs.get("device")
        )
    if func is _BAG:
        return _of_bags(recorder, *args)
    parts = [a.pararev_parts for a in args if is_sparse(a)]
    if func is torch.ops.aten._indices.default:
        return _view(recorder, parts[0].indices)
    if func is torch.ops.aten._values.default:
        return _view(recorder, parts[0].values)
    if func is _aten.is_coalesced.default:
        return False
    if func is torch.ops.aten._nnz.default:
        return int(parts[0].values.shape[0])
    if func in _OF_SHAPE:
        return func(*args)
    # autograd's copy of a gradient that nobody else has is the gradient itself: torch steals its parts
    if func is _aten.detach.default or (func is _aten.clone.default and graph_task_id() != -1):
        return _with_parts(recorder, parts[0], parts[0].indices, parts[0].values)
    if func is _aten.clone.default:
        return _with_parts(recorder, parts[0], _copy(recorder, parts[0].indices), _copy(recorder, parts[0].values))
    if func is _aten.add.Tensor and len(parts) == 2:  # gradients of two uses: one after the other
        indices = recorder.__torch_dispatch__(_aten.cat.default, (), ([p.indices for p in parts], 1))
        values = recorder.__torch_dispatch__(_aten.cat.default, (), ([p.values for p in parts], 0))
        return _with_parts(recorder, parts[0], indices, values)
    if func in _ADDED and not is_sparse(args[0]) and is_sparse(args[1]):
        return _added(recorder, func, args, kwargs)
    raise TraceError(
        f"a sparse gradient goes through {func}, whose work depends on its values: "
        "train with plain SGD (--optimizer sgd-plain), or make the embedding with sparse=False"
    )


def _view(recorder: Recorder, tensor: Any) -> Any:
    return recorder.__torch_dispatch__(_aten.detach.default, (), (tensor,))


def _copy(recorder: Recorder, tensor: Any) -> Any:
    return recorder.__torch_dispatch__(_aten.clone.default, (), (tensor,))


def _with_parts(recorder: Recorder, parts: Parts, indices: Any, values: Any) -> Any:
    return _new_sparse(recorder, parts.sparse_dim, parts.dense_dim, parts.size, indices, values)


def _new_sparse(
    recorder: Recorder,
    sparse_dim: int,
    dense_dim: int,
    size: Sequence[int],
    indices: Any,
    values: Any,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Any:
    dtype, device = dtype or values.dtype, device or values.device
    args = (sparse_dim, dense_dim, list(size), indices, values)
    kwargs = {"dtype": dtype, "layout": torch.sparse_coo, "device": device, "pin_memory": False}
    with recorder.fake:
        out = MAKE(*args, **kwargs)
    out.pararev_parts = Parts(sparse_dim, dense_dim, tuple(size), indices, values)
    type_ = OpType(
        str(MAKE),
        "view",
        _name(dtype),
        (tuple(indices.shape), tuple(values.shape)),
        (tuple(values.shape),),
        (),
        0,
        0,
        0,
        0,
    )
    recorder.record_view(MAKE, args, kwargs, [indices, values], out, of=1, op_type=type_)
    return out


def _of_bags(
    recorder: Recorder,
    gradient: Any,
    indices: Any,
    offsets: Any,
    bag_of: Any,
    bag_size: Any,
    maximum: Any,
    rows: int,
    by_frequency: bool,
    mode: int,
    sparse: bool,
    weights: Any,
    padding: int = -1,
) -> Any:
    """The gradient of a table whose rows were added up in bags, as `_embedding_bag_sparse_backward` makes it."""
    if by_frequency or weights is not None or padding >= 0 or mode not in (_SUM, _MEAN):
        raise TraceError(
            "the sparse gradient of an embedding bag with weights, padding, maxima or scaling by frequency cannot be "
            "traced: make the bag with sparse=False"
        )
    call = recorder.__torch_dispatch__
    if bag_of.numel() == 0:  # not known from the forward pass: counted from where each bag starts
        starts = call(_aten.new_zeros.default, (), (offsets, [indices.numel() + 1]))
        call(_aten.index_add_.default, (), (starts, 0, offsets, call(_aten.ones_like.default, (), (offsets,))))
        counted = call(_aten.slice.Tensor, (), (call(_aten.cumsum.default, (), (starts, 0)), 0, 0, indices.numel()))
        bag_of = call(_aten.sub.Tensor, (), (counted, 1))
    values = call(_aten.index_select.default, (), (gradient, 0, bag_of))
    if mode == _MEAN:
        sizes = call(_aten.index_select.default, (), (bag_size, 0, bag_of))
        values = call(_aten.div.Tensor, (), (values, call(_aten.unsqueeze.default, (), (sizes, 1))))
    places = call(_aten.view.default, (), (indices, [1, -1]))
    return _new_sparse(recorder, 1, 1, (rows, values.shape[1]), places, values)


def _added(recorder: Recorder, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The rows that a sparse tensor names of a dense one, changed in place."""
    dense, sparse = args[:2]
    parts = sparse.pararev_parts
    moved = parts.values.numel() * parts.values.element_size()
    read = 2 * moved + parts.indices.numel() * parts.indices.element_size()
    shape = tuple(parts.values.shape)
    type_ = OpType(
        str(func),
        "elementwise",
        _name(dense.dtype),
        (shape, shape),
        (shape,),
        (),
        0,
        2 * parts.values.numel(),
        read,
        moved,
    )
    recorder.record_write(func, args, kwargs, [dense, sparse], op_type=type_)
    return dense


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
