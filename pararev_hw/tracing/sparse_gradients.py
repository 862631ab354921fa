"""Sparse gradients, as an embedding with `sparse=True` gives them, written down by their two dense parts.

A sparse tensor has no memory of its own: it holds indices [dims, n] and values [n, ...]. It stands in the tape as a
view of its values, and what is done with it as ops on the parts. (Fake sparse tensors cannot stand in for this: they
lose their elements when they are copied.) The number of elements is that of the rows looked up, repeated ones included.
Where equal rows are merged (`coalesce`, in optimizers that are not linear) it depends on data: the rows are taken to
differ, which is the most that there can be.
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
_ALIGNED = 8  # bytes
_MERGED = torch.ops.aten._coalesce.default
_MASKED = torch.ops.aten.sparse_mask.default
_IN_PLACE = (_aten.mul_.Tensor, _aten.div_.Tensor)
_SCALED = (_aten.neg.default, _aten.mul.Tensor, _aten.div.Tensor, *_IN_PLACE)  # every value alike
_OF_SHAPE = (_aten.sparse_dim.default, _aten.dense_dim.default)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a fake sparse tensor stands for."""

    sparse_dim: int
    dense_dim: int
    size: tuple[int, ...]
    indices: Any
    values: Any
    merged: bool = False  # no row occurs twice


def one_row(parameter: Any) -> Any:
    """A sparse tensor of zeros like `parameter`, one row of it."""
    indices = torch.zeros(1, 1, dtype=torch.int64, device=parameter.device)
    values = torch.zeros(1, *parameter.shape[1:], dtype=parameter.dtype, device=parameter.device)
    kind = {"dtype": parameter.dtype, "layout": torch.sparse_coo, "device": parameter.device}
    return MAKE(1, parameter.dim() - 1, parameter.shape, indices, values, **kind)


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
        return parts[0].merged
    if func in _SCALED and not any(map(is_sparse, args[1:])):
        values = recorder.__torch_dispatch__(func, (), (parts[0].values, *args[1:]))
        return args[0] if func in _IN_PLACE else _with_parts(recorder, parts[0], parts[0].indices, values)
    if func is _MERGED:
        return _like(recorder, func, args, parts[0], 2)
    if func is _MASKED and not is_sparse(args[0]):
        return _like(recorder, func, args, parts[0], 1)
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
        f"a sparse gradient goes through {func}, which is not modelled, if torch runs it at all: "
        "train with plain SGD (--optimizer sgd-plain), SparseAdam or Adagrad, or make the embedding with sparse=False"
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


def _like(recorder: Recorder, func: Any, args: Sequence[Any], parts: Parts, passes: int) -> Any:
    """What `func` gives: a sparse tensor of the same rows in new memory, its values first, written in that many passes
    over what it reads."""
    values, indices = parts.values, parts.indices
    value_bytes = -(-values.numel() * values.element_size() // _ALIGNED) * _ALIGNED
    index_bytes = indices.numel() * indices.element_size()
    with recorder.fake:
        memory = torch.empty(value_bytes + index_bytes, dtype=torch.uint8, device=values.device).untyped_storage()
        new_values = _placed(memory, 0, values)
        new_indices = _placed(memory, value_bytes // indices.element_size(), indices)
        out = MAKE(
            parts.sparse_dim,
            parts.dense_dim,
            list(parts.size),
            new_indices,
            new_values,
            dtype=values.dtype,
            layout=torch.sparse_coo,
            device=values.device,
        )
    shape, moved = tuple(values.shape), values.numel() * values.element_size() + index_bytes
    count = indices.shape[1]
    work = values.numel() + count * max(1, count.bit_length()) if func is _MERGED else 0
    kind = "sort" if func is _MERGED else "index"
    type_ = OpType(str(func), kind, _name(values.dtype), (shape,), (shape,), (), 0, work, passes * moved, moved)
    recorder.record_new(func, tuple(args), out, new_values, type_)
    recorder.record_part(_aten._indices.default, out, new_indices)
    recorder.record_part(_aten._values.default, out, new_values)
    out.pararev_parts = Parts(parts.sparse_dim, parts.dense_dim, parts.size, new_indices, new_values, merged=True)
    recorder.merged_rows |= func is _MERGED
    return out


def _placed(memory: torch.UntypedStorage, at: int, like: torch.Tensor) -> torch.Tensor:
    """A tensor of that shape, densely laid out, `at` elements into the memory."""
    new = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return new.set_(memory, at, new.shape, new.stride())


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
