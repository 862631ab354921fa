"""Memory inside a convolution on a CPU: what oneDNN's layouts and gradients need.

PyTorch hands a float32 convolution to oneDNN, which computes on tensors of its own layout (nChw16c: channels in blocks
of one SIMD register) and converts on the way in and out:

    forward     x' w' y' are made, x' w' are let go, the plain y is made, y' is let go
    gradient    g' w' dx' likewise; then, for the weight, g' x' dw'
    transposed  the gradient of the convolution that it undoes, and its gradient that convolution

A primed tensor has its channels rounded up to whole blocks (below one block the image stays plain in the forward and
in the weight gradient). A strided input gradient is computed channels-last instead: two more copies of it.
Convolutions that oneDNN does not take (float64; one small image; 1x1 on few images) unfold the input into columns.
bfloat16 adds scratch in float32: a convolution's weight gradient and, of a 1x1, one image of the result. Inputs that
are slices of something else are gathered first.

Found with torch 2.11 to 2.13, one thread, by watching the profiler's memory events op by op.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.types import OpType

AVX2_BYTES = 32  # of one SIMD register

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
HALVES = ("bfloat16", "float16")
_FLAT_GRADIENT = 3  # channels up to which the weight gradient takes the image as it is
_STRIDED_UNIT = 16 << 10  # of the scratch of a strided input gradient
_STRIDED_SCRATCH = _STRIDED_UNIT + 4248  # what it has beside the sums of an image


def convolution_bytes(op: OpType, simd_bytes: int) -> int:
    """The most that a convolution or its gradient holds at once beside its inputs and outputs; 0 for one that does not
    say its sizes, of a graph that somebody wrote by hand."""
    return _copied(op) + _of_convolution(op, simd_bytes) if _is_whole(op) else 0


def _is_whole(op: OpType) -> bool:
    """Whether a convolution says all that its sizes follow from."""
    attributes, back = dict(op.attributes), op.kind == "conv_backward"
    needed = ("groups", "stride", "padding", "dilation", *(("output_mask",) if back else ()))
    shapes = op.input_shapes[:3] if back else (*op.input_shapes[:2], *op.output_shapes[:1])
    return (
        all(attributes.get(name) for name in needed)
        and attributes["groups"][0] > 0
        and len(shapes) == 3
        and all(len(s) > 2 for s in shapes)
        and all(0 <= k < len(op.input_shapes) for k in attributes.get("scattered", ()))
        and (not back or len(attributes["output_mask"]) > 1)
        and min(shapes[1][0], shapes[0][0]) > 0
    )


def _copied(op: OpType) -> int:
    """Bytes of the inputs that are gathered from slices or strides before the library sees them."""
    item = ITEM_BYTES[op.dtype]
    return sum(item * math.prod(op.input_shapes[k]) for k in dict(op.attributes).get("scattered", ()))


def _of_convolution(op: OpType, simd_bytes: int) -> int:
    conv = _convolution(op, simd_bytes // 4)
    if op.kind == "conv_backward":
        return conv.backward(dict(op.attributes)["output_mask"])
    return conv.transposed_forward(len(op.input_shapes) == 3) if conv.transposed else conv.forward()


@dataclass(frozen=True, slots=True)
class _Convolution:
    """Sizes of one convolution. `x_pixels` and `y_pixels` are those of one image of the input and the output."""

    item: int  # bytes of an element
    half: bool
    batch: int
    groups: int
    x_channels: int
    y_channels: int
    x_pixels: int
    y_pixels: int
    taps: int  # of the kernel
    strided: bool
    dilated: bool
    block: int  # channels in a SIMD register of float32
    by_library: bool
    moved: bool  # anything but a plain 1x1: columns are needed where the library is not
    transposed: bool  # then x and y stand for its output and its input: it is the gradient of the convolution x -> y

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.x_channels == self.y_channels

    @property
    def _pads(self) -> bool:
        return self.groups == 1 or self.depthwise

    def _up(self, channels: int, block: int) -> int:
        return -(-channels // block) * block if self._pads else channels

    def _x(self, block: int = 1) -> int:
        return self.item * self.batch * self.x_pixels * self._up(self.x_channels, block)

    def _y(self, block: int = 1) -> int:
        return self.item * self.batch * self.y_pixels * self._up(self.y_channels, block)

    def _w(self, x_block: int = 1, y_block: int = 1) -> int:
        if self.depthwise:
            return self.item * self.taps * self._up(self.y_channels, y_block)
        within = self._up(self.x_channels, x_block) // self.groups
        return self.item * self.taps * within * self._up(self.y_channels, y_block)

    def _columns(self) -> int:
        if not self.moved:
            return 0
        return self.item * self.batch * self.taps * self.x_channels // self.groups * self.y_pixels

    def _image_of_floats(self, channels: int, pixels: int) -> int:
        """The float32 sums of one image, which a 1x1 convolution of halves keeps."""
        return 4 * channels * pixels if self.half and self.taps == 1 and self.groups == 1 else 0

    def forward(self) -> int:
        y = self._y()
        if not self.by_library:
            # groups run one by one and are joined at the end
            return self._columns() if self.groups == 1 else max(self._columns() + self._x() // self.groups, y)
        block = self.block
        flat = self.groups == 1 and self.x_channels < block and self.taps > 1
        made = self._w(1 if flat else block, block) + self._y(block) + (0 if flat else self._x(block))
        return max(made + self._image_of_floats(self.y_channels, self.y_pixels) - y, self._y(block))

    def transposed_forward(self, bias: bool) -> int:
        y = self._x()
        if not self.by_library:
            columns = self.item * self.batch * self.taps * self.x_channels // self.groups * self.y_pixels
            return columns if self.groups == 1 else max(columns + self._y() // self.groups, y)
        if self._flat_data_gradient:
            return self._data_gradient() - y
        added = self._floats(self._x(self.block)) + 2 * self.block * 4 if bias else 0  # summed apart, in float32
        return max(self._primed_data_gradient() + added, self._x(self.block) + y) - y

    def backward(self, mask: tuple[int, ...]) -> int:
        dx, dw = (self._x() if mask[0] else 0), (self._w() if mask[1] else 0)
        data = self._data_gradient() if mask[0] else 0
        if self.transposed:
            dx = self._y() if mask[0] else 0
            data = self.forward() + dx if mask[0] else 0
        weight = self._weight_gradient() if mask[1] else 0
        # the input's gradient comes first, the weight's is made while it is alive
        return max(data - dx - dw, weight - dw, 0)

    @property
    def _flat_data_gradient(self) -> bool:
        """Whether the input's gradient is computed channels-last, of which two more copies are made."""
        return self.strided and self.groups == 1 and not self.dilated

    def _primed_data_gradient(self) -> int:
        block = self.block
        made = self._y(block) + self._w(block, block) + self._x(block)
        return made + self._image_of_floats(self.x_channels, self.x_pixels)

    def _floats(self, count: int) -> int:
        """Bytes of as many elements in float32."""
        return count // self.item * 4

    def _data_gradient(self) -> int:
        """The most alive while the input's gradient is made, itself included."""
        x = self._x()
        if not self.by_library:
            return x if self.groups == 1 else max(x + (x + self._y()) // self.groups, 2 * x)
        if self._flat_data_gradient:
            image = 4 * 2 * self.y_pixels * self._up(self.x_channels, self.block)  # the sums of one image, twice
            scratch = _STRIDED_SCRATCH + -(-image // _STRIDED_UNIT) * _STRIDED_UNIT
            return max(self._y() + self._w(1, self.block) + x + scratch, 3 * x)
        return max(self._primed_data_gradient(), self._x(self.block) + x)

    def _weight_gradient(self) -> int:
        """The most alive while the weight's gradient is made, itself included."""
        if not self.by_library:
            return self._w() + self._columns() + ((self._x() + self._y()) // self.groups if self.groups > 1 else 0)
        few = self.groups == 1 and self.x_channels < self.block and self.taps > 1
        flat = few and (self.half or self.x_channels <= _FLAT_GRADIENT)
        # no float32 kernel of AVX-512 takes few channels or small groups: one of half as long registers does
        narrow = (few or (self.groups > 1 and not self.depthwise)) and not self.half
        block = AVX2_BYTES // 4 if narrow else self.block
        if not self._has_gradient_kernel(block, flat):
            # a matrix product over the columns of one image, summed four times over in float32
            columns = self.item * self.taps * self.x_channels // self.groups * self.y_pixels
            return self._w() + columns + 4 * self._floats_of_weights(1, 1)
        if flat:
            block, images, made = self.block, self._y(self.block), self._w(1, self.block)
            sums = self._sums_of_weights(1)
        else:
            images, made = self._y(block) + self._x(block), self._w(block, block)
            sums = self._sums_of_weights(block)
        return made + max(images + sums, self._w())

    def _has_gradient_kernel(self, block: int, flat: bool) -> bool:
        spread = self.strided or self.groups > 1 or (block < self.block and self.taps > 9)
        if self.dilated and spread and not self.half:
            return self.depthwise and not self.strided
        if self.depthwise:
            return self.taps <= 9 and not (self.taps == 1 and self.strided)
        if self.groups > 1:
            return self.x_channels // self.groups % block == 0 and self.y_channels // self.groups % block == 0
        return not (self.half and flat) or self.y_channels % block == 0

    def _floats_of_weights(self, x_block: int, y_block: int) -> int:
        return 4 * self._w(x_block, y_block) // self.item

    def _sums_of_weights(self, x_block: int) -> int:
        """Weight gradients of halves are summed in float32, over one image transposed at a time."""
        if not self.half or self.depthwise:
            return 0
        images = (self._x(x_block) + self._y(self.block)) // self.batch if self.taps > 1 else 0
        return self._floats_of_weights(x_block, self.block) + images


def _convolution(op: OpType, block: int) -> _Convolution:
    """The sizes of a convolution or of its gradient."""
    attributes = dict(op.attributes)
    transposed = attributes.get("transposed", (0,)) != (0,)
    if op.kind == "conv":
        x, w, y = op.input_shapes[0], op.input_shapes[1], op.output_shapes[0]
    else:
        y, x, w = op.input_shapes[:3]
    given = x  # what the kernel is chosen by
    if transposed:
        x, y = y, x
    groups = attributes["groups"][0]
    taps = math.prod(w[2:])
    strided = any(n > 1 for n in attributes["stride"])
    dilated = any(n > 1 for n in attributes["dilation"])
    half = op.dtype in HALVES
    # at::native::ConvParams::use_mkldnn, one thread
    worthwhile = strided or dilated or x[0] >= 16 or taps > 1
    large = groups > 1 or min(w[2:]) > 3 or x[0] > 1 or math.prod(given) > 20480
    return _Convolution(
        item=ITEM_BYTES[op.dtype],
        half=half,
        batch=x[0],
        groups=groups,
        x_channels=x[1],
        y_channels=y[1],
        x_pixels=math.prod(x[2:]),
        y_pixels=math.prod(y[2:]),
        taps=taps,
        strided=strided,
        dilated=dilated,
        block=block,
        by_library=half or (op.dtype == "float32" and worthwhile and large),
        moved=taps > 1 or strided or any(n > 0 for n in attributes["padding"]),
        transposed=transposed,
    )
