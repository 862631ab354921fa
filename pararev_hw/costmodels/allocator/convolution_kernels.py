"""Which kernel oneDNN takes for a convolution, its input's gradient and its weights', and the memory that one wants.

    blocked        tensors in blocks of channels (nChw8c, nChw16c): converted on the way in and out
    channels last  the gradient of a strided convolution's input by batched small matrix products (brgemm)
    plain          a matrix product over the unfolded columns of one image: tensors stay as they are

Every instruction set has kernels of its own; what none of them takes is left to the matrix product. Blocked kernels of
SSE4.1 compute forward alone and pad no channels; AVX has those of AVX2 forward; the gradients of AVX2 are as AVX-512's
with blocks half as long. The conditions are those of oneDNN 3.7 to 3.12 (src/cpu/x64, `init_conf` of each kernel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.costmodels.allocator.convolution_sizes import Convolution
from pararev_hw.costmodels.allocator.thread_sums import thread_sums_bytes
from pararev_hw.costmodels.allocator.unfolded_blocks import unfolded_at_once
from pararev_hw.devices.instruction_sets import InstructionSet

USUAL_CACHE_BYTES = 1 << 20  # of a core's second-level cache, where nothing is said of it (Zen 4, Skylake-SP)
SCRATCH_ALIGNED = 128  # bytes that oneDNN adds to every scratch buffer to align it
_PAGE = 4096
_BATCH_ITEM = 40  # bytes of one entry in the list of small products
_SHORT_BLOCK = 8
_MOST = 1 << 30  # bytes of scratch
_TENSORS = 15  # scratch of a gradient is at most as many times its tensors, for each thread


@dataclass(frozen=True, slots=True)
class Blocked:
    """Channels per block of the image, the result and the weights; 1 leaves a tensor as it is."""

    x: int
    y: int
    w_x: int
    w_y: int
    scratch_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ChannelsLast:
    """Channels last, with weights in blocks of that many input channels."""

    w_x: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Tensors as they are."""

    scratch_bytes: int


Kernel = Blocked | ChannelsLast | Plain


