"""Convolutions and their gradients: plain, strided, pointwise, depthwise, grouped, channels last; and single ones, few
or small images that PyTorch convolves itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pararev_hw.calibration.cases import CHANNELS_LAST, Case, Operand
from pararev_hw.calibration.suite.entry import FEW, MANY, USUAL, Draw, Shape, SuiteEntry, X, Y, Z, entry


@dataclass(frozen=True, slots=True)
class _Conv:
    x: Shape
    w: Shape
    out: Shape
    stride: int
    pad: int
    groups: int


def _conv_shape(draw: Draw, form: str, flop_limit: float) -> _Conv:
    while True:
        side = draw.integer((2, 4, 4, 7, 8, 8, 14, 16, 16, 28, 32, 32, 56, 64))
        alone = form == "single" and draw.flag()  # one small image; else a 1x1 on few
        k = (
            1
            if form == "pointwise" or (form == "single" and not alone)
            else draw.integer((3,) * 30 + (5, 7))
            if form == "plain" and side >= 7
            else 3
        )
        stride = 2 if form == "strided" else draw.integer((1, 1, 1, 2)) if form == "pointwise" else 1
        cin = draw.integer((2, 3)) if form in ("plain", "strided") and draw.flag(0.1) else draw.log(4, 512)
        cout = max(8, cin * draw.integer((1, 1, 1, 2))) if draw.flag(0.7) else draw.log(8, 512)
        groups = 1
        if form == "depthwise":
            groups = cin = cout = draw.log(8, 512)
        elif form == "grouped":
            groups = draw.integer((2, 4, 8))
            cin, cout = groups * draw.log(2, 64), groups * draw.log(2, 64)
        batch = 1 if alone else draw.log(1, 15) if form == "single" else draw.log(1, 256)
        if alone and cin * side * side > 20480:
            continue  # large enough for the library after all
        out = (side + 2 * (k // 2) - k) // stride + 1
        flops = 2 * batch * cout * out * out * cin // groups * k * k
        if out >= 1 and 2e4 <= flops <= flop_limit and batch * max(cin, cout) * side * side <= 1 << 23:
            x, w = (batch, cin, side, side), (cout, cin // groups, k, k)
            return _Conv(x, w, (batch, cout, out, out), stride, k // 2, groups)


def _conv(form: str, dtype: str, count: int, channels_last: bool = False) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        s = _conv_shape(draw, form, 4e9)
        order = CHANNELS_LAST if channels_last else None
        bias = draw.flag(0.2)
        operands = [Operand(s.x, dtype, "spikes" if draw.flag() else "normal", order), Operand(s.w, dtype, order=order)]
        operands += [Operand((s.w[0],), dtype)] if bias else []
        common = ([s.stride] * 2, [s.pad] * 2, [1, 1], False, [0, 0], s.groups)
        return Case("aten.convolution.default", tuple(operands), (X, Y, Z if bias else None, *common))

    return entry(dtype, f"aten.convolution.default {form}{' last' if channels_last else ''}", make, count)


def _conv_backward(form: str, dtype: str, count: int, mask: tuple[bool, bool, bool], last: bool = False) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        s = _conv_shape(draw, form, 2e9)
        order = CHANNELS_LAST if last else None
        operands = tuple(Operand(shape, dtype, order=order) for shape in (s.out, s.x, s.w))
        common = ([s.stride] * 2, [s.pad] * 2, [1, 1], False, [0, 0], s.groups, list(mask))
        return Case("aten.convolution_backward.default", operands, (X, Y, Z, [s.w[0]] if mask[2] else [0], *common))

    name = f"aten.convolution_backward.default {form} {''.join('01'[m] for m in mask)}{' last' if last else ''}"
    return entry(dtype, name, make, count)


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Convolutions: the zoo's forms in every datatype (float32 the most), the others in float32."""
    for dtype in dtypes:
        share = 1 if dtype == "float32" else 2
        yield _conv("plain", dtype, MANY // share)
        yield _conv_backward("plain", dtype, MANY // share, (True, True, False))
        yield _conv("strided", dtype, 2 * USUAL // share)
        yield _conv_backward("strided", dtype, 2 * USUAL // share, (True, True, False))
        yield _conv("pointwise", dtype, 2 * USUAL // share)
        yield _conv_backward("pointwise", dtype, 2 * USUAL // share, (True, True, False))
        yield _conv_backward("plain", dtype, 2 * USUAL // share, (False, True, False))
        yield _conv_backward("strided", dtype, USUAL // share, (False, True, False))
    yield _conv("single", "float32", USUAL)
    yield _conv_backward("single", "float32", USUAL, (True, True, False))
    yield _conv_backward("single", "float32", FEW, (False, True, False))
    for form in ("depthwise", "grouped"):
        yield _conv(form, "float32", USUAL)
        yield _conv_backward(form, "float32", USUAL, (True, True, False))
    yield _conv("plain", "float32", FEW, channels_last=True)
    yield _conv_backward("plain", "float32", FEW, (True, True, False), last=True)
    yield _conv_backward("plain", "float32", FEW, (True, True, True))


def conv_case(batch: int, channels: int, side: int, dtype: str = "float32") -> Case:
    """A 3x3 convolution that keeps shape and channels."""
    operands = (Operand((batch, channels, side, side), dtype), Operand((channels, channels, 3, 3), dtype))
    return Case("aten.convolution.default", operands, (X, Y, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1))
