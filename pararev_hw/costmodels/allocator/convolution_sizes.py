"""The sizes of one convolution or of its gradient, and the bytes of its tensors in blocked layouts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.sizes import FLOAT_BYTES, HALVES
from pararev_hw.types import OpType


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution x -> y with weights w. A transposed one is the gradient of such a convolution: there x and y stand
    for its output and its input. `image` and `result` are the extents of one channel of x and y."""

    dtype: str
    batch: int
    groups: int
    x_channels: int
    y_channels: int
    image: tuple[int, ...]
    result: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    bias: bool
    threads: int = 1  # that compute it

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return FLOAT_BYTES[self.dtype]

    @property
    def half(self) -> bool:
        return self.dtype in HALVES

    @property
    def x_pixels(self) -> int:
        return math.prod(self.image)

    @property
    def y_pixels(self) -> int:
        return math.prod(self.result)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def strided(self) -> bool:
        return any(n > 1 for n in self.stride)

    @property
    def dilated(self) -> bool:
        return any(n > 1 for n in self.dilation)

    @property
    def padded(self) -> bool:
        return any(n > 0 for n in self.padding)

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.x_channels == self.y_channels

    @property
    def x_group(self) -> int:
        """Input channels of one group."""
        return self.x_channels // self.groups

    @property
    def y_group(self) -> int:
        """Output channels of one group."""
        return self.y_channels // self.groups

    def x_bytes(self, block: int = 1) -> int:
        """Of the input, its channels rounded up to whole blocks where the library may pad them."""
        return self.item * self.batch * self.x_pixels * self._up(self.x_channels, block)

    def y_bytes(self, block: int = 1) -> int:
        """Of the output, likewise."""
        return self.item * self.batch * self.y_pixels * self._up(self.y_channels, block)

    def w_bytes(self, x_block: int = 1, y_block: int = 1) -> int:
        """Of the weights, likewise."""
        if self.depthwise:
            return self.item * self.taps * self._up(self.y_channels, y_block)
        return (
            self.item
            * self.taps
            * self._up(self.x_channels, x_block)
            // self.groups
            * self._up(self.y_channels, y_block)
        )

    def columns_bytes(self) -> int:
        """Of the unfolded input of one group of one image: a column for every pixel of the output."""
        return self.item * self.taps * self.x_group * self.y_pixels

    def _up(self, channels: int, block: int) -> int:
        return -(-channels // block) * block if self.groups == 1 or self.depthwise else channels


def is_whole(op: OpType) -> bool:
    """Whether a convolution says all that its sizes follow from."""
    attributes, back = dict(op.attributes), op.kind == "conv_backward"
    needed = ("groups", "stride", "padding", "dilation", *(("output_mask",) if back else ()))
    shapes = op.input_shapes[:3] if back else (*op.input_shapes[:2], *op.output_shapes[:1])
    return (
        op.dtype in FLOAT_BYTES
        and all(attributes.get(name) for name in needed)
        and attributes["groups"][0] > 0
        and len(shapes) == 3
        and all(len(s) > 2 for s in shapes)
        and all(0 <= k < len(op.input_shapes) for k in attributes.get("scattered", ()))
        and (not back or len(attributes["output_mask"]) > 1)
        and min(shapes[1][0], shapes[0][0]) > 0
        and min(attributes["stride"]) > 0
    )


def convolution_of(op: OpType, threads: int = 1) -> Convolution:
    """The sizes of an op that `is_whole`."""
    attributes, back = dict(op.attributes), op.kind == "conv_backward"
    transposed = attributes.get("transposed", (0,)) != (0,)
    if back:
        y, x, w = op.input_shapes[:3]
    else:
        x, w, y = op.input_shapes[0], op.input_shapes[1], op.output_shapes[0]
    if transposed:
        x, y = y, x
    extents = len(w) - 2
    return Convolution(
        dtype=op.dtype,
        batch=x[0],
        groups=attributes["groups"][0],
        x_channels=x[1],
        y_channels=y[1],
        image=x[2:],
        result=y[2:],
        kernel=w[2:],
        stride=_of_every_extent(attributes["stride"], extents),
        padding=_of_every_extent(attributes["padding"], extents),
        dilation=_of_every_extent(attributes["dilation"], extents),
        transposed=transposed,
        bias=not back and len(op.input_shapes) == 3,
        threads=threads,
    )


def _of_every_extent(values: tuple[int, ...], extents: int) -> tuple[int, ...]:
    """One number may stand for all extents."""
    return values if len(values) == extents else (values[0],) * extents
