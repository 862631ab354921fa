"""How kernels lay out what they give, where torch's formulas for tensors without data say otherwise.

    in order        elementwise: the first tensor whose strides tell two dimensions apart decides (TensorIterator)
    like a tensor   as that one lies
    in one piece    whatever the layout of the tensors
    like an image   channels last where the image has them last

Found by running every elementwise op, norm and loss, and what moves images, on images of both layouts with gradients of
the other (tests/tracing/test_kernel_layouts.py).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate

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
        return _strides(shape, range(len(shape)))
    if base in _LIKE_AN_IMAGE and len(shape) == 4:
        image = tensors[0]
        last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
        return _strides(shape, (0, 2, 3, 1) if last else range(4))
    if base in _IN_ORDER and all(t.shape == out.shape for t in tensors):
        return torch.add(*map(_without_data, tensors)).stride()
    if base in _LIKE and out.shape == tensors[_LIKE[base]].shape:
        return torch.empty_like(_without_data(tensors[_LIKE[base]])).stride()
    return out.stride()


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), device="meta")


def _strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Of a dense tensor whose dimensions lie in that order, the innermost last."""
    inner_first = order[::-1]
    steps = accumulate((max(1, shape[d]) for d in inner_first[:-1]), operator.mul, initial=1)
    of_dimension = dict(zip(inner_first, steps, strict=True))
    return tuple(of_dimension[d] for d in range(len(shape)))
