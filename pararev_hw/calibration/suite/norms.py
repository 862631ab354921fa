"""Batch, layer and group normalisation, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator

from pararev_hw.calibration.cases import Case, Operand
from pararev_hw.calibration.suite.entry import FEW, USUAL, Draw, SuiteEntry, X, Y, Z, entry
from pararev_hw.types import Hole


def _batch_norm(dtype: str, training: bool) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape = draw.image()
        c = (shape[1],)
        operands = (
            Operand(shape, dtype),
            *(Operand(c, content=content) for content in ("positive", "normal", "normal", "positive")),
        )
        return Case("aten.native_batch_norm.default", operands, (*map(Hole, range(5)), training, 0.1, 1e-5))

    return entry(
        dtype, f"aten.native_batch_norm.default {'train' if training else 'eval'}", make, 2 * USUAL if training else FEW
    )


def _batch_norm_backward(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape = draw.image()
        c = (shape[1],)
        stats = tuple(Operand(c, content="positive") for _ in range(5))
        args = (X, Y, Z, Hole(3), Hole(4), Hole(5), Hole(6), True, 1e-5, [True, True, True])
        operands = (Operand(shape, dtype), Operand(shape, dtype), *stats)
        return Case("aten.native_batch_norm_backward.default", operands, args)

    return entry(dtype, "aten.native_batch_norm_backward.default", make, 2 * USUAL)


def _layer_norm(draw: Draw) -> Case:
    rows, width = draw.log(8, 8192), draw.log(16, 1024)
    operands = (Operand((rows, width)), Operand((width,)), Operand((width,)))
    return Case("aten.native_layer_norm.default", operands, (X, [width], Y, Z, 1e-5))


def _layer_norm_backward(draw: Draw) -> Case:
    rows, width = draw.log(8, 8192), draw.log(16, 1024)
    x, per_row, w = Operand((rows, width)), Operand((rows, 1), content="positive"), Operand((width,))
    args = (X, Y, [width], Z, Hole(3), Hole(4), Hole(5), [True, True, True])
    return Case("aten.native_layer_norm_backward.default", (x, x, per_row, per_row, w, w), args)


def _group_norm(draw: Draw) -> Case:
    groups = draw.integer((2, 4, 8))
    n, c, side = draw.log(1, 64), groups * draw.log(2, 32), draw.integer((4, 8, 16, 32))
    operands = (Operand((n, c, side, side)), Operand((c,)), Operand((c,)))
    return Case("aten.native_group_norm.default", operands, (X, Y, Z, n, c, side * side, groups, 1e-5))


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Batch normalisation in every datatype, the others in float32."""
    for dtype in dtypes:
        yield from (_batch_norm(dtype, True), _batch_norm(dtype, False), _batch_norm_backward(dtype))
    yield entry("float32", "aten.native_layer_norm.default", _layer_norm)
    yield entry("float32", "aten.native_layer_norm_backward.default", _layer_norm_backward, FEW)
    yield entry("float32", "aten.native_group_norm.default", _group_norm, FEW)