def forward_kernel(conv: Convolution, isa: InstructionSet, cache_bytes: int = USUAL_CACHE_BYTES) -> Kernel:
    """What computes y from x, on a core whose second-level cache holds so many bytes."""
    block = isa.channels
    if not _has_forward_kernel(conv, isa):
        return Plain(_columns_scratch(conv, isa, cache_bytes))
    if conv.depthwise and len(conv.kernel) > 2 and not conv.half:
        return ChannelsLast(block, 0)
    if isa < InstructionSet.AVX512_CORE:
        flat = conv.groups == 1 and (conv.x_channels == 3 if isa < InstructionSet.AVX else conv.x_channels < block)
    else:
        flat = conv.groups == 1 and conv.x_channels < block and conv.taps > 1
    scratch = _image_of_floats(conv, conv.y_channels, conv.y_pixels) + gathered_bytes(conv, isa)
    if conv.bias and conv.y_channels % block and isa < InstructionSet.AVX512_CORE:
        scratch += 4 * -(-conv.y_channels // block) * block + SCRATCH_ALIGNED  # the bias of whole blocks
    x = 1 if flat else block
    return Blocked(x, block, x, block, scratch)


def data_kernel(conv: Convolution, isa: InstructionSet) -> Kernel:
    """What computes the gradient of x from that of y."""
    block = isa.channels
    if not _has_data_kernel(conv, isa):
        threads = conv.threads if _images_at_once(conv, isa) else 1
        return Plain(_gradient_scratch(conv, isa, 0, 0.1, threads))
    if isa == InstructionSet.AVX and conv.strided and not conv.depthwise:
        return Blocked(block, block, block, block, 4 * conv.y_pixels * block * _LOADED_AT_ONCE + SCRATCH_ALIGNED)
    if conv.strided and conv.groups == 1 and not conv.dilated:
        return ChannelsLast(block, strided_scratch(conv))
    return Blocked(block, block, block, block, _image_of_floats(conv, conv.x_channels, conv.x_pixels))


def weight_kernel(conv: Convolution, isa: InstructionSet) -> Kernel:
    """What computes the gradient of w from x and the gradient of y."""
    few = conv.groups == 1 and conv.x_channels < isa.channels and conv.taps > 1
    if isa < InstructionSet.AVX512_CORE:
        flat = conv.groups == 1 and conv.x_channels == 3
    else:
        flat = few and (conv.half or conv.x_channels <= _FLAT_GRADIENT)
    # no float32 kernel of AVX-512 takes few channels or small groups: one of half as long registers does
    narrow = (few or (conv.groups > 1 and not conv.depthwise)) and not conv.half
    block = _SHORT_BLOCK if narrow else isa.channels
    if not _has_weight_kernel(conv, block, flat, isa):
        at_once = _plane(conv.result) // conv.threads < _FEW_PIXELS and (conv.batch > 1 or conv.groups > 2)
        threads = conv.threads if at_once else 1
        return Plain(_gradient_scratch(conv, isa, threads * _weight_sums(conv), 0.05, threads))
    if flat:
        scratch = _sums_of_weights(conv, 1, isa.channels) + thread_sums_bytes(conv, 1, isa.channels, False)
        return Blocked(1, isa.channels, 1, isa.channels, scratch)
    scratch = _sums_of_weights(conv, block, isa.channels) + gathered_bytes(conv, isa, _LEAST_GATHERED)
    point = _is_point(conv) and not conv.padded and (_is_even(conv) or not conv.strided)
    scratch += thread_sums_bytes(conv, block, isa.channels, point)
    return Blocked(block, block, block, block, scratch)


_FEW_PIXELS = 256  # for each thread, below which threads take images of their own
_FLAT_GRADIENT = 3  # channels up to which AVX-512's weight gradient takes the image as it is


def _has_forward_kernel(conv: Convolution, isa: InstructionSet) -> bool:
    if isa >= InstructionSet.AVX512_CORE:
        return not conv.depthwise or conv.padding[-1] <= _DEPTHWISE_PADDING[conv.strided]
    if conv.depthwise:
        if isa < InstructionSet.AVX2:
            return len(conv.kernel) < 3 and conv.groups % _SHORT_BLOCK == 0
        return len(conv.kernel) < 3 or not conv.dilated
    whole = conv.x_group % _SHORT_BLOCK == 0 and conv.y_group % _SHORT_BLOCK == 0
    # a kernel of one row begins within as many pixels as are computed at once
    if isa < InstructionSet.AVX:
        fits = conv.padding[-1] <= _AT_ONCE and len(conv.kernel) < 3
        return fits and (whole or (conv.x_group == 3 and conv.y_group % _SHORT_BLOCK == 0))
    return (whole or conv.groups == 1) and conv.padding[-1] <= _AT_ONCE


def _has_data_kernel(conv: Convolution, isa: InstructionSet) -> bool:
    if isa >= InstructionSet.AVX512_CORE:
        return True
    if conv.depthwise:
        whole = isa >= InstructionSet.AVX2 or conv.groups % _SHORT_BLOCK == 0
        return len(conv.kernel) < 3 and not conv.dilated and whole
    if isa == InstructionSet.AVX and _is_point(conv):
        return not conv.strided or (_is_even(conv) and not conv.transposed)
    if isa < InstructionSet.AVX2 or (conv.dilated and conv.strided):
        return False
    if not conv.strided and conv.dilation[-1] * (conv.kernel[-1] - 1) - conv.padding[-1] > _REACH:
        return False
    return conv.groups == 1 or (conv.x_group % _SHORT_BLOCK == 0 and conv.y_group % _SHORT_BLOCK == 0)


def _has_weight_kernel(conv: Convolution, block: int, flat: bool, isa: InstructionSet) -> bool:
    if isa < InstructionSet.AVX512_CORE:
        if conv.depthwise:
            whole = isa >= InstructionSet.AVX2 or conv.groups % block == 0
            return whole and _is_narrow(conv) and len(conv.kernel) < 3 and not conv.dilated
        if isa < InstructionSet.AVX2 or not _fits_short_registers(conv):
            return False
        if conv.dilated and not (_is_point(conv) and (_is_even(conv) or not conv.strided)):
            return False
        return conv.groups == 1 or (conv.x_group % block == 0 and conv.y_group % block == 0)
    if conv.kernel[-1] > _WIDEST_WEIGHTS or (block < isa.channels and not flat and not _fits_short_registers(conv)):
        return False
    spread = conv.strided or conv.groups > 1 or (block < isa.channels and conv.taps > 9)
    if conv.dilated and spread and not conv.half:
        return conv.depthwise and not conv.strided
    if conv.depthwise:
        return _is_narrow(conv)
    if conv.groups > 1:
        return conv.x_group % block == 0 and conv.y_group % block == 0
    return not (conv.half and flat) or conv.y_channels % block == 0


def _is_narrow(conv: Convolution) -> bool:
    """Whether the kernel of depthwise weights takes rows of the image so wide and so padded."""
    within = all(p <= k // 2 for p, k in zip(conv.padding, conv.kernel, strict=True))
    return conv.stride[-1] <= conv.kernel[-1] <= _WIDEST_DEPTHWISE and within


def _fits_short_registers(conv: Convolution) -> bool:
    """Whether AVX2's kernel, which AVX-512 takes for few channels, computes the gradient of such weights."""
    pads_depth = len(conv.kernel) > 2 and conv.padding[0] > 0
    within = all(k <= n for k, n in zip(conv.kernel, conv.image, strict=True))
    return not pads_depth and conv.kernel[-1] <= _WIDEST_GRADIENT and within


_AT_ONCE = 3  # pixels of a row that kernels of SSE4.1 to AVX2 compute at once
_LOADED_AT_ONCE = 18  # blocks of channels that AVX's kernel of 1x1 convolutions gathers before it computes
_WIDEST_GRADIENT = 13  # columns of a kernel
_REACH = 7  # pixels that AVX2's gradient of an image may have beyond the one of its result
_WIDEST_DEPTHWISE = 3
_WIDEST_WEIGHTS = 14  # columns of a kernel whose weights' gradient AVX-512 computes
_DEPTHWISE_PADDING = (11, 6)  # columns that AVX-512's depthwise kernels pad at most; strided ones


def _is_point(conv: Convolution) -> bool:
    """Whether it is a 1x1 convolution that a kernel of its own computes."""
    return len(conv.kernel) < 3 and conv.taps == 1 and conv.groups == 1


def _is_even(conv: Convolution) -> bool:
    """Whether the stride divides the image."""
    return all(n == m * s for n, m, s in zip(conv.image, conv.result, conv.stride, strict=True))


_LEAST_GATHERED = 5  # blocks of channels that the gradient of 1x1 weights gathers at once, where no fewer are left over


def gathered_bytes(conv: Convolution, isa: InstructionSet, least: int | None = None) -> int:
    """The image without the pixels that a strided 1x1 convolution leaves out: of all channels, or of `least` blocks of
    them at a time, or as few more as leave the smallest rest (oneDNN's `best_divider`)."""
    leaves_out = _is_point(conv) and conv.strided and not conv.padded and _is_even(conv)
    if isa < InstructionSet.AVX or conv.transposed or not leaves_out:
        return 0
    blocks = -(-conv.x_channels // isa.channels)
    if least is not None:
        blocks = min(range(min(least, blocks), blocks + 1), key=lambda taken: (-(-blocks // taken) * taken, taken))
    return conv.threads * conv.item * conv.y_pixels * blocks * isa.channels + SCRATCH_ALIGNED


def _columns_scratch(conv: Convolution, isa: InstructionSet, cache_bytes: int) -> int:
    """The columns of one image, or of as many channels and pixels of it as are unfolded at a time."""
    if not unfolded_bytes(conv):
        return 0
    channels, pixels = unfolded_at_once(conv, isa.lanes, cache_bytes)
    return conv.threads * conv.item * conv.taps * channels * pixels + SCRATCH_ALIGNED


def unfolded_bytes(conv: Convolution) -> int:
    """Of one plane of one image, where the kernel is more than one point of it."""
    unfolds = conv.taps > 1 or conv.strided or conv.padded
    return conv.columns_bytes() // (conv.result[0] if len(conv.result) > 2 else 1) if unfolds else 0


def _images_at_once(conv: Convolution, isa: InstructionSet) -> bool:
    """Whether threads take images of their own for the gradient of x, rather than parts of one product."""
    few = _plane(conv.result) // conv.threads < 512 or conv.taps < 64
    pixels = _plane(conv.image)
    outer, inner = conv.groups * conv.batch, -(-pixels // isa.lanes) * -(-conv.x_group // isa.lanes)
    fuller = outer / (-(-outer // conv.threads)) >= inner / (-(-inner // conv.threads))
    small = pixels * conv.x_group * conv.y_group // conv.threads < 1 << 16
    return few and (conv.batch > 1 or conv.groups > 2) and (fuller or small)


def _plane(extents: tuple[int, ...]) -> int:
    return math.prod(extents[-2:])


def _gradient_scratch(conv: Convolution, isa: InstructionSet, sums: int, share: float, threads: int) -> int:
    """The columns of a gradient, of each of the threads, beside `sums`. Where they would be more than a multiple of the
    tensors, they are those of a few pixels at a time: a `share` of those that there is room for."""
    limit = most_scratch(conv)
    columns = threads * unfolded_bytes(conv)
    if columns > limit - sums:
        column = threads * conv.item * conv.taps * conv.x_group
        columns = column * max(isa.lanes, int((limit - sums) // column * share))
    return sums + (columns + SCRATCH_ALIGNED if columns else 0)


def most_scratch(conv: Convolution) -> int:
    """How much scratch a matrix product over unfolded images may have."""
    return min(_MOST, _TENSORS * conv.threads * (conv.x_bytes() + conv.w_bytes() + conv.y_bytes()))


def _weight_sums(conv: Convolution) -> int:
    """The sums of a weight gradient: oneDNN counts the bytes of the weights as if they were numbers."""
    return 4 * conv.w_bytes() // conv.item * 4 + SCRATCH_ALIGNED


def _image_of_floats(conv: Convolution, channels: int, pixels: int) -> int:
    """The float32 sums of one image, which a 1x1 convolution of halves keeps."""
    return 4 * channels * pixels if conv.half and conv.taps == 1 and conv.groups == 1 else 0


def _sums_of_weights(conv: Convolution, x_block: int, y_block: int) -> int:
    """Weight gradients of halves are summed in float32, over one image transposed at a time."""
    if not conv.half or conv.depthwise:
        return 0
    images = (conv.x_bytes(x_block) + conv.y_bytes(y_block)) // conv.batch if conv.taps > 1 else 0
    return 4 * conv.w_bytes(x_block, y_block) // conv.item + images


def strided_scratch(conv: Convolution) -> int:
    """The list of products, one image of the gradient with room for what the kernel overlaps, and, where the width is
    no multiple of the stride, rows of the result. Every part begins on a page."""
    reached = 1
    for size, result, kernel, stride, padding in zip(
        conv.image, conv.result, conv.kernel, conv.stride, conv.padding, strict=True
    ):
        behind = (result - 1) * stride + kernel - size - padding  # columns of padding at the end
        reached *= result + max(0, kernel - 1 - padding) // stride + max(0, kernel - 1 - behind) // stride
    whole = conv.threads * -(-_PAGE // _BATCH_ITEM) * _BATCH_ITEM + _PAGE
    image = conv.threads * 4 * _pages(reached * conv.y_channels) + _PAGE
    mask = (conv.threads + 1) * _PAGE
    uneven = conv.image[-1] % conv.stride[-1]
    rows = conv.threads * 4 * _pages(conv.image[-1] * conv.stride[-1] * conv.x_channels) + _PAGE
    return whole + image + mask + (rows if uneven else 0)


def _pages(count: int) -> int:
    return -(-count // _PAGE) * _PAGE
