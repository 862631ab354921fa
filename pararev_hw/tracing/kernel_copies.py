"""Copies that kernels of a CPU make of their inputs before they compute: bytes that live beside inputs and outputs.

    another datatype    elementwise ops and sums convert what is of another datatype than they compute in;
                        a concatenation does so one tensor at a time
    another layout      norms, softmax, pools and the like copy what does not lie in one piece of memory
    matrices            BLAS takes rows or columns in one piece each: other matrices are copied, of a batch one by one;
                        oneDNN, which multiplies halves where it has kernels for them, takes a batch in one piece
    resampled images    nearest and bilinear resampling goes by way of channels-last copies of both images
    whole losses        each element's loss stands in a tensor before they are summed
    inverse transforms  of real signals keep their input
    several steps       what one op of a composed formula gives to the next: distances, logarithms of sums, selections

Found with torch 2.11 to 2.13 by watching the profiler's memory events op by op; float32, float64 and halves alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch

from pararev_hw.sizes import FLOAT_BYTES
from pararev_hw.torch_private import OpOverload
from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

_REDUCES = frozenset({"sum", "prod", "cumsum", "cumprod"})
_COMPARES = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
# elementwise ops that read each tensor in the datatype that it has
_CASTS_NOT = frozenset(
    "masked_fill copy _to_copy fill logical_and logical_or logical_not logical_xor isnan isinf isfinite".split()
)
_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
_HALVES = frozenset({torch.float16, torch.bfloat16})
_FEW_PRODUCTS = 400  # multiplications up to which a batch is computed without BLAS (aten/native/LinearAlgebra.cpp)
_RESAMPLES = frozenset({"upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"})
_LOSSES = frozenset({"mse_loss", "smooth_l1_loss", "huber_loss"})
_KEEPS_LOSSES = frozenset({"mse_loss", "smooth_l1_loss", "binary_cross_entropy", "soft_margin_loss"})
# by the inputs, at the beginning, that have to lie in one piece
_IN_ONE_PIECE = {
    1: frozenset(
        "native_layer_norm _softmax _log_softmax glu_backward embedding_dense_backward nll_loss_forward "
        "reflection_pad1d replication_pad1d reflection_pad1d_backward reflection_pad2d_backward "
        "upsample_nearest2d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward col2im "
        "fractional_max_pool2d fractional_max_pool3d".split()
    ),
    2: frozenset(
        "native_layer_norm_backward _softmax_backward_data _log_softmax_backward_data nll_loss_backward "
        "_cdist_forward".split()
    ),
}
_IN_ONE_PIECE_OR_LAST = frozenset(
    "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d_backward "
    "max_pool2d_with_indices_backward _adaptive_avg_pool2d_backward reflection_pad2d".split()
)


def copied_bytes(
    func: OpOverload, args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor | None
) -> int:
    """Bytes of the copies that are alive at once of `tensors`, those among `args`; `lead` is the first result."""
    base = base_name(str(func)).rstrip("_")
    if lead is None or not tensors:
        return 0
    if base in _PRODUCTS:
        return _matrix_bytes(tensors[-2], tensors[-1])
    if base in ("cat", "stack"):
        return max((_bytes(t) for t in tensors if t.dtype != lead.dtype), default=0)
    if base in _RESAMPLES:
        single = lead.shape[1] == 1 or lead.is_contiguous(memory_format=torch.channels_last)
        return 0 if single else _bytes(tensors[0]) + _bytes(lead)
    if base in _LOSSES and lead.dim() == 0:
        return _bytes(tensors[0]) + (tensors[0].numel() * 4 if lead.dtype in _HALVES else 0)
    if base in _STEPS:
        return _STEPS[base](args, tensors, lead)
    if base == "_fft_c2r":
        dimensions = args[1]
        return _bytes(tensors[0]) * (2 if isinstance(dimensions, Sequence) and len(dimensions) > 1 else 1)
    if base in _IN_ONE_PIECE_OR_LAST:
        return 0 if in_one_piece(tensors[0]) else _bytes(tensors[0])
    for count, names in _IN_ONE_PIECE.items():
        if base in names:
            return sum(_bytes(t) for t in tensors[:count] if not t.is_contiguous())
    if torch.Tag.pointwise in func.tags or base in _REDUCES:
        return _cast_bytes(base, tensors, lead)
    return 0


def library_copied_bytes(func: OpOverload, tensors: Sequence[torch.Tensor]) -> int:
    """Bytes of the copies of two batches of matrices of halves, where oneDNN multiplies them."""
    if (
        base_name(str(func)) not in _PRODUCTS
        or not tensors
        or tensors[-1].dim() < 3
        or tensors[-1].dtype not in _HALVES
    ):
        return 0
    return sum(_bytes(t) for t in tensors[-2:] if not (t.is_contiguous() or t.mT.is_contiguous()))


def underlying_bytes(op: OpType) -> int:
    """Bytes of the memory under a result that is smaller: each element's loss stood there before they were summed,
    patches before they were put together; 0 for every other op."""
    base = base_name(op.name)
    whole_loss = base in _KEEPS_LOSSES and op.output_shapes == ((),)
    if not op.input_shapes or not (whole_loss or base == "col2im"):
        return 0
    return math.prod(op.input_shapes[0]) * FLOAT_BYTES.get(op.dtype, 0)


def in_one_piece(tensor: torch.Tensor) -> bool:
    """Whether a convolution takes the tensor as it lies in memory: one that is no block of it is copied first."""
    if tensor.is_contiguous():
        return True
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.dim() in formats and tensor.is_contiguous(memory_format=formats[tensor.dim()])


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _matrix_bytes(a: torch.Tensor, b: torch.Tensor) -> int:
    if a.dim() == 3 and a.shape[-2] * a.shape[-1] * b.shape[-1] < _FEW_PRODUCTS:
        return 0
    conjugated = sum(_bytes(t) for t in (a, b) if t.is_conj())
    return conjugated + sum(t.shape[-2] * t.shape[-1] * t.element_size() for t in (a, b) if not _has_whole_lines(t))


def _has_whole_lines(matrix: torch.Tensor) -> bool:
    """Whether rows or columns of the last two dimensions lie in one piece each."""
    (rows, columns), (row, column) = matrix.shape[-2:], matrix.stride()[-2:]
    return (column == 1 and row >= max(1, columns)) or (row == 1 and column >= max(1, rows))


def _loss_of_logits_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    # the logarithms of chances, and each element's loss or weight
    less_one = args[3] if len(args) > 3 else None
    of_weights = _bytes(less_one) if isinstance(less_one, torch.Tensor) else 0
    return _bytes(tensors[0]) * (2 if lead.dim() == 0 else 1) + of_weights


def _distance_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    # both tensors, each row with its square and a one, are multiplied
    return sum((t.numel() + 2 * (t.numel() // max(t.shape[-1], 1))) * t.element_size() for t in tensors)


def _scattered_mean_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    buffer = _halves_bytes(args, tensors, lead)
    if args[4] != "mean":
        return buffer
    counted = _bytes(lead) + _bytes(tensors[-1])  # counts, ones to count with
    return counted + max(buffer, lead.numel())  # and where none was counted


def _halves_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    """Halves are gathered and scattered in float32 (aten/src/ATen/native/cpu/ScatterGatherKernel.cpp)."""
    return lead.numel() * torch.float32.itemsize if lead.dtype in _HALVES else 0


def _unique_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    # sorted, and from where each came; while they are sorted, places once more
    x = tensors[0]
    places = x.numel() * torch.int64.itemsize
    with_inverse = bool(args[2]) if len(args) > 2 else False
    return _bytes(x) + places + (0 if with_inverse else max(0, places - _bytes(lead)))


def _selected_bytes(args: Sequence[object], tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    # of tensors in one piece the mask is summed before anything is selected, else both its places and their sums live
    x, mask = tensors
    places: int = math.prod(torch.broadcast_shapes(x.shape, mask.shape)) * torch.int64.itemsize
    if x.shape == mask.shape and x.is_contiguous() and mask.is_contiguous():
        return max(0, places + torch.int64.itemsize - _bytes(lead))
    return 2 * places


_STEPS: Mapping[str, Callable[[Sequence[object], Sequence[torch.Tensor], torch.Tensor], int]] = {
    "binary_cross_entropy_with_logits": _loss_of_logits_bytes,
    "_euclidean_dist": _distance_bytes,
    "scatter_reduce": _scattered_mean_bytes,
    **dict.fromkeys(("gather", "scatter", "scatter_add"), _halves_bytes),
    "_unique2": _unique_bytes,
    "masked_select": _selected_bytes,
    "im2col": lambda args, tensors, lead: _bytes(tensors[0]) * (1 if tensors[0].is_contiguous() else 2),
    "logsumexp": lambda args, tensors, lead: _bytes(tensors[0]) + _bytes(lead),
    "dist": lambda args, tensors, lead: _bytes(tensors[0]),
    "kthvalue": lambda args, tensors, lead: _bytes(tensors[0]) + tensors[0].numel() * torch.int64.itemsize,
    "median": lambda args, tensors, lead: _bytes(tensors[0]) if lead.dim() == 0 else 0,
}


def _cast_bytes(base: str, tensors: Sequence[torch.Tensor], lead: torch.Tensor) -> int:
    if base in _CASTS_NOT:
        return 0
    if base == "where":
        tensors = tensors[1:]
    common = lead.dtype
    if base in _COMPARES and tensors:
        common = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
    return sum(t.numel() * common.itemsize for t in tensors if t.dtype != common and t.dim() > 0)
