"""The work of a convolution and of its gradients, as the kernel does it that the CPU's library takes for each.

A convolution, the gradient of its input and that of its weights are passes of their own, and a gradient's amounts are
the sums over its passes. Which kernel computes a pass follows from its sizes and the instruction set (see
`pararev_hw.costmodels.allocator.convolution_kernels`):

    in blocks of channels   multiply-accumulates with channels rounded up to whole blocks of one register, rows of the
                            result, weights, and the images' bytes, which are converted on the way in and out
    as a matrix product     for each image and group: columns are unfolded, then multiplied

PyTorch's own kernels, which take what is not left to the library, are matrix products too. Where no instruction set is
given (a GPU), all passes count as the former.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.costmodels.allocator.convolution import by_library
from pararev_hw.costmodels.allocator.convolution_kernels import Plain, data_kernel, forward_kernel, weight_kernel
from pararev_hw.costmodels.allocator.convolution_sizes import Convolution, convolution_of, is_whole
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import OpType

FORWARD = (
    *("row_s", "weight_s_per_byte", "block_s_per_byte", "compute_s_per_flop"),
    *("product_s", "column_s_per_byte", "product_s_per_flop"),
)
BACKWARD = (*FORWARD, "gradient_s_per_flop", "narrow_s_per_flop")
_WIDE_BLOCK, _SHORT_BLOCK = 16, 8  # float32 channels in a register of AVX-512, and of AVX
_KERNEL_WEIGHT = 1.5  # of which kernels compute it, among the logarithms of sizes
_KERNELS = {"forward": forward_kernel, "data": data_kernel, "weight": weight_kernel}


@dataclass(slots=True)
class _Work:
    """Amounts so far, in the order of BACKWARD."""

    rows: float = 0.0
    weight_bytes: float = 0.0
    block_bytes: float = 0.0
    flops: float = 0.0
    products: float = 0.0
    column_bytes: float = 0.0
    product_flops: float = 0.0
    gradient_flops: float = 0.0
    narrow_flops: float = 0.0


def convolution_terms(t: OpType, isa: InstructionSet | None) -> tuple[float, ...]:
    """Amounts of work, in the order of FORWARD or BACKWARD; flops alone of one that does not say its sizes."""
    if not is_whole(t):
        return (0.0, 0.0, 0.0, float(t.true_flops), *[0.0] * (3 if t.kind == "conv" else 5))
    conv, work = convolution_of(t), _Work()
    for one in _passes(t, conv):
        if _is_product(t, conv, one, isa):
            work.products += conv.batch * conv.groups
            work.column_bytes += conv.batch * conv.groups * conv.columns_bytes()
            work.product_flops += 2.0 * conv.batch * conv.y_pixels * conv.taps * conv.x_group * conv.y_channels
        else:
            _add_blocked(work, conv, one, isa)
    forward = (
        *(work.rows, work.weight_bytes, work.block_bytes, work.flops),
        *(work.products, work.column_bytes, work.product_flops),
    )
    return forward if t.kind == "conv" else (*forward, work.gradient_flops, work.narrow_flops)


def convolution_coordinates(t: OpType, isa: InstructionSet | None) -> tuple[float, ...]:
    """Where it stands among convolutions of its form: sizes, how far channels are from whole blocks, borders, and which
    passes are matrix products."""
    if not is_whole(t):
        return (0.0,) * (10 if t.kind == "conv" else 11)
    conv = convolution_of(t)
    block = _WIDE_BLOCK if isa is None else isa.channels
    ragged = conv.x_group / _up(conv.x_group, block) * conv.y_group / _up(conv.y_group, block)
    sizes = (conv.batch, conv.x_channels, conv.y_channels, conv.x_pixels, conv.taps)
    borders = (1 + max(conv.padding), max(conv.dilation), conv.groups)
    products = {one: _is_product(t, conv, one, isa) for one in _passes(t, conv)}
    first = any(p for one, p in products.items() if one != "weight")
    return (
        *(math.log(n) for n in sizes),
        2 * math.log(ragged),
        *(math.log(n) for n in borders),
        _KERNEL_WEIGHT * first,
        *((_KERNEL_WEIGHT * products.get("weight", False),) if t.kind == "conv_backward" else ()),
    )


def is_library_form(t: OpType) -> bool:
    """Whether PyTorch hands a convolution to oneDNN, on a processor that computes in all datatypes."""
    if not is_whole(t):
        return True
    return by_library(convolution_of(t), image_and_weight(t)[0], InstructionSet.AVX512_CORE_FP16)


def image_and_weight(t: OpType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the image that a convolution reads and of its weights, also of its gradient."""
    return (t.input_shapes[0], t.input_shapes[1]) if t.kind == "conv" else (t.input_shapes[1], t.input_shapes[2])


def _passes(t: OpType, conv: Convolution) -> tuple[str, ...]:
    """What is computed: a transposed convolution is the gradient of the image of the one that it undoes."""
    there, back = ("data", "forward") if conv.transposed else ("forward", "data")
    if t.kind == "conv":
        return (there,)
    for_x, for_w = dict(t.attributes).get("output_mask", (1, 1))[:2]
    return ((back,) if for_x else ()) + (("weight",) if for_w else ())


def _is_product(t: OpType, conv: Convolution, one: str, isa: InstructionSet | None) -> bool:
    if isa is None:
        return False
    return not by_library(conv, image_and_weight(t)[0], isa) or isinstance(_KERNELS[one](conv, isa), Plain)


def _add_blocked(work: _Work, conv: Convolution, one: str, isa: InstructionSet | None) -> None:
    """What a pass by a kernel on blocks of channels adds."""
    block = _WIDE_BLOCK if isa is None else isa.channels
    whole = conv.groups == 1
    x_block = _SHORT_BLOCK if one == "data" and conv.x_channels <= _SHORT_BLOCK else block  # half a register holds them
    x, y = (_up(conv.x_channels, x_block), _up(conv.y_channels, block)) if whole else (conv.x_channels, conv.y_channels)
    few = whole and conv.x_channels < block and conv.taps > 1
    within = x if whole else conv.x_group
    taps = 2.0 * conv.batch * _taps(conv)
    pixels = conv.item * conv.batch
    image_bytes, result_bytes = pixels * conv.x_pixels * x, pixels * conv.y_pixels * y
    work.rows += conv.batch * conv.result[0] * y / _WIDE_BLOCK
    work.weight_bytes += conv.w_bytes()
    work.block_bytes += result_bytes + (0 if few and one == "forward" else image_bytes)
    if one == "weight" and few:
        work.narrow_flops += taps * _up(conv.x_channels, _SHORT_BLOCK) * _up(conv.y_channels, _SHORT_BLOCK)
    elif one == "weight":
        work.gradient_flops += taps * y * within
    else:
        work.flops += taps * y * (conv.x_channels if few and one == "forward" else within)


def _taps(conv: Convolution) -> float:
    """Pairs of a pixel of the result and a kernel tap that falls on the image, not on a padded border."""
    total = 1.0
    for size, taps, out, stride, pad, dilation in zip(
        conv.image, conv.kernel, conv.result, conv.stride, conv.padding, conv.dilation, strict=True
    ):
        total *= sum(
            max(
                0,
                min(out - 1, (size - 1 + pad - k * dilation) // stride)
                - max(0, -(-(pad - k * dilation) // stride))
                + 1,
            )
            for k in range(taps)
        )
    return total


def _up(channels: int, block: int) -> int:
    """Channels in whole blocks."""
    return -(-channels // block) * block
