"""Memory inside a convolution on a CPU: what oneDNN's layouts and gradients need, and PyTorch's own kernels.

PyTorch hands a float32 convolution to oneDNN, which may compute on tensors of a layout of its own (channels in blocks)
and converts on the way in and out. A primed tensor is in the layout of the kernel taken (`convolution_kernels`):

    forward     x' w' y' are made, x' w' are let go, the plain y is made, y' is let go
    gradient    g' w' dx' likewise; then, for the weight, g' x' dw'
    transposed  the gradient of the convolution that it undoes, and its gradient that convolution

Where the images or the weights lie channels last, `convolution_last` says what is made.

A kernel that works channels-last makes two more copies of what it gives. Convolutions that oneDNN does not take
(float64; halves on a processor without instructions for them; one small image; 1x1 on few images) unfold the input into
columns. Inputs that are slices of something else are gathered first.

Found with torch 2.11 to 2.13 by watching the profiler's memory events op by op.
"""

from __future__ import annotations

import math

from pararev_hw.costmodels.allocator.convolution_kernels import (
    SCRATCH_ALIGNED,
    USUAL_CACHE_BYTES,
    Blocked,
    ChannelsLast,
    Kernel,
    Plain,
    data_kernel,
    forward_kernel,
    weight_kernel,
)
from pararev_hw.costmodels.allocator.convolution_last import copied_last, last_forward, last_gradients
from pararev_hw.costmodels.allocator.convolution_sizes import Convolution, convolution_of, is_whole
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import OpType


def convolution_bytes(op: OpType, isa: InstructionSet, cache_bytes: int = USUAL_CACHE_BYTES, threads: int = 1) -> int:
    """The most that a convolution or its gradient holds at once beside its inputs and outputs; 0 for one that does not
    say its sizes, of a graph that somebody wrote by hand. `cache_bytes`: of a core's second-level cache."""
    if not is_whole(op):
        return 0
    conv = convolution_of(op, threads)
    attributes = dict(op.attributes)
    copied = sum(conv.item * math.prod(op.input_shapes[k]) for k in attributes.get("scattered", ()))
    input_shape = op.input_shapes[1 if op.kind == "conv_backward" else 0]
    last = attributes.get("channels_last", ())
    if op.kind == "conv_backward" and set(last).isdisjoint((1, 2)):
        # image and weights decide, not the gradient of y, which then is brought into their order
        copied += conv.item * sum(math.prod(op.input_shapes[k]) for k in last)
        last = ()
    library = by_library(conv, input_shape, isa)
    if last:
        copied += copied_last(conv, op.kind == "conv_backward", last)
    in_last = bool(last) and library
    if op.kind == "conv_backward":
        needed = (bool(attributes["output_mask"][0]), bool(attributes["output_mask"][1]))
        if in_last:
            return max(0, copied + last_gradients(conv, isa, cache_bytes, needed))
        return copied + (
            _library_gradients(conv, isa, cache_bytes, needed) if library else _own_gradients(conv, *needed)
        )
    if in_last:
        return copied + last_forward(conv, isa, cache_bytes)
    return copied + (_library_forward(conv, isa, cache_bytes) if library else _own_forward(conv))


def by_library(conv: Convolution, input_shape: tuple[int, ...], isa: InstructionSet) -> bool:
    """Whether PyTorch leaves the convolution to oneDNN (at::native::ConvParams::use_mkldnn)."""
    if not isa.computes(conv.dtype):
        return False
    point = math.prod(conv.kernel[-2:]) == 1
    worthwhile = conv.strided or conv.dilated or conv.batch >= 16 or not point or conv.threads > 1
    wide = len(conv.kernel) > 1 and min(conv.kernel[-2:]) > 3
    large = conv.groups > 1 or wide or conv.batch > 1 or math.prod(input_shape[:4]) > 20480
    return conv.half or (worthwhile and large)


# ---------------------------------------------------------------------------------------------------------------
# oneDNN


def _library_forward(conv: Convolution, isa: InstructionSet, cache_bytes: int) -> int:
    if not conv.transposed:
        return _forward(conv, forward_kernel(conv, isa, cache_bytes)) - conv.y_bytes()
    kernel = data_kernel(conv, isa)
    # the bias is added apart, in float32, but where a kernel undoes whole strides
    apart = conv.bias and not (isinstance(kernel, ChannelsLast) and conv.image[-1] % conv.stride[-1] == 0)
    block = kernel.x if isinstance(kernel, Blocked) else 1
    more = conv.x_bytes(block) // conv.item * 4 + SCRATCH_ALIGNED if apart else 0
    return _data(conv, kernel, more + SCRATCH_ALIGNED) - conv.x_bytes()


