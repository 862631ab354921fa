"""How kernels lay out what they give, where torch's formulas for tensors without data say otherwise.

    in order        elementwise: the first tensor whose strides tell two dimensions apart decides (TensorIterator)
    like a tensor   as that one lies
    in one piece    whatever the layout of the tensors
    like an image   channels last where the image has them last

Found by running every elementwise op, norm and loss, and what moves images, on images of both layouts with gradients of
the other (tests/tracing/test_kernel_layouts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

_IN_ORDER = frozenset(
    "elu_backward softplus_backward hardswish_backward hardsigmoid_backward hardtanh_backward logit_backward "
    "xlogy".split()
)
_LIKE = {
    "binary_cross_entropy_backward": 1,
    "native_batch_norm_backward": 1,
    "reflection_pad2d_backward": 1,
    "rrelu_with_noise_backward": 2,
    "roll": 0,
}
_IN_ONE_PIECE = frozenset(
    "log_sigmoid_forward glu_backward mse_loss_backward smooth_l1_loss_backward huber_loss_backward rrelu_with_noise "
    "_log_softmax_backward_data".split()
)
_LIKE_AN_IMAGE = frozenset({"reflection_pad2d", "pixel_shuffle", "pixel_unshuffle"})


def kernel_strides(base: str, tensors: Sequence[torch.Tensor], out: torch.Tensor) -> tuple[int, ...]:
    """The strides of an output of the op of that name on those tensors; those that it has where nothing is known."""
    shape = tuple(out.shape)
    if base in _IN_ONE_PIECE:
        return dense_strides(shape, range(len(shape) - 1, -1, -1))
    if base in _LIKE_AN_IMAGE and len(shape) == 4:
        return dense_strides(shape, (1, 3, 2, 0) if channels_are_last(tensors[0]) else (3, 2, 1, 0))
    if base in _IN_ORDER and all(t.shape == out.shape for t in tensors):
        return torch.add(*map(_without_data, tensors)).stride()
    if base in _LIKE and out.shape == tensors[_LIKE[base]].shape:
        return torch.empty_like(_without_data(tensors[_LIKE[base]])).stride()
    return out.stride()


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), device="meta")


def channels_are_last(tensor: torch.Tensor) -> bool:
    """Whether an image or a volume has channels last in memory, and could not as well have them first."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    return layout is not None and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()


def dense_strides(shape: Sequence[int], innermost_first: Iterable[int]) -> tuple[int, ...]:
    """Of a tensor without gaps whose dimensions lie in that order."""
    strides, step = [0] * len(shape), 1
    for d in innermost_first:
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)
