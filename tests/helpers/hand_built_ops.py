"""Ops as a traced step holds them, built by hand."""

from __future__ import annotations

from pararev_hw.types import OpType


def conv(
    images: int, inputs: int, outputs: int, size: int, *, kernel: int = 3, stride: int = 1, padding: int = 1,
    groups: int = 1, backward: bool = False,
) -> OpType:  # fmt: skip
    """A convolution of square images, or its two gradients, as a traced step holds it."""
    out = (size + 2 * padding - kernel) // stride + 1
    x, w, y = (images, inputs, size, size), (outputs, inputs // groups, kernel, kernel), (images, outputs, out, out)
    macs = images * outputs * out * out * inputs // groups * kernel * kernel
    pair = {"stride": stride, "padding": padding, "dilation": 1}
    attributes = (*((name, (v, v)) for name, v in pair.items()), ("groups", (groups,)), ("transposed", (0,)))
    if backward:
        mask = (("output_mask", (1, 1, 0)),)
        return OpType("aten.convolution_backward.default", "conv_backward", "float32", (y, x, w), (x, w),
                      attributes + mask, 4 * macs, 0, 0, 0)  # fmt: skip
    return OpType("aten.convolution.default", "conv", "float32", (x, w), (y,), attributes, 2 * macs, 0, 0, 0)