def _library_gradients(conv: Convolution, isa: InstructionSet, cache_bytes: int, needed: tuple[bool, bool]) -> int:
    dx, dw = needed
    dx_bytes = (conv.y_bytes() if conv.transposed else conv.x_bytes()) if dx else 0
    weight = conv.w_bytes() if dw else 0
    data = 0
    if dx and conv.transposed:
        data = _forward(conv, forward_kernel(conv, isa, cache_bytes))
    elif dx:
        data = _data(conv, data_kernel(conv, isa))
    # the input's gradient comes first, the weight's is made while it is alive
    weights = _weights(conv, weight_kernel(conv, isa)) if dw else 0
    return max(data - dx_bytes - weight, weights - weight, 0)


def _forward(conv: Convolution, kernel: Kernel) -> int:
    """The most alive while y is made, itself included."""
    y = conv.y_bytes()
    match kernel:
        case Blocked():
            packed = conv.w_bytes(kernel.w_x, kernel.w_y) + conv.y_bytes(kernel.y) + kernel.scratch_bytes
            return max(packed + (conv.x_bytes(kernel.x) if kernel.x > 1 else 0), conv.y_bytes(kernel.y) + y)
        case ChannelsLast():
            return max(conv.x_bytes() + conv.w_bytes(kernel.w_x) + y + kernel.scratch_bytes, 3 * y)
        case Plain():
            return max(y + kernel.scratch_bytes, 2 * y)


def _data(conv: Convolution, kernel: Kernel, more: int = 0) -> int:
    """The most alive while the gradient of x is made, itself included. `more`: beside the kernel."""
    x = conv.x_bytes()
    match kernel:
        case Blocked():
            packed = conv.y_bytes(kernel.y) + conv.w_bytes(kernel.w_x, kernel.w_y) + conv.x_bytes(kernel.x)
            return max(packed + kernel.scratch_bytes + more, conv.x_bytes(kernel.x) + x)
        case ChannelsLast():
            return max(conv.y_bytes() + conv.w_bytes(kernel.w_x) + x + kernel.scratch_bytes + more, 3 * x)
        case Plain():
            return max(x + kernel.scratch_bytes + more, 2 * x)


def _weights(conv: Convolution, kernel: Kernel) -> int:
    """The most alive while the gradient of w is made, itself included."""
    w = conv.w_bytes()
    match kernel:
        case Blocked():
            images = conv.y_bytes(kernel.y) + (conv.x_bytes(kernel.x) if kernel.x > 1 else 0)
            return conv.w_bytes(kernel.w_x, kernel.w_y) + max(images + kernel.scratch_bytes, w)
        case ChannelsLast():
            raise AssertionError("no kernel computes the weights' gradient channels-last")
        case Plain():
            return max(w + kernel.scratch_bytes, 2 * w)


# ---------------------------------------------------------------------------------------------------------------
# PyTorch's own kernels


def _point(conv: Convolution) -> bool:
    return conv.taps == 1 and not conv.strided and not conv.padded and not conv.dilated


def _own_forward(conv: Convolution) -> int:
    """Groups run one by one, on copies of their part of a batch, and are joined at the end."""
    if len(conv.kernel) > 2 and not conv.dilated:
        return _own_volume_forward(conv)
    columns = conv.columns_bytes() * (1 if conv.dilated else conv.batch)
    if _point(conv) and not conv.transposed:
        columns = 0
    if conv.groups == 1:
        return columns
    input_bytes, output_bytes = (
        (conv.y_bytes(), conv.x_bytes()) if conv.transposed else (conv.x_bytes(), conv.y_bytes())
    )
    return max(columns + (input_bytes // conv.groups if conv.batch > 1 else 0), output_bytes)


def _own_volume_forward(conv: Convolution) -> int:
    """Of three extents, all groups at once; a transposed one image by image, with a row of ones for its bias."""
    if conv.transposed:
        return conv.columns_bytes() + (conv.item * conv.x_pixels if conv.bias else 0)
    return 0 if _point(conv) and conv.groups == 1 else conv.columns_bytes() * conv.batch * conv.groups


def _own_gradients(conv: Convolution, dx: bool, dw: bool) -> int:
    """Groups as above, each on copies of its part; of one image at a time where the kernel is dilated or transposed."""
    columns = conv.columns_bytes() * (1 if conv.dilated or conv.transposed else conv.batch)
    if len(conv.kernel) > 2 and not conv.dilated and not conv.transposed:
        return 0 if _point(conv) and conv.groups == 1 and not dx else columns * conv.groups
    in_place = dx and not dw and not conv.dilated and not conv.transposed  # unfolded again for the weights alone
    if in_place or _point(conv):
        columns = 0
    if conv.groups == 1:
        return columns
    gradient_bytes = (conv.x_bytes() if dx else 0) + (conv.w_bytes() if dw else 0)
    return max(columns + ((conv.x_bytes() + conv.y_bytes()) // conv.groups if conv.batch > 1 else 0), gradient_bytes)
